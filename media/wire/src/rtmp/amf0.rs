//! Decodes and encodes AMF0 values (Adobe "Action Message Format, AMF 0", 2007).
//!
//! Values come from clients that are not authenticated yet, so nesting and counts are limited.
//! Every string is copied from the message, so the decoded values are never much larger than the
//! message.

/// One AMF0 value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Number (marker 0).
    Number(f64),
    /// Boolean (marker 1).
    Boolean(bool),
    /// String (marker 2), long string (marker 12) or XML document (marker 15).
    String(String),
    /// Object (marker 3), or typed object without its class name (marker 16).
    Object(Vec<(String, Value)>),
    /// ECMA array (marker 8).
    EcmaArray(Vec<(String, Value)>),
    /// Strict array (marker 10).
    StrictArray(Vec<Value>),
    /// Date (marker 11), in milliseconds since 1970, UTC.
    Date(f64),
    /// Null (marker 5).
    Null,
    /// Undefined (marker 6), unresolved reference (marker 7) or unsupported (marker 13).
    Undefined,
}

impl Value {
    /// Returns the text if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    /// Returns the number if this is a number.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// Returns the value of a property if this is an object or ECMA array with that property.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Object(properties) | Self::EcmaArray(properties) => {
                properties.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Self::String(s.to_owned())
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Self::Number(n)
    }
}

/// Malformed or unsupported AMF0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Amf0Error {
    /// The bytes end inside a value.
    #[error("AMF0 value ends early")]
    Truncated,
    /// A marker that AMF0 does not define, or the one that switches to AMF3.
    #[error("AMF0 marker {0} is not handled")]
    UnsupportedMarker(u8),
    /// Values are nested too deeply.
    #[error("AMF0 values are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Too many values in one message.
    #[error("AMF0 message holds more than {MAX_VALUES} values")]
    TooManyValues,
}

/// Maximum nesting depth. `connect` and `onMetaData` use 2 or 3.
pub const MAX_DEPTH: usize = 16;
/// Maximum number of values in one message, at all levels together.
pub const MAX_VALUES: usize = 1_024;

/// Decodes all values of a message.
///
/// # Errors
/// See [`Amf0Error`].
pub fn decode(bytes: &[u8]) -> Result<Vec<Value>, Amf0Error> {
    let mut reader = Reader { rest: bytes, values: 0 };
    let mut out = Vec::new();
    while !reader.rest.is_empty() {
        out.push(reader.value(0)?);
    }
    Ok(out)
}

/// Encodes a sequence of values.
pub fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    values.iter().for_each(|value| write(&mut out, value));
    out
}

