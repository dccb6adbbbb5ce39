//! Parses the SDP offer of a viewer (RFC 8866, RFC 8829, RFC 8843, draft-ietf-wish-whep-02 §4).
//!
//! `rtc-sdp` parses the syntax. This file checks the requirements of a WHEP offer: one transport
//! for all sections (BUNDLE), RTCP on the same port, ICE credentials, a SHA-256 fingerprint, and a
//! client that begins the DTLS handshake.

use std::io::Cursor;

use rtc_sdp::{MediaDescription, SessionDescription};

use super::Fingerprint;

/// Maximum length of an offer; browsers send 5 to 10 KB.
pub const MAX_OFFER_BYTES: usize = 64 << 10;
/// Maximum number of sections.
const MAX_SECTIONS: usize = 32;
/// Maximum length of a `mid` or `ice-ufrag` (RFC 8839 §5.4 allows 256 for the latter).
const MAX_TOKEN_BYTES: usize = 256;

/// A rejected offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The offer exceeds the maximum length.
    #[error("the offer has {bytes} bytes; {MAX_OFFER_BYTES} are allowed")]
    TooLong {
        /// Length of the offer.
        bytes: usize,
    },
    /// The offer is not valid SDP.
    #[error("the offer is not valid SDP")]
    Malformed,
    /// The offer has no section, or too many.
    #[error("the offer has {count} media sections; 1 to {MAX_SECTIONS} are allowed")]
    SectionCount {
        /// Number of sections.
        count: usize,
    },
    /// A section has its own transport.
    #[error("the offer must bundle all media on one transport (a=group:BUNDLE)")]
    NoBundle,
    /// RTCP has its own port.
    #[error("the offer must put RTCP on the same port (a=rtcp-mux)")]
    NoRtcpMux,
    /// `ice-ufrag` is missing.
    #[error("the offer has no ICE credentials")]
    NoIceCredentials,
    /// There is no fingerprint, or only fingerprints of other algorithms.
    #[error("the offer has no SHA-256 certificate fingerprint")]
    NoFingerprint,
    /// `a=setup:passive`: the client expects the server to begin the DTLS handshake.
    #[error("the offer must let the client begin the DTLS handshake (a=setup:actpass or active)")]
    PassiveDtls,
}

/// The media type of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// `m=video`.
    Video,
    /// `m=audio`.
    Audio,
    /// Any other type; always rejected.
    Other,
}

/// One media section (`m=`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Identification tag of the section (`a=mid`).
    pub mid: String,
    /// Media type of the section.
    pub kind: SectionKind,
    /// The first token of `m=`, repeated in the answer.
    pub(super) name: String,
    /// Protocol such as `UDP/TLS/RTP/SAVPF`, repeated in the answer.
    pub(super) protocol: String,
    /// The first format, repeated in the answer if the section is rejected.
    pub(super) format: String,
    /// True if the viewer can receive media in this section.
    pub receives: bool,
    pub(super) h264: Vec<H264Format>,
    opus: Option<u8>,
}

/// An H.264 payload type with packetization-mode 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct H264Format {
    pub(super) payload_type: u8,
    /// `profile_idc`, constraint flags, `level_idc`, in six hexadecimal digits.
    pub(super) profile_level_id: String,
    pub(super) nack: bool,
    pub(super) nack_pli: bool,
}

/// A viewer's offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The viewer's ICE user name fragment.
    pub ufrag: String,
    /// Fingerprint of the viewer's certificate.
    pub fingerprint: Fingerprint,
    /// The sections, in the order that the answer must keep.
    pub sections: Vec<Section>,
}

impl Offer {
    /// Parses an offer.
    ///
    /// # Errors
    /// See [`OfferError`].
    pub fn parse(sdp: &str) -> Result<Self, OfferError> {
        if sdp.len() > MAX_OFFER_BYTES {
            return Err(OfferError::TooLong { bytes: sdp.len() });
        }
        let session = SessionDescription::unmarshal(&mut Cursor::new(sdp)).map_err(|_| OfferError::Malformed)?;
        let media = &session.media_descriptions;
        if media.is_empty() || media.len() > MAX_SECTIONS {
            return Err(OfferError::SectionCount { count: media.len() });
        }
        let sections = media.iter().map(parse_section).collect::<Option<Vec<_>>>().ok_or(OfferError::Malformed)?;
        let receives_media = |s: &&Section| s.kind != SectionKind::Other && s.receives;
        if sections.len() > 1 {
            let groups = session.attributes.iter().filter(|a| a.key == "group").filter_map(|a| a.value.as_deref());
            let bundle: Vec<&str> = groups
                .filter_map(|g| g.strip_prefix("BUNDLE"))
                .flat_map(|mids| mids.split_ascii_whitespace())
                .collect();
            if !sections.iter().filter(receives_media).all(|s| bundle.contains(&s.mid.as_str())) {
                return Err(OfferError::NoBundle);
            }
        }
        let muxed = |(s, m): (&Section, &MediaDescription)| !receives_media(&s) || m.has_attribute("rtcp-mux");
        if !sections.iter().zip(media).all(muxed) {
            return Err(OfferError::NoRtcpMux);
        }
        // There is one transport: an attribute of the first section that has it, or else of the
        // session, applies to all sections.
        let attribute = |key: &str| {
            let of_session = session.attribute(key).map(String::as_str);
            media.iter().find_map(|m| m.attribute(key).flatten()).or(of_session)
        };
        let ufrag = attribute("ice-ufrag").filter(|u| !u.is_empty() && u.len() <= MAX_TOKEN_BYTES);
        let ufrag = ufrag.ok_or(OfferError::NoIceCredentials)?.to_owned();
        if attribute("setup").is_some_and(|setup| setup.trim() == "passive") {
            return Err(OfferError::PassiveDtls);
        }
        let in_media = media.iter().flat_map(|m| &m.attributes);
        let fingerprint = in_media
            .chain(&session.attributes)
            .filter(|a| a.key == "fingerprint")
            .find_map(|a| Fingerprint::parse(a.value.as_deref()?))
            .ok_or(OfferError::NoFingerprint)?;
        Ok(Self { ufrag, fingerprint, sections })
    }
}

