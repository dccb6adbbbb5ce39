//! One WHEP viewer: joins, counts packets, detects gaps, sends a report once a second, and
//! optionally reads marks.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::MissedTickBehavior;

use super::dtls::{Identity, Srtp};
use super::sdp::{self, Answer, Credentials, VIDEO_PAYLOADS};
use super::stun;
use crate::http::Client;
use crate::mark::Mark;
use crate::tally::Tally;
use crate::udp::Socket;

/// Configuration of one viewer.
#[derive(Clone)]
pub(crate) struct Viewer {
    pub(crate) server: SocketAddr,
    /// Path of the WHEP endpoint.
    pub(crate) path: String,
    /// True if the viewer decrypts every packet and reads marks.
    pub(crate) reads_marks: bool,
    pub(crate) identity: Arc<Identity>,
    pub(crate) tally: Arc<Tally>,
}

impl Viewer {
    /// Joins the stream. Use [`Joined::watch`] or [`Joined::leave`] on the result.
    ///
    /// # Errors
    /// If the server refused, or a step of the handshake timed out.
    pub(crate) async fn join(self) -> Result<Joined> {
        let socket = Socket::bind()?;
        let local = Credentials { ufrag: random_text(8), pwd: random_text(24) };
        let started = Instant::now();
        let mut client = Client::new(self.server);
        let response = client.post_sdp(&self.path, &sdp::offer(&local, &self.identity.fingerprint)).await?;
        let resource = response.header("location").unwrap_or_default().to_owned();
        ensure!(
            response.status == 201,
            "WHEP refused: {} {}",
            response.status,
            String::from_utf8_lossy(&response.body)
        );
        let remote = Answer::parse(response.text()?)?;
        socket.connect(remote.address.into()).await?;
        check(&socket, &local, &remote.credentials).await.context("ICE")?;
        let mut early = Vec::new();
        let srtp = self.identity.handshake(&socket, |packet| early.push(packet.to_vec())).await.context("DTLS")?;
        let mut counter = PacketCounter {
            tally: Arc::clone(&self.tally),
            reads_marks: self.reads_marks,
            srtp,
            tracks: Vec::new(),
            mark: None,
            undecryptable: 0,
        };
        early.iter().for_each(|packet| counter.on_packet(packet));
        while counter.tracks.is_empty() {
            let received =
                tokio::time::timeout(FIRST_PACKET_TIMEOUT, socket.receive(|packet| counter.on_packet(packet)));
            received.await.context("no media packet after the handshake")??;
        }
        self.tally.record_join_us(started.elapsed().as_micros() as u32);
        let Answer { credentials: remote, address: media } = remote;
        Ok(Joined { socket, local, remote, media, resource, client, counter })
    }
}

/// A viewer that is receiving media.
pub(crate) struct Joined {
    socket: Socket,
    local: Credentials,
    remote: Credentials,
    /// The server's media address.
    media: SocketAddrV4,
    resource: String,
    client: Client,
    counter: PacketCounter,
}

