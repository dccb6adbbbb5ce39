//! Delivery directives in the query of a playlist request (RFC 8216bis §6.2.5).

/// The target of a blocking playlist reload: segment `msn`, or part `part` of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// Media sequence number.
    pub msn: u64,
    /// Part index in that segment; `None` waits for the whole segment.
    pub part: Option<u32>,
}

/// An invalid delivery directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The value of a directive is not a decimal number, or is out of range.
    #[error("{directive} must be a decimal number")]
    InvalidNumber {
        /// `_HLS_msn` or `_HLS_part`.
        directive: &'static str,
    },
    /// `_HLS_part` is present without `_HLS_msn`.
    #[error("_HLS_part needs _HLS_msn")]
    PartWithoutMsn,
}

impl Reload {
    /// Parses the query of a playlist request. Returns `None` if the request does not block. Other
    /// parameters are ignored; of a repeated directive, the last one is used.
    ///
    /// # Errors
    /// If a directive is malformed. The HTTP status is then 400.
    ///
    /// ```
    /// use headwater_wire::hls::Reload;
    ///
    /// let reload = Reload::parse("token=x&_HLS_msn=273&_HLS_part=2").unwrap();
    /// assert_eq!(reload, Some(Reload { msn: 273, part: Some(2) }));
    /// assert_eq!(Reload::parse("token=x").unwrap(), None);
    /// ```
    pub fn parse(query: &str) -> Result<Option<Self>, QueryError> {
        let (mut msn, mut part) = (None, None);
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("_HLS_msn", v) => msn = Some(parse_number(v, "_HLS_msn")?),
                ("_HLS_part", v) => {
                    let n = parse_number(v, "_HLS_part")?;
                    part = Some(u32::try_from(n).map_err(|_| QueryError::InvalidNumber { directive: "_HLS_part" })?);
                }
                _ => {}
            }
        }
        match (msn, part) {
            (Some(msn), part) => Ok(Some(Self { msn, part })),
            (None, Some(_)) => Err(QueryError::PartWithoutMsn),
            (None, None) => Ok(None),
        }
    }
}

fn parse_number(value: &str, directive: &'static str) -> Result<u64, QueryError> {
    let all_digits = value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|_| all_digits).ok_or(QueryError::InvalidNumber { directive })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_parsed_among_other_parameters() {
        let check = |query, expect| assert_eq!(Reload::parse(query), expect, "{query:?}");
        check("", Ok(None));
        check("token=a_b&x", Ok(None));
        check("_HLS_msn=7", Ok(Some(Reload { msn: 7, part: None })));
        check("token=x&_HLS_part=3&_HLS_msn=7&_HLS_skip=YES", Ok(Some(Reload { msn: 7, part: Some(3) })));
        check("_HLS_part=3", Err(QueryError::PartWithoutMsn));
        check("_HLS_msn=7&_HLS_part=4294967296", Err(QueryError::InvalidNumber { directive: "_HLS_part" }));
        for bad in
            ["_HLS_msn", "_HLS_msn=", "_HLS_msn=-1", "_HLS_msn=+1", "_HLS_msn=x", "_HLS_msn=99999999999999999999"]
        {
            check(bad, Err(QueryError::InvalidNumber { directive: "_HLS_msn" }));
        }
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_panics() {
        let good = "token=x&_HLS_msn=1234&_HLS_part=3";
        for end in 0..=good.len() {
            let _ = Reload::parse(&good[..end]);
        }
        for at in 0..good.len() {
            for bit in 0..7 {
                let mut bytes = good.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let _ = Reload::parse(&String::from_utf8_lossy(&bytes));
            }
        }
    }
}
