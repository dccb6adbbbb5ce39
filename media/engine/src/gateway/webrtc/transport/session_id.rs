//! Identifies one session in signalling, in the workers and in the log.
//!
//! A plain value. Must not know what the session sends or receives.

/// Identifies one session: 128 random bits. Also a capability: any client that has it can
/// end the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// Generates a new id.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    /// Parses 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        digits.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Returns the first 8 digits: enough to find the session in the log, too few to end it.
    pub(crate) fn short(self) -> String {
        format!("{:08x}", (self.0 >> 96) as u32)
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionId({}…)", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_parsed_from_its_text_and_from_nothing_else() {
        let id = SessionId::random();
        let text = id.to_string();
        assert_eq!(SessionId::parse(&text), Some(id));
        assert_eq!(id.short(), text[..8]);
        for wrong in ["", &text[1..], &format!("{text}0"), &"g".repeat(32), &"A".repeat(32), &"+".repeat(32)] {
            assert_eq!(SessionId::parse(wrong), None, "{wrong}");
        }
    }
}
