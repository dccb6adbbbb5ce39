//! The setting of one listener: an address, or "off".

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a listener listens, if at all: `"[::]:5080"` or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Listen {
    /// It is not opened.
    Off,
    /// At this address; port 0: any free port.
    At(SocketAddr),
}

/// The text is no setting of a listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address with a port, such as \"[::]:5080\", nor \"off\"")]
pub struct InvalidListen(String);

impl Listen {
    /// The address; `None` if the listener is off.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }

    /// Changes the port. A listener that is off stays off.
    pub fn set_port(&mut self, port: u16) {
        if let Self::At(address) = self {
            address.set_port(port);
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::At(address)
    }
}

impl From<Option<SocketAddr>> for Listen {
    fn from(address: Option<SocketAddr>) -> Self {
        address.map_or(Self::Off, Self::At)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(OFF),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        if text == OFF {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| InvalidListen(text.chars().take(MAX_QUOTED_CHARS).collect()))
    }
}

impl TryFrom<String> for Listen {
    type Error = InvalidListen;

    fn try_from(text: String) -> Result<Self, InvalidListen> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

const OFF: &str = "off";
/// Of an invalid text, an error quotes this many characters.
const MAX_QUOTED_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_is_an_address_or_off() {
        for text in ["[::]:5080", "127.0.0.1:0", "off"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["", "Off", "false", "5080", "[::]", "localhost:5080", "off:5080"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn port_of_a_listener_that_is_off_cannot_be_set() {
        let mut listen = Listen::Off;
        listen.set_port(1);
        assert_eq!(listen, Listen::Off);
    }
}
