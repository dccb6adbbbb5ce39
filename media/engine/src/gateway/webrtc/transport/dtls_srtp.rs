//! The keys of one session: the DTLS association, and the RTCP cipher that it negotiates
//! (RFC 5764).
//!
//! ```text
//!   handshake --DTLS, certificate matches--> connected --close--> closed
//! ```
//!
//! DTLS and RTCP datagrams go in; responses are queued at the socket. The media cipher is not kept
//! here: its owner stores it where sending finds it at once. Must not know what the session sends
//! or receives.

use std::time::Instant;

use bytes::BytesMut;
use headwater_wire::webrtc::Fingerprint;
use rtc_shared::error::Error;

use crate::gateway::webrtc::transport::dtls::{Dtls, DtlsEvent, Identity};
use crate::gateway::webrtc::transport::srtp::{MediaCipher, RtcpCipher, SrtpSession};
use crate::gateway::webrtc::transport::udp::{AddressPair, Socket};

/// The DTLS association and the RTCP cipher of one session. Datagrams are sent to the `pair` that a
/// call is given; without one they are lost.
#[derive(Debug)]
pub(crate) struct DtlsSrtp {
    dtls: Dtls,
    /// Set once the handshake is complete.
    rtcp: Option<Box<RtcpCipher>>,
}

impl DtlsSrtp {
    /// Waits for a peer whose certificate has this fingerprint.
    pub(crate) fn new(fingerprint: Fingerprint) -> Self {
        Self { dtls: Dtls::new(fingerprint), rtcp: None }
    }

    /// Returns true once the handshake is complete.
    pub(crate) fn is_connected(&self) -> bool {
        self.rtcp.is_some()
    }

    /// Processes a DTLS datagram and sends the responses, except if the certificate does not match.
    ///
    /// # Errors
    /// Fails for a datagram that violates the protocol. The association remains usable.
    pub(crate) fn on_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
        identity: &Identity,
        pair: Option<&AddressPair>,
        socket: &mut Socket,
    ) -> Result<DtlsEvent, Error> {
        let result = self.dtls.on_datagram(now, datagram, identity);
        if !matches!(result, Ok(DtlsEvent::WrongCertificate)) {
            self.send_pending(pair, socket);
        }
        result
    }

    /// Stores the RTCP cipher of the completed handshake and returns the media cipher.
    pub(crate) fn connect(&mut self, srtp: SrtpSession) -> MediaCipher {
        self.rtcp = Some(srtp.rtcp_cipher);
        srtp.media_cipher
    }

    /// Retransmits the last flight if its timer has expired. Does nothing once connected.
    ///
    /// # Errors
    /// Fails if the maximum number of retransmissions is exceeded.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        pair: Option<&AddressPair>,
        socket: &mut Socket,
    ) -> Result<(), Error> {
        if self.rtcp.is_none() {
            self.dtls.on_timeout(now)?;
            self.send_pending(pair, socket);
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

    /// Sends a DTLS close_notify.
    pub(crate) fn close(&mut self, now: Instant, pair: Option<&AddressPair>, socket: &mut Socket) {
        self.dtls.close(now);
        self.send_pending(pair, socket);
    }

    fn send_pending(&mut self, pair: Option<&AddressPair>, socket: &mut Socket) {
        while let Some(datagram) = self.dtls.poll_transmit() {
            if let Some(pair) = pair {
                socket.queue_datagram(pair, &datagram);
            }
        }
    }
}
