//! The keys of one session: the DTLS association, and the RTCP cipher that it negotiates
//! (RFC 5764).
//!
//! ```text
//!   handshake --DTLS, certificate matches--> connected --close--> closed
//! ```
//!
//! DTLS and RTCP datagrams go in; the caller sends the responses. The media cipher is not kept
//! here: its owner stores it where sending finds it at once. Must not know what the session sends
//! or receives.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use headwater_wire::webrtc::Fingerprint;
use rtc_shared::error::Error;

use crate::gateway::webrtc::transport::dtls::{Dtls, DtlsEvent, Identity};
use crate::gateway::webrtc::transport::srtp::{MediaCipher, RtcpCipher, SrtpSession};
use crate::gateway::webrtc::transport::udp::{AddressPair, Socket};

/// The DTLS association and the RTCP cipher of one session.
#[derive(Debug)]
pub(crate) struct DtlsSrtp {
    dtls: Dtls,
    /// The addresses of the newest datagram of the handshake. Responses are sent there.
    peer: Option<AddressPair>,
    /// True if the datagrams of the handshake came from more than one address.
    has_moved: bool,
    /// Set once the handshake is complete.
    rtcp: Option<Box<RtcpCipher>>,
}

impl DtlsSrtp {
    /// Waits for a peer whose certificate has this fingerprint.
    pub(crate) fn new(fingerprint: Fingerprint) -> Self {
        Self { dtls: Dtls::new(fingerprint), peer: None, has_moved: false, rtcp: None }
    }

    /// Returns true once the handshake is complete.
    pub(crate) fn is_connected(&self) -> bool {
        self.rtcp.is_some()
    }

    /// Returns the remote address that received all flights of the handshake, if it was only one. A
    /// completed handshake proves that address, and no other: the last datagram alone may have a
    /// forged source.
    pub(crate) fn handshake_address(&self) -> Option<SocketAddr> {
        self.peer.filter(|_| !self.has_moved).map(|peer| peer.remote)
    }

    /// Processes a DTLS datagram and passes the responses to `send`, except if the certificate does
    /// not match.
    ///
    /// # Errors
    /// Fails for a datagram that violates the protocol. The association remains usable.
    pub(crate) fn on_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
        from: &AddressPair,
        identity: &Identity,
        send: impl FnMut(&AddressPair, &[u8]),
    ) -> Result<DtlsEvent, Error> {
        if self.rtcp.is_none() {
            self.has_moved |= self.peer.is_some_and(|peer| peer.remote != from.remote);
            self.peer = Some(*from);
        }
        let result = self.dtls.on_datagram(now, datagram, identity);
        if !matches!(result, Ok(DtlsEvent::WrongCertificate)) {
            self.send_pending(Some(*from), send);
        }
        result
    }

    /// Stores the RTCP cipher of the completed handshake and returns the media cipher.
    pub(crate) fn connect(&mut self, srtp: SrtpSession) -> MediaCipher {
        let (bytes, fragments) = self.dtls.received();
        log::debug!(bytes, fragments; "DTLS handshake completed");
        self.rtcp = Some(srtp.rtcp_cipher);
        srtp.media_cipher
    }

    /// Retransmits the last flight if its timer has expired. Does nothing once connected.
    ///
    /// # Errors
    /// Fails if the maximum number of retransmissions is exceeded.
    pub(crate) fn on_timeout(&mut self, now: Instant, send: impl FnMut(&AddressPair, &[u8])) -> Result<(), Error> {
        if self.rtcp.is_none() {
            self.dtls.on_timeout(now)?;
            self.send_pending(self.peer, send);
        }
        Ok(())
    }

    /// Decrypts an RTCP packet. Returns `None` before the handshake is complete or if the packet
    /// is not authentic.
    pub(crate) fn decrypt_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.rtcp.as_mut()?.open(packet).ok()
    }

    /// Encrypts and sends an RTCP packet, if the handshake is complete.
    pub(crate) fn send_rtcp(&mut self, packet: &[u8], pair: Option<&AddressPair>, socket: &mut Socket) {
        if let (Some(rtcp), Some(pair)) = (&mut self.rtcp, pair)
            && let Ok(sealed) = rtcp.seal(packet)
        {
            socket.queue_datagram(pair, &sealed);
        }
    }

    /// Sends a DTLS close_notify, before the end of the handshake to the address that takes part in
    /// it.
    pub(crate) fn close(&mut self, now: Instant, pair: Option<AddressPair>, send: impl FnMut(&AddressPair, &[u8])) {
        self.dtls.close(now);
        let pair = if self.rtcp.is_some() { pair } else { self.peer };
        self.send_pending(pair, send);
    }

    /// Passes everything that is queued to `send`; it is lost without a pair.
    fn send_pending(&mut self, pair: Option<AddressPair>, mut send: impl FnMut(&AddressPair, &[u8])) {
        while let Some(datagram) = self.dtls.poll_transmit() {
            if let Some(pair) = &pair {
                send(pair, &datagram);
            }
        }
    }
}
