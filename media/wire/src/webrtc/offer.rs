//! Parses the SDP offer of a viewer (RFC 8866, RFC 8829, RFC 8843, draft-ietf-wish-whep-02 §4).
//!
//! `rtc-sdp` parses the syntax. This file checks the requirements of a WHEP offer: one transport
//! for all sections (BUNDLE), RTCP on the same port, ICE credentials, a SHA-256 fingerprint, and a
//! client that begins the DTLS handshake.

use std::collections::HashSet;
use std::io::Cursor;

use rtc_sdp::{MediaDescription, SessionDescription};

use super::payload_types::{H264Format, MAX_FORMATS, PayloadTypes};
use super::{Credentials, Fingerprint};

/// Maximum length of an offer; browsers send 5 to 10 KB.
pub const MAX_OFFER_BYTES: usize = 64 << 10;
/// Maximum number of sections.
const MAX_SECTIONS: usize = 32;
/// Maximum number of attributes (`a=`) of one section, and of the session. Browsers send 100 to 200
/// in a section with all their codecs.
const MAX_ATTRIBUTES: usize = 1_024;
/// Maximum length of a `mid`, `ice-ufrag` or `ice-pwd` (RFC 8839 §5.4 allows 256 for the latter
/// two).
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
    /// A section lists too many formats.
    #[error("a media section of the offer lists {count} payload types; {MAX_FORMATS} are allowed")]
    FormatCount {
        /// Number of formats.
        count: usize,
    },
    /// A section, or the session, has too many attributes.
    #[error("a media section of the offer has more than {MAX_ATTRIBUTES} attributes")]
    AttributeCount,
    /// A section has its own transport.
    #[error("the offer must bundle all media on one transport (a=group:BUNDLE)")]
    NoBundle,
    /// RTCP has its own port.
    #[error("the offer must put RTCP on the same port (a=rtcp-mux)")]
    NoRtcpMux,
    /// `ice-ufrag` or `ice-pwd` is missing.
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
    /// The first format, repeated in the answer if nothing is sent in the section.
    pub(super) format: String,
    /// Values of `a=rtpmap` and `a=fmtp` of the first format, for the same purpose.
    pub(super) format_attributes: Vec<(&'static str, String)>,
    /// True if the viewer can receive media in this section.
    pub receives: bool,
    /// True if the section shares the one transport. It then stays in the answer's BUNDLE group
    /// even if nothing is sent in it.
    pub(super) bundled: bool,
    pub(super) h264: Vec<H264Format>,
    opus: Option<u8>,
}

/// A viewer's offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The viewer's ICE credentials: they authenticate the node's checks of the viewer's addresses.
    pub credentials: Credentials,
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
        check_counts(sdp)?;
        let session = SessionDescription::unmarshal(&mut Cursor::new(sdp)).map_err(|_| OfferError::Malformed)?;
        let media = &session.media_descriptions;
        if media.is_empty() || media.len() > MAX_SECTIONS {
            return Err(OfferError::SectionCount { count: media.len() });
        }
        let mut sections = media.iter().map(parse_section).collect::<Option<Vec<_>>>().ok_or(OfferError::Malformed)?;
        let groups = session.attributes.iter().filter(|a| a.key == "group").filter_map(|a| a.value.as_deref());
        let bundle: HashSet<&str> =
            groups.filter_map(|g| g.strip_prefix("BUNDLE")).flat_map(|mids| mids.split_ascii_whitespace()).collect();
        let is_only = sections.len() == 1;
        for (section, description) in sections.iter_mut().zip(media) {
            let in_bundle = is_only || bundle.contains(section.mid.as_str());
            let muxed = description.has_attribute("rtcp-mux");
            if section.kind != SectionKind::Other && section.receives {
                if !in_bundle {
                    return Err(OfferError::NoBundle);
                }
                if !muxed {
                    return Err(OfferError::NoRtcpMux);
                }
            }
            let disabled = is_disabled(description) || section.mid.is_empty();
            section.bundled = section.kind != SectionKind::Other && in_bundle && muxed && !disabled;
        }
        // There is one transport: an attribute of the first section that has it, or else of the
        // session, applies to all sections.
        let attribute = |key: &str| {
            let of_session = session.attribute(key).map(String::as_str);
            media.iter().find_map(|m| m.attribute(key).flatten()).or(of_session)
        };
        let token = |key| {
            let value = attribute(key).filter(|v| !v.is_empty() && v.len() <= MAX_TOKEN_BYTES);
            value.map(str::to_owned).ok_or(OfferError::NoIceCredentials)
        };
        let credentials = Credentials { ufrag: token("ice-ufrag")?, password: token("ice-pwd")? };
        if attribute("setup").is_some_and(|setup| setup.trim() == "passive") {
            return Err(OfferError::PassiveDtls);
        }
        let in_media = media.iter().flat_map(|m| &m.attributes);
        let fingerprint = in_media
            .chain(&session.attributes)
            .filter(|a| a.key == "fingerprint")
            .find_map(|a| Fingerprint::parse(a.value.as_deref()?))
            .ok_or(OfferError::NoFingerprint)?;
        Ok(Self { credentials, fingerprint, sections })
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

/// Checks the numbers of formats and attributes, before the offer is parsed: the cost of parsing
/// and of every search in a section is bounded by them.
fn check_counts(sdp: &str) -> Result<(), OfferError> {
    let mut attributes = 0;
    for line in sdp.lines().map(|line| line.trim_start_matches('\r')) {
        if let Some(media) = line.strip_prefix("m=") {
            attributes = 0;
            // After the media type, the port and the protocol.
            let count = media.split_ascii_whitespace().skip(3).count();
            if count > MAX_FORMATS {
                return Err(OfferError::FormatCount { count });
            }
        } else if line.starts_with("a=") {
            attributes += 1;
            if attributes > MAX_ATTRIBUTES {
                return Err(OfferError::AttributeCount);
            }
        }
    }
    Ok(())
}

/// A port of 0 without `bundle-only` disables a section (RFC 8843 §6).
fn is_disabled(m: &MediaDescription) -> bool {
    m.media_name.port.value == 0 && !m.has_attribute("bundle-only")
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
    let receives = !is_disabled(m) && !m.has_attribute("sendonly") && !m.has_attribute("inactive") && !mid.is_empty();
    let payload_types = PayloadTypes::index(m);
    let repeatable = |value: &&str| value.len() <= MAX_TOKEN_BYTES && !value.contains(char::is_control);
    let first = payload_types.get(&format);
    let format_attributes = [("rtpmap", first.rtpmap), ("fmtp", first.fmtp)]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.filter(repeatable)?.to_owned())))
        .collect();
    let name = match kind {
        SectionKind::Video => "video".to_owned(),
        SectionKind::Audio => "audio".to_owned(),
        SectionKind::Other => m.media_name.media.clone(),
    };
    let (h264, opus) = (payload_types.h264(), payload_types.opus());
    Some(Section { mid, kind, name, protocol, format, format_attributes, receives, bundled: false, h264, opus })
}

#[cfg(test)]
#[path = "offer_test.rs"]
mod tests;
