//! Reads bit fields, most significant bit first. Reading past the end returns `None` and never
//! panics.

/// A bit reader over a slice.
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// Reads `n` bits, at most 32.
    pub(super) fn read(&mut self, n: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..n {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    pub(super) fn skip(&mut self, n: usize) -> Option<()> {
        let at = self.at.checked_add(n)?;
        (at <= self.bytes.len() * 8).then(|| self.at = at)
    }

    /// Reads an unsigned Exp-Golomb code with at most 31 leading zeros: `ue(v)` of ITU-T H.264
    /// §9.1, `uvlc()` of AV1 §4.10.3.
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.read(zeros)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_most_significant_bit_first() {
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0000]);
        assert_eq!((bits.read(3), bits.flag(), bits.ue(), bits.ue()), (Some(5), Some(false), Some(2), Some(3)));
        assert_eq!(bits.ue(), None);
        assert_eq!(Bits::new(&[0]).read(9), None);
        assert_eq!(Bits::new(&[0; 9]).ue(), None);
    }
}
