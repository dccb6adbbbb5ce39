//! The payload types of one section of an offer: one pass over the attributes, then look-ups by
//! number (RFC 8866 §6.6 and §6.15, RFC 4585 §4.2).
//!
//! A parsed section goes in; the formats that a viewer may be sent come out. Must not know the
//! other sections or the answer.

use rtc_sdp::MediaDescription;

/// Maximum number of formats of one section. An RTP payload type has 7 bits, and a section lists
/// each at most once (RFC 8866 §5.14).
pub(super) const MAX_FORMATS: usize = 128;

/// An H.264 payload type with packetization-mode 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct H264Format {
    pub(super) payload_type: u8,
    /// `profile_idc`, constraint flags, `level_idc`, in six hexadecimal digits.
    pub(super) profile_level_id: String,
    pub(super) nack: bool,
    pub(super) nack_pli: bool,
}

/// The attributes of one payload type; of a repeated attribute, the first one counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PayloadType<'a> {
    pub(super) rtpmap: Option<&'a str>,
    pub(super) fmtp: Option<&'a str>,
    nack: bool,
    nack_pli: bool,
}

/// All payload types of a section.
pub(super) struct PayloadTypes<'a> {
    /// In the order of the viewer's preference, each once.
    listed: Vec<u8>,
    by_number: Vec<PayloadType<'a>>,
}

impl<'a> PayloadTypes<'a> {
    /// Reads each attribute of the section once.
    pub(super) fn index(m: &'a MediaDescription) -> Self {
        let mut by_number = vec![PayloadType::default(); MAX_FORMATS];
        let (mut all_nack, mut all_nack_pli) = (false, false);
        for attribute in &m.attributes {
            let key = attribute.key.as_str();
            if !matches!(key, "rtpmap" | "fmtp" | "rtcp-fb") {
                continue;
            }
            let Some((format, value)) = attribute.value.as_deref().and_then(|value| value.split_once(' ')) else {
                continue;
            };
            let value = value.trim();
            if format == "*" && key == "rtcp-fb" {
                all_nack |= value == "nack";
                all_nack_pli |= value == "nack pli";
            }
            let Some(entry) = number(format).map(|n| &mut by_number[usize::from(n)]) else { continue };
            match key {
                "rtpmap" => _ = entry.rtpmap.get_or_insert(value),
                "fmtp" => _ = entry.fmtp.get_or_insert(value),
                _ => {
                    entry.nack |= value == "nack";
                    entry.nack_pli |= value == "nack pli";
                }
            }
        }
        for entry in &mut by_number {
            entry.nack |= all_nack;
            entry.nack_pli |= all_nack_pli;
        }
        let mut is_listed = [false; MAX_FORMATS];
        let formats = m.media_name.formats.iter().filter_map(|format| number(format));
        let listed = formats.filter(|&n| !std::mem::replace(&mut is_listed[usize::from(n)], true)).collect();
        Self { listed, by_number }
    }

    /// Returns the attributes of a format, which are empty for an unknown one.
    pub(super) fn get(&self, format: &str) -> PayloadType<'a> {
        number(format).map(|n| self.by_number[usize::from(n)]).unwrap_or_default()
    }

    /// Returns the first payload type for Opus.
    pub(super) fn opus(&self) -> Option<u8> {
        self.listed.iter().copied().find(|&n| {
            let (codec, clock) = self.codec(n);
            codec.eq_ignore_ascii_case("opus") && clock == "48000"
        })
    }

    /// Returns the payload types for H.264 with packetization-mode 1.
    pub(super) fn h264(&self) -> Vec<H264Format> {
        self.listed.iter().filter_map(|&n| self.h264_format(n)).collect()
    }

    fn h264_format(&self, payload_type: u8) -> Option<H264Format> {
        let (codec, clock) = self.codec(payload_type);
        let PayloadType { fmtp, nack, nack_pli, .. } = self.by_number[usize::from(payload_type)];
        let fmtp = fmtp.unwrap_or_default();
        if !codec.eq_ignore_ascii_case("H264")
            || clock != "90000"
            || fmtp_value(fmtp, "packetization-mode") != Some("1")
        {
            return None;
        }
        // Without the parameter, the profile is Baseline, level 1 (RFC 6184 §8.1).
        let profile_level_id = fmtp_value(fmtp, "profile-level-id").unwrap_or("42000a");
        let is_valid = profile_level_id.len() == 6 && profile_level_id.bytes().all(|b| b.is_ascii_hexdigit());
        let profile_level_id = profile_level_id.to_owned();
        is_valid.then_some(H264Format { payload_type, profile_level_id, nack, nack_pli })
    }

    /// Returns the name of the codec and its clock rate.
    fn codec(&self, payload_type: u8) -> (&'a str, &'a str) {
        let mut parts = self.by_number[usize::from(payload_type)].rtpmap.unwrap_or_default().split('/');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }
}

fn number(format: &str) -> Option<u8> {
    format.parse::<u8>().ok().filter(|&n| usize::from(n) < MAX_FORMATS)
}

/// Returns the value of `key` in a list `KEY=VALUE;KEY=VALUE`.
fn fmtp_value<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').filter_map(|p| p.trim().split_once('=')).find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v)
}
