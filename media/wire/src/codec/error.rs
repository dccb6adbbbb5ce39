//! Errors of codec header parsers.

/// A codec header that no decoder could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("{what} ends early")]
    Short {
        /// Name of the record.
        what: &'static str,
    },
    /// A field has a value that the specification does not allow or that is not supported.
    #[error("{what} has {field} {value}")]
    Value {
        /// Name of the record.
        what: &'static str,
        /// Name of the field.
        field: &'static str,
        /// Value of the field.
        value: u32,
    },
}
