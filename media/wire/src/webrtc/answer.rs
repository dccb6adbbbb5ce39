//! Writes the SDP answer to a viewer's offer (RFC 8829 §5.3, RFC 8839, draft-ietf-wish-whep-02
//! §4.2).

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::offer::Section;
use super::{Credentials, Fingerprint, Offer, SectionKind};

/// The RTP parameters of one section that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendParameters {
    /// A payload type that the offer lists for the codec.
    pub payload_type: u8,
    /// The synchronization source.
    pub ssrc: u32,
}

/// The session-wide values of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Session id for the `o=` line.
    pub session_id: u64,
    /// The server's ICE credentials.
    pub credentials: &'a Credentials,
    /// Fingerprint of the server's certificate.
    pub fingerprint: Fingerprint,
    /// The server's addresses, most preferred first.
    pub candidates: &'a [SocketAddr],
    /// The canonical name of both tracks (RFC 3550 §6.5.1).
    pub cname: &'a str,
}

impl Answer<'_> {
    /// Returns the answer. `sending` has one entry per section of the offer. With `None`, or
    /// without an entry, nothing is sent in the section: it stays on the common transport as
    /// inactive if the offer allows that, and is rejected otherwise. A client whose first section
    /// is rejected cannot set up that transport (RFC 8843 §7.3).
    pub fn encode(&self, offer: &Offer, sending: &[Option<SendParameters>]) -> String {
        let mut out = String::with_capacity(2_048);
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, offer, sending);
        out
    }

    fn write(&self, out: &mut String, offer: &Offer, sending: &[Option<SendParameters>]) -> std::fmt::Result {
        write!(out, "v=0\r\no=headwater {} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE", self.session_id)?;
        let sections = || offer.sections.iter().zip(sending.iter().copied().chain(std::iter::repeat(None)));
        for (section, _) in sections().filter(|(section, sending)| sending.is_some() || section.bundled) {
            write!(out, " {}", section.mid)?;
        }
        out.push_str("\r\na=ice-lite\r\na=msid-semantic:WMS *\r\n");
        for (section, sending) in sections() {
            match sending {
                Some(sending) => self.write_accepted(out, section, sending)?,
                None if section.bundled => self.write_inactive(out, section)?,
                None => {
                    write_rejected(out, section)?;
                    continue;
                }
            }
            // The first section would be enough (RFC 8843 §10), but aiortc reads the candidates of
            // the last one if its offer has `max-bundle`.
            self.write_candidates(out)?;
        }
        Ok(())
    }

    /// Writes the lines that every section on the common transport has.
    fn write_transport(
        &self,
        out: &mut String,
        section: &Section,
        format: impl std::fmt::Display,
        direction: &str,
    ) -> std::fmt::Result {
        let Section { name, protocol, mid, .. } = section;
        write!(
            out,
            "m={name} 9 {protocol} {format}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\n\
             a=rtcp-rsize\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{}\r\na=setup:passive\r\n",
            self.credentials.ufrag, self.credentials.password, self.fingerprint
        )
    }

    fn write_inactive(&self, out: &mut String, section: &Section) -> std::fmt::Result {
        let format = &section.format;
        self.write_transport(out, section, format, "inactive")?;
        section.format_attributes.iter().try_for_each(|(key, value)| write!(out, "a={key}:{format} {value}\r\n"))
    }

    fn write_accepted(&self, out: &mut String, section: &Section, sending: SendParameters) -> std::fmt::Result {
        let SendParameters { payload_type, ssrc } = sending;
        self.write_transport(out, section, payload_type, "sendonly")?;
        match section.kind {
            SectionKind::Video => {
                write!(out, "a=rtpmap:{payload_type} H264/90000\r\n")?;
                if let Some(entry) = section.h264.iter().find(|e| e.payload_type == payload_type) {
                    write!(
                        out,
                        "a=fmtp:{payload_type} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={}\r\n",
                        entry.profile_level_id
                    )?;
                    if entry.nack {
                        write!(out, "a=rtcp-fb:{payload_type} nack\r\n")?;
                    }
                    if entry.nack_pli {
                        write!(out, "a=rtcp-fb:{payload_type} nack pli\r\n")?;
                    }
                }
            }
            SectionKind::Audio => {
                write!(
                    out,
                    "a=rtpmap:{payload_type} opus/48000/2\r\na=fmtp:{payload_type} minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1\r\n"
                )?;
            }
            SectionKind::Other => {}
        }
        let name = &section.name;
        write!(
            out,
            "a=msid:headwater {name}\r\na=ssrc:{ssrc} cname:{}\r\na=ssrc:{ssrc} msid:headwater {name}\r\n",
            self.cname
        )
    }

    fn write_candidates(&self, out: &mut String) -> std::fmt::Result {
        for (i, candidate) in self.candidates.iter().enumerate() {
            // The type preference of a host candidate is 126 (RFC 8445 §5.1.2.2). Earlier
            // candidates have a higher local preference.
            let priority = (126_u32 << 24) | ((65_535_u32.saturating_sub(i as u32)) << 8) | 255;
            let (ip, port) = (candidate.ip(), candidate.port());
            write!(out, "a=candidate:{} 1 udp {priority} {ip} {port} typ host\r\n", i + 1)?;
        }
        out.push_str("a=end-of-candidates\r\n");
        Ok(())
    }
}

fn write_rejected(out: &mut String, section: &Section) -> std::fmt::Result {
    let Section { name, protocol, format, mid, .. } = section;
    write!(out, "m={name} 0 {protocol} {format}\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n")?;
    if !mid.is_empty() {
        write!(out, "a=mid:{mid}\r\n")?;
    }
    Ok(())
}
