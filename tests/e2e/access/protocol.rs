//! The ways to publish and to play, each as one attempt that is admitted or refused.

use std::net::{Ipv4Addr, SocketAddr};

use headwater_api::control::Endpoints;
use headwater_api::documents::Grant;
use headwater_tests::http;
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::tcp::connect_from;

/// An offer to receive H.264 and Opus, in the form of Chromium.
const OFFER: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 102\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlzb\r\n\
    a=fingerprint:sha-256 0F:74:31:25:CB:A2:13:EC:28:6F:6D:2C:61:FF:5D:C2:BC:B9:DB:3D:98:14:8D:1A:BB:EA:33:0C:A4:60:A8:8E\r\n\
    a=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:102 H264/90000\r\n\
    a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";

/// Where a node serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(super) http: SocketAddr,
    pub(super) rtmp: SocketAddr,
    pub(super) health: SocketAddr,
    /// Where a TLS forwarder accepts plain connections and leads to the RTMPS listener.
    pub(super) rtmps: Option<SocketAddr>,
}

impl Addresses {
    /// The addresses of a node, without RTMPS.
    pub(super) fn of(endpoints: &Endpoints) -> Self {
        let Endpoints { http, rtmp, health, .. } = *endpoints;
        Self { http: http.unwrap(), rtmp: rtmp.unwrap(), health, rtmps: None }
    }

    /// The text of all metrics.
    pub(super) fn metrics(&self) -> String {
        http::get(self.health, "/metrics").unwrap().text()
    }

    /// Number of requests for this action that were refused for this reason.
    pub(super) fn refused(&self, action: Grant, code: &str) -> u64 {
        let name = format!("headwater_access_refused_total{{action=\"{}\",reason=\"{code}\"}} ", action.as_str());
        self.metrics().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    RtmpPublish,
    RtmpsPublish,
    RtmpPlay,
    RtmpsPlay,
    Whep,
    /// WHEP with the token in the header field `Authorization`.
    WhepBearer,
    Hls,
    /// The playlist in the folder of the stream, which LL-HLS players load.
    LlHls,
}

impl Protocol {
    pub(super) const ALL: [Self; 8] = [
        Self::RtmpPublish,
        Self::RtmpsPublish,
        Self::RtmpPlay,
        Self::RtmpsPlay,
        Self::Whep,
        Self::WhepBearer,
        Self::Hls,
        Self::LlHls,
    ];

    /// Those of nodes that have no TLS forwarder.
    pub(super) fn without_tls() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|protocol| !matches!(protocol, Self::RtmpsPublish | Self::RtmpsPlay))
    }

    /// Those of viewers.
    pub(super) fn playing() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|protocol| protocol.action() == Grant::Play)
    }

    pub(super) fn action(self) -> Grant {
        if matches!(self, Self::RtmpPublish | Self::RtmpsPublish) { Grant::Publish } else { Grant::Play }
    }

    /// Address of the clients of this protocol: each may guess on its own account.
    fn source(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 9, 1 + self as u8)
    }

    /// Tries to publish or play with this token, if there is one. Returns the text of a refusal.
    pub(super) fn attempt(self, at: &Addresses, app: &str, id: &str, token: Option<&str>) -> Result<(), String> {
        let query = token.map_or_else(String::new, |token| format!("token={token}"));
        if self != Self::WhepBearer {
            return self.attempt_with_query(at, app, id, &query);
        }
        let bearer = token.map(|token| format!("Bearer {token}"));
        let authorization = bearer.as_deref().map(|value| ("authorization", value));
        offer(self.source(), at.http, &format!("/{app}/whep/{id}"), authorization)
    }

    /// Tries to publish or play with this query, which may be empty.
    pub(super) fn attempt_with_query(self, at: &Addresses, app: &str, id: &str, query: &str) -> Result<(), String> {
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let source = self.source();
        let rtmp = |server: SocketAddr| connect_from(source, server).map_err(|e| format!("{e:#}"));
        let name = format!("{id}{query}");
        let refusal = |result: anyhow::Result<RtmpClient>| result.map(drop).map_err(|e| format!("{e:#}"));
        match self {
            Self::RtmpPublish => refusal(RtmpClient::publisher_on(rtmp(at.rtmp)?, app, &name)),
            Self::RtmpsPublish => refusal(RtmpClient::publisher_on(rtmp(at.rtmps.unwrap())?, app, &name)),
            Self::RtmpPlay => refusal(RtmpClient::player_on(rtmp(at.rtmp)?, app, &name)),
            Self::RtmpsPlay => refusal(RtmpClient::player_on(rtmp(at.rtmps.unwrap())?, app, &name)),
            Self::Whep | Self::WhepBearer => offer(source, at.http, &format!("/{app}/whep/{id}{query}"), None),
            Self::Hls => get(source, at.http, &format!("/{app}/streams/{id}.m3u8{query}")),
            Self::LlHls => get(source, at.http, &format!("/{app}/streams/{id}/playlist.m3u8{query}")),
        }
    }

    /// True if the refusal says what it must: the code in HTTP, the status in RTMP.
    fn says(self, refusal: &str, code: &str) -> bool {
        match self {
            Self::RtmpPublish | Self::RtmpsPublish => refusal.contains("NetStream.Publish.Unauthorized"),
            Self::RtmpPlay | Self::RtmpsPlay => refusal.contains("NetStream.Play.Failed"),
            Self::Whep | Self::WhepBearer | Self::Hls | Self::LlHls => {
                let status = match code {
                    "key_missing" | "token_missing" => 401,
                    "too_many_attempts" => 429,
                    "registry_unreachable" | "jwks_unavailable" | "policies_unavailable" => 503,
                    _ => 403,
                };
                refusal.starts_with(&format!("{status} ")) && refusal.contains(&format!("\"error\":\"{code}\""))
            }
        }
    }

    /// Checks that an attempt with this token is refused for this reason, which the client learns
    /// and the node counts. `case` is shown if it is not.
    pub(super) fn check_refused(
        self,
        at: &Addresses,
        (app, id): (&str, &str),
        token: Option<&str>,
        code: &str,
        case: &str,
    ) {
        let before = at.refused(self.action(), code);
        let refusal = self.attempt(at, app, id, token).expect_err(case);
        assert!(self.says(&refusal, code), "{self:?}, {case}: {refusal}");
        // The test's client does not show the sentence of a refusal over RTMP.
        assert_eq!(at.refused(self.action(), code), before + 1, "{self:?}, {case}: {code} was not counted");
    }
}

/// Sends an offer, which must be answered with 201.
fn offer(source: Ipv4Addr, server: SocketAddr, path: &str, authorization: Option<(&str, &str)>) -> Result<(), String> {
    let headers: Vec<_> = [("content-type", "application/sdp")].into_iter().chain(authorization).collect();
    let stream = connect_from(source, server).unwrap();
    expect(&http::request_on(stream, "POST", path, &headers, OFFER.as_bytes()).unwrap(), 201)
}

/// Requests a playlist, which must be answered with 200.
fn get(source: Ipv4Addr, server: SocketAddr, path: &str) -> Result<(), String> {
    expect(&http::request_on(connect_from(source, server).unwrap(), "GET", path, &[], b"").unwrap(), 200)
}

fn expect(response: &http::Response, status: u16) -> Result<(), String> {
    if response.status == status { Ok(()) } else { Err(format!("{} {}", response.status, response.text())) }
}
