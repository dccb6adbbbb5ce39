//! Reads the fields of a message body.

use bytes::{Buf as _, Bytes};

use super::error::MessageError;

/// The unread rest of a message body.
pub(super) struct FieldReader(pub(super) Bytes);

impl FieldReader {
    pub(super) fn u8(&mut self) -> Result<u8, MessageError> {
        self.0.try_get_u8().map_err(|_| MessageError::Truncated)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MessageError> {
        self.0.try_get_u16().map_err(|_| MessageError::Truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MessageError> {
        self.0.try_get_u32().map_err(|_| MessageError::Truncated)
    }

    pub(super) fn u64(&mut self) -> Result<u64, MessageError> {
        self.0.try_get_u64().map_err(|_| MessageError::Truncated)
    }

    pub(super) fn i64(&mut self) -> Result<i64, MessageError> {
        self.0.try_get_i64().map_err(|_| MessageError::Truncated)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<Bytes, MessageError> {
        if self.0.len() < len {
            return Err(MessageError::Truncated);
        }
        Ok(self.0.split_to(len))
    }

    /// Reads a text of at most `limit` bytes with a 2-byte length prefix.
    pub(super) fn text(&mut self, limit: usize) -> Result<String, MessageError> {
        let len = usize::from(self.u16()?);
        if len > limit {
            return Err(MessageError::TooLong { len, limit });
        }
        String::from_utf8(self.bytes(len)?.into()).map_err(|_| MessageError::InvalidUtf8)
    }
}
