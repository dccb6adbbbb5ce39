//! Why a message of the relay protocol cannot be read.
//!
//! A plain value, for every reader of fields. Must not know the messages.

/// A malformed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The message is truncated.
    #[error("a message is truncated")]
    Truncated,
    /// The body is longer than its fields.
    #[error("a message has {0} trailing bytes")]
    TrailingBytes(usize),
    /// A field exceeds its limit.
    #[error("a field has {len} bytes; {limit} are allowed")]
    TooLong {
        /// Length of the field.
        len: usize,
        /// Maximum length of the field.
        limit: usize,
    },
    /// A text field is not UTF-8.
    #[error("a text field is not UTF-8")]
    InvalidUtf8,
    /// This version does not know the code in a field.
    #[error("unknown {field} {code}")]
    Unknown {
        /// Name of the field.
        field: &'static str,
        /// The unknown code.
        code: u8,
    },
}
