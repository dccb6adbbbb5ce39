//! The viewer's offer, and the few values it reads from the answer (RFC 8866, RFC 8829).

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};

/// ICE user name fragment and password (RFC 8839 §5.4).
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
}

/// ICE parameters of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) credentials: Credentials,
    pub(crate) address: SocketAddrV4,
}

/// Payload types offered for H.264: constrained baseline and high, in the order of browsers.
pub(crate) const VIDEO_PAYLOADS: [u8; 2] = [102, 104];

/// An offer to receive H.264 and Opus.
pub(crate) fn offer(credentials: &Credentials, fingerprint: &str) -> String {
    let transport = format!(
        "c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n",
        credentials.ufrag, credentials.pwd
    );
    let video = |payload: u8, rtx: u8, profile: &str| {
        format!(
            "a=rtpmap:{payload} H264/90000\r\na=rtcp-fb:{payload} nack\r\na=rtcp-fb:{payload} nack pli\r\n\
             a=fmtp:{payload} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}\r\n\
             a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={payload}\r\n"
        )
    };
    let [baseline, high] = VIDEO_PAYLOADS;
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         a=msid-semantic: WMS\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF {baseline} 103 {high} 105\r\n{transport}a=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n\
         a=rtcp-rsize\r\n{}{}\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{transport}a=mid:1\r\na=recvonly\r\na=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n",
        video(baseline, 103, "42e01f"),
        video(high, 105, "64001f"),
    )
}

impl Answer {
    /// Reads the first credentials and the preferred candidate: a loopback address, else
    /// the first IPv4 address.
    ///
    /// # Errors
    /// If a value is missing.
    pub(crate) fn parse(sdp: &str) -> Result<Self> {
        let value = |name: &str| sdp.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
        let candidates: Vec<SocketAddrV4> = sdp
            .lines()
            .filter_map(|l| l.strip_prefix("a=candidate:"))
            .filter_map(|l| {
                let fields: Vec<_> = l.split_whitespace().collect();
                let udp = fields.get(2)?.eq_ignore_ascii_case("udp");
                let address: Ipv4Addr = fields.get(4)?.parse().ok()?;
                udp.then_some(SocketAddrV4::new(address, fields.get(5)?.parse().ok()?))
            })
            .collect();
        let loopback = candidates.iter().find(|a| *a.ip() == Ipv4Addr::LOCALHOST);
        let address = loopback.or(candidates.first());
        Ok(Self {
            credentials: Credentials {
                ufrag: value("a=ice-ufrag:").context("the answer has no ice-ufrag")?,
                pwd: value("a=ice-pwd:").context("the answer has no ice-pwd")?,
            },
            address: *address.context("the answer has no IPv4 candidate")?,
        })
    }
}