impl Joined {
    /// Receives until aborted.
    ///
    /// # Errors
    /// If the session fails, or a packet cannot be decrypted.
    pub(crate) async fn watch(mut self) -> Result<()> {
        let mut clock = tokio::time::interval(REPORT_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_check = Instant::now();
        loop {
            let mut responses = Vec::new();
            let on_packet = |packet: &[u8]| {
                self.counter.on_packet(packet);
                // Media pauses 6 s after the last response to a check of the server (RFC 7675).
                responses.extend(stun::response(packet, &self.local, self.media));
            };
            tokio::select! {
                received = self.socket.receive(on_packet) => received?,
                _ = clock.tick() => {
                    let undecryptable = self.counter.undecryptable;
                    ensure!(undecryptable == 0, "{undecryptable} packets could not be decrypted");
                    if let Some(report) = self.counter.report()? {
                        self.socket.send(&report).await?;
                    }
                    // As a browser does (RFC 7675 §5.1).
                    if last_check.elapsed() >= CONSENT_CHECK_INTERVAL {
                        last_check = Instant::now();
                        self.socket.send(&stun::request(&self.local, &self.remote, rand::random())).await?;
                    }
                }
            }
            for response in responses {
                self.socket.send(&response).await?;
            }
        }
    }

    /// Ends the session with a WHEP DELETE.
    ///
    /// # Errors
    /// If the server did not respond.
    pub(crate) async fn leave(mut self) -> Result<()> {
        let path = self.resource.splitn(4, '/').nth(3).filter(|_| self.resource.contains("://"));
        let path = path.map_or_else(|| self.resource.clone(), |p| format!("/{p}"));
        self.client.delete(&path).await?;
        Ok(())
    }
}

/// Sends binding requests until one is answered (RFC 8445 §7.2).
async fn check(socket: &Socket, local: &Credentials, remote: &Credentials) -> Result<()> {
    for _ in 0..MAX_CHECKS {
        let transaction = rand::random();
        socket.send(&stun::request(local, remote, transaction)).await?;
        let mut ok = false;
        let answered = tokio::time::timeout(CHECK_TIMEOUT, async {
            while !ok {
                socket.receive(|packet| ok |= stun::is_success(packet, transaction)).await?;
            }
            anyhow::Ok(())
        });
        match answered.await {
            Ok(result) => return result,
            Err(_) => continue,
        }
    }
    bail!("no response to {MAX_CHECKS} connectivity checks")
}

/// Counts the packets of one session.
struct PacketCounter {
    tally: Arc<Tally>,
    reads_marks: bool,
    srtp: Srtp,
    tracks: Vec<Track>,
    /// The mark of the frame whose packets are being received.
    mark: Option<Mark>,
    undecryptable: u64,
}

struct Track {
    ssrc: u32,
    video: bool,
    /// Extended highest sequence number (RFC 3550 §6.4.1).
    highest: u32,
}

impl PacketCounter {
    fn on_packet(&mut self, packet: &[u8]) {
        // RFC 5761 §4: the second byte separates RTCP packet types from RTP payload types.
        if packet.len() < 12 || packet[0] >> 6 != 2 || (192..=223).contains(&packet[1]) {
            return;
        }
        self.tally.add_bytes(packet.len());
        self.tally.add_packets(1);
        let (marker, payload_type) = (packet[1] >> 7 == 1, packet[1] & 0x7f);
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
        let video = VIDEO_PAYLOADS.contains(&payload_type);
        match self.tracks.iter_mut().find(|t| t.ssrc == ssrc) {
            None => self.tracks.push(Track { ssrc, video, highest: u32::from(sequence) }),
            Some(track) => {
                let step = sequence.wrapping_sub(track.highest as u16);
                if step < 0x8000 {
                    track.highest += u32::from(step);
                    self.tally.add_lost(u64::from(step.saturating_sub(1)));
                }
            }
        }
        if self.reads_marks {
            match self.srtp.incoming.decrypt_rtp(packet) {
                Ok(plain) if video => {
                    self.mark =
                        Mark::find(&plain[..plain.len().min(MAX_MARK_OFFSET_BYTES)]).map(|(m, _)| m).or(self.mark);
                }
                Ok(_) => {}
                Err(_) => self.undecryptable += 1,
            }
        }
        if video && marker {
            self.tally.add_frame();
            if let Some(mark) = self.mark.take() {
                self.tally.record_latency_us(mark.age_us());
            }
        }
    }

    /// An encrypted receiver report for the video track (RFC 3550 §6.4.2).
    fn report(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(track) = self.tracks.iter().find(|t| t.video) else { return Ok(None) };
        let mut report = vec![0x81, 201, 0, 7];
        report.extend_from_slice(&VIEWER_SSRC.to_be_bytes());
        report.extend_from_slice(&track.ssrc.to_be_bytes());
        report.extend_from_slice(&[0; 4]);
        report.extend_from_slice(&track.highest.to_be_bytes());
        report.extend_from_slice(&[0; 12]);
        Ok(Some(self.srtp.outgoing.encrypt_rtcp(&report)?.to_vec()))
    }
}

fn random_text(length: usize) -> String {
    (0..length)
        .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[usize::from(rand::random::<u8>() & 31)]))
        .collect()
}

const VIEWER_SSRC: u32 = 0x4c4f_4144;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const CONSENT_CHECK_INTERVAL: Duration = Duration::from_secs(5);
const MAX_CHECKS: u32 = 20;
const CHECK_TIMEOUT: Duration = Duration::from_millis(250);
const FIRST_PACKET_TIMEOUT: Duration = Duration::from_secs(10);
/// A mark starts within this many bytes: after the RTP header, an SPS and a PPS.
const MAX_MARK_OFFSET_BYTES: usize = 300;
