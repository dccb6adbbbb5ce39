//! The root of the configuration, and how it is parsed.

use serde::{Deserialize, Serialize};

use super::{Health, Hls, Http, Limits, Metadata, Mongod, Node, Registry, Relay, Rtmp, Tls, Webrtc};

/// The configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Identity and folders of this node.
    pub node: Node,
    /// Web server: pages, REST, WHEP, HLS.
    pub http: Http,
    /// Certificate for the TLS listeners.
    pub tls: Tls,
    /// Listeners of the RTMP server, and how it writes to players.
    pub rtmp: Rtmp,
    /// UDP ports and workers for WebRTC media.
    pub webrtc: Webrtc,
    /// Links between nodes.
    pub relay: Relay,
    /// Health and metrics.
    pub health: Health,
    /// HLS and LL-HLS.
    pub hls: Hls,
    /// Where documents are stored.
    pub registry: Registry,
    /// The database that a registry node runs.
    pub mongod: Mongod,
    /// EC2 instance metadata.
    pub metadata: Metadata,
    /// Load above which the node accepts no new work.
    pub limits: Limits,
}

impl Config {
    /// Parses a configuration from TOML text.
    ///
    /// # Errors
    /// The first line that is invalid, with the reason.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        toml::from_str(text).map_err(|e| ParseError::new(text, &e))
    }
}

/// The first invalid line of a configuration, in one sentence: an unknown key or an illegal value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, `{text}`: {problem}")]
pub struct ParseError {
    /// Line number, counted from 1.
    pub line: usize,
    /// The line without its indentation.
    pub text: String,
    /// The reason, in the parser's words.
    pub problem: String,
}

impl ParseError {
    fn new(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count();
        Self {
            line: before + 1,
            text: text.lines().nth(before).unwrap_or_default().trim().to_owned(),
            problem: error.message().trim_end().replace('\n', "; "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    fn check(text: &str, expected: &str) {
        let sentence = Config::parse(text).unwrap_err().to_string();
        assert!(sentence.starts_with(expected), "{text:?}: {sentence}");
        assert!(!sentence.contains('\n'), "{sentence:?}");
    }

    #[test]
    fn error_names_the_invalid_line_and_its_key() {
        check(
            "[hls]\n  part_secs = 6\n",
            "line 2, `part_secs = 6`: unknown field `part_secs`, expected one of `part_ms`",
        );
        check("[hls]\npart_ms = 0", "line 2, `part_ms = 0`: invalid value: integer `0`, expected a nonzero u32");
        check("[http]\nlisten = \"here\"", "line 2, `listen = \"here\"`: \"here\" is neither an address with a port");
        check("[relay]\nlisten = \"off\"", "line 2, `listen = \"off\"`: invalid socket address syntax");
        check("[node]\nrole = \"king\"", "line 2, `role = \"king\"`: unknown variant `king`");
        check("\n[hsl]\n", "line 2, `[hsl]`: unknown field `hsl`");
        check("[node\n", "line 1, `[node`: ");
        check("[webrtc]\nport = 70000", "line 2, `port = 70000`: invalid value");
    }

    /// There is no SRT server: a section that has no effect must not be accepted.
    #[test]
    fn srt_section_is_an_unknown_key() {
        check("[srt]\nlisten = \"[::]:4200\"\n", "line 1, `[srt]`: unknown field `srt`, expected one of `node`");
        check("[srt]\n", "line 1, `[srt]`: unknown field `srt`");
    }

    #[test]
    fn http_and_rtmp_can_be_off() {
        let config =
            Config::parse("[http]\nlisten = \"off\"\n[rtmp]\nlisten = \"off\"\ntls_listen = \"off\"\n").unwrap();
        assert_eq!([config.http.listen, config.rtmp.listen, config.rtmp.tls_listen], [Listen::Off; 3]);
        assert_eq!(config.http.tls_listen, Config::default().http.tls_listen);
    }

    #[test]
    fn empty_table_gives_the_defaults() {
        assert_eq!(Config::parse("[hls]\n[node]\n").unwrap(), Config::default());
    }
}
