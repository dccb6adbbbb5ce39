//! Why a codec header was refused.

/// A header that breaks a rule without which no decoder could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("{what} ends early")]
    Short {
        /// Which record.
        what: &'static str,
    },
    /// A field has a value that the specification does not allow or that is not handled here.
    #[error("{what} has {field} {value}")]
    Value {
        /// Which record.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u32,
    },
}