struct Reader<'a> {
    rest: &'a [u8],
    values: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, Amf0Error> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Amf0Error::TooManyValues);
        }
        if depth > MAX_DEPTH {
            return Err(Amf0Error::TooDeep);
        }
        Ok(match self.u8()? {
            0 => Value::Number(self.f64()?),
            1 => Value::Boolean(self.u8()? != 0),
            2 => Value::String(self.string()?),
            3 => Value::Object(self.properties(depth)?),
            5 => Value::Null,
            6 | 13 => Value::Undefined,
            7 => {
                self.take(2)?;
                Value::Undefined
            }
            8 => {
                // The count is often wrong; the end marker is authoritative.
                self.take(4)?;
                Value::EcmaArray(self.properties(depth)?)
            }
            10 => {
                let count = self.u32()?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(depth + 1)?);
                }
                Value::StrictArray(items)
            }
            11 => {
                let ms = self.f64()?;
                self.take(2)?; // time zone, reserved
                Value::Date(ms)
            }
            12 | 15 => Value::String(self.long_string()?),
            16 => {
                self.string()?;
                Value::Object(self.properties(depth)?)
            }
            marker => return Err(Amf0Error::UnsupportedMarker(marker)),
        })
    }

    fn properties(&mut self, depth: usize) -> Result<Vec<(String, Value)>, Amf0Error> {
        let mut out = Vec::new();
        loop {
            let name = self.string()?;
            if name.is_empty() && self.rest.first() == Some(&9) {
                self.take(1)?;
                return Ok(out);
            }
            let value = self.value(depth + 1)?;
            out.push((name, value));
        }
    }

    fn string(&mut self) -> Result<String, Amf0Error> {
        let len = usize::from(self.u8()?) << 8 | usize::from(self.u8()?);
        self.text(len)
    }

    fn long_string(&mut self) -> Result<String, Amf0Error> {
        let len = self.u32()? as usize;
        self.text(len)
    }

    fn text(&mut self, len: usize) -> Result<String, Amf0Error> {
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn u8(&mut self) -> Result<u8, Amf0Error> {
        let (&byte, rest) = self.rest.split_first().ok_or(Amf0Error::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    fn u32(&mut self) -> Result<u32, Amf0Error> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(Amf0Error::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn f64(&mut self) -> Result<f64, Amf0Error> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(Amf0Error::Truncated)?;
        self.rest = rest;
        Ok(f64::from_be_bytes(*bytes))
    }

    fn take(&mut self, len: usize) -> Result<&[u8], Amf0Error> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Amf0Error::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(n) => {
            out.push(0);
            out.extend_from_slice(&n.to_be_bytes());
        }
        Value::Boolean(b) => out.extend_from_slice(&[1, u8::from(*b)]),
        Value::String(s) => match u16::try_from(s.len()) {
            Ok(_) => {
                out.push(2);
                write_name(out, s);
            }
            Err(_) => {
                out.push(12);
                out.extend_from_slice(&u32::try_from(s.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend_from_slice(s.as_bytes());
            }
        },
        Value::Object(properties) => {
            out.push(3);
            write_properties(out, properties);
        }
        Value::EcmaArray(properties) => {
            out.push(8);
            out.extend_from_slice(&u32::try_from(properties.len()).unwrap_or(u32::MAX).to_be_bytes());
            write_properties(out, properties);
        }
        Value::StrictArray(items) => {
            out.push(10);
            out.extend_from_slice(&u32::try_from(items.len()).unwrap_or(u32::MAX).to_be_bytes());
            items.iter().for_each(|item| write(out, item));
        }
        Value::Date(ms) => {
            out.push(11);
            out.extend_from_slice(&ms.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        Value::Null => out.push(5),
        Value::Undefined => out.push(6),
    }
}

fn write_properties(out: &mut Vec<u8>, properties: &[(String, Value)]) {
    for (name, value) in properties {
        write_name(out, name);
        write(out, value);
    }
    out.extend_from_slice(&[0, 0, 9]);
}

/// Writes a property name. Names of more than 65,535 bytes, which are never used here, are
/// truncated.
fn write_name(out: &mut Vec<u8>, name: &str) {
    let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&name.as_bytes()[..usize::from(len)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Value> {
        let properties = vec![
            ("n".to_owned(), Value::Number(-0.5)),
            ("inner".to_owned(), Value::Object(vec![("b".to_owned(), Value::Boolean(true))])),
        ];
        vec![
            "connect".into(),
            Value::Number(1.0),
            Value::Object(properties.clone()),
            Value::EcmaArray(properties),
            Value::StrictArray(vec!["hvc1".into(), Value::Null, Value::Undefined]),
            Value::Date(1.5e12),
            Value::String("x".repeat(70_000)),
        ]
    }

    #[test]
    fn every_kind_of_value_round_trips() {
        let values = every_kind();
        assert_eq!(decode(&encode(&values)).unwrap(), values);
    }

    #[test]
    fn rare_markers_are_decoded_without_interpretation() {
        let bytes = [
            7, 0, 1,  // reference
            13, // unsupported
            15, 0, 0, 0, 1, b'x', // XML
            16, 0, 1, b'C', 0, 1, b'k', 5, 0, 0, 9, // typed object
        ];
        let expect =
            [Value::Undefined, Value::Undefined, "x".into(), Value::Object(vec![("k".to_owned(), Value::Null)])];
        assert_eq!(decode(&bytes).unwrap(), expect);
        assert_eq!(decode(&[17]), Err(Amf0Error::UnsupportedMarker(17)));
    }

    #[test]
    fn five_thousand_nested_objects_are_an_error() {
        let nested: Vec<u8> = std::iter::repeat_n([3, 0, 1, b'a'], 5_000).flatten().collect();
        assert_eq!(decode(&nested), Err(Amf0Error::TooDeep));
        let arrays: Vec<u8> = std::iter::repeat_n([10, 0, 0, 0, 1], 5_000).flatten().collect();
        assert_eq!(decode(&arrays), Err(Amf0Error::TooDeep));
    }

    #[test]
    fn strict_array_length_is_bounded_by_the_message_length() {
        let mut bytes = vec![10, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decode(&bytes), Err(Amf0Error::Truncated));
        bytes.extend(std::iter::repeat_n(5, 2_000));
        assert_eq!(decode(&bytes), Err(Amf0Error::TooManyValues));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let mut values = every_kind();
        values.pop();
        let golden = encode(&values);
        for end in 0..golden.len() {
            let _ = decode(&golden[..end]);
        }
        for at in 0..golden.len() {
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                let mut bytes = golden.clone();
                bytes[at] ^= flip;
                let _ = decode(&bytes);
            }
        }
    }
}