impl Section {
    /// Returns the payload type for Opus, if it is offered.
    pub fn opus(&self) -> Option<u8> {
        self.opus
    }

    /// Returns the payload type for an H.264 stream with this `profile_idc`: one with that profile,
    /// else one with constrained baseline (decoders accept more profiles than they list), else any
    /// with packetization-mode 1.
    pub fn h264(&self, profile_idc: u8) -> Option<u8> {
        let idc = |entry: &&H264Format| u8::from_str_radix(entry.profile_level_id.get(..2)?, 16).ok();
        let constrained =
            |entry: &&H264Format| entry.profile_level_id.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("42e0"));
        let same = |entry: &&H264Format| idc(entry) == Some(profile_idc);
        let all = || self.h264.iter();
        let found = all()
            .find(|e| same(e) && constrained(e))
            .or_else(|| all().find(same))
            .or_else(|| all().find(constrained))
            .or_else(|| all().next());
        found.map(|entry| entry.payload_type)
    }
}

fn parse_section(m: &MediaDescription) -> Option<Section> {
    let kind = match m.media_name.media.as_str() {
        "video" => SectionKind::Video,
        "audio" => SectionKind::Audio,
        _ => SectionKind::Other,
    };
    let mid = m.attribute("mid").flatten().unwrap_or_default().to_owned();
    let format = m.media_name.formats.first().cloned().unwrap_or_else(|| "0".to_owned());
    let protocol = m.media_name.protos.join("/");
    if mid.len() > MAX_TOKEN_BYTES || format.len() > MAX_TOKEN_BYTES || protocol.len() > MAX_TOKEN_BYTES {
        return None;
    }
    // A port of 0 without `bundle-only` disables a section (RFC 8843 §6).
    let disabled = m.media_name.port.value == 0 && !m.has_attribute("bundle-only");
    let receives = !disabled && !m.has_attribute("sendonly") && !m.has_attribute("inactive") && !mid.is_empty();
    let mut h264 = Vec::new();
    let mut opus = None;
    for format in &m.media_name.formats {
        let Some(payload_type) = format.parse::<u8>().ok().filter(|&pt| pt < 128) else { continue };
        let rtpmap = attribute_values(m, "rtpmap", format).next().unwrap_or_default();
        let mut parts = rtpmap.split('/');
        let (codec, clock) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if codec.eq_ignore_ascii_case("H264") && clock == "90000" {
            let fmtp = attribute_values(m, "fmtp", format).next().unwrap_or_default();
            if fmtp_value(fmtp, "packetization-mode") != Some("1") {
                continue;
            }
            let feedback = |what: &str| {
                attribute_values(m, "rtcp-fb", format).chain(attribute_values(m, "rtcp-fb", "*")).any(|f| f == what)
            };
            // Without the parameter, the profile is Baseline, level 1 (RFC 6184 §8.1).
            let profile_level_id = fmtp_value(fmtp, "profile-level-id").unwrap_or("42000a");
            if profile_level_id.len() == 6 && profile_level_id.bytes().all(|b| b.is_ascii_hexdigit()) {
                let profile_level_id = profile_level_id.to_owned();
                let (nack, nack_pli) = (feedback("nack"), feedback("nack pli"));
                h264.push(H264Format { payload_type, profile_level_id, nack, nack_pli });
            }
        } else if codec.eq_ignore_ascii_case("opus") && clock == "48000" && opus.is_none() {
            opus = Some(payload_type);
        }
    }
    let name = match kind {
        SectionKind::Video => "video".to_owned(),
        SectionKind::Audio => "audio".to_owned(),
        SectionKind::Other => m.media_name.media.clone(),
    };
    Some(Section { mid, kind, name, protocol, format, receives, h264, opus })
}

/// Returns the values of the attributes `a=KEY:FORMAT VALUE`.
fn attribute_values<'a>(m: &'a MediaDescription, key: &'a str, format: &'a str) -> impl Iterator<Item = &'a str> {
    m.attributes
        .iter()
        .filter(move |a| a.key == key)
        .filter_map(|a| a.value.as_deref()?.split_once(' '))
        .filter(move |(of, _)| *of == format)
        .map(|(_, value)| value.trim())
}

/// Returns the value of `key` in a list `KEY=VALUE;KEY=VALUE`.
fn fmtp_value<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').filter_map(|p| p.trim().split_once('=')).find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v)
}

#[cfg(test)]
#[path = "offer_test.rs"]
mod tests;
