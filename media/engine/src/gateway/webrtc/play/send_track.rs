//! The RTP send state of one track for one viewer: its position in the packet ring, and the mapping
//! from ring packet numbers to the viewer's sequence numbers.
//!
//! The sequence numbers of each viewer start at a random value below 2^14, so that its rollover
//! counter starts at 0 (RFC 3711 §3.3.1) however long the stream has run. A viewer that joins
//! receives the last GOP at once. The timestamps of these catch-up frames are 1 ms apart and end at
//! the newest frame; a player that spread the GOP over its real duration would keep that latency.

use headwater_wire::rtp::{Header, PacketisedFrame, Place, Ring};
use smallvec::SmallVec;

use crate::gateway::webrtc::play::packetizer::Feed;
use crate::gateway::webrtc::transport::srtp::Media;
use crate::gateway::webrtc::transport::udp::{Path, Socket};

/// Timestamp ticks between the catch-up frames of a joining viewer: 1 ms at 90 kHz.
const SQUEEZED_TICKS: u32 = 90;

/// The send state of one track for one viewer.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) feed: u64,
    pub(crate) ssrc: u32,
    /// True if the viewer receives both audio and video.
    pub(crate) rides: bool,
    payload_type: u8,
    timestamp_offset: u32,
    next: Place,
    /// Skips frames until one at which a decoder can start.
    wait_key: bool,
    /// Ring number and extended sequence number of the first packet since the last skip. Both
    /// increase by one per packet.
    base: Option<(u64, u64)>,
    /// Extended (not wrapped) sequence number of the next packet.
    next_out: u64,
    /// Number and timestamp of the newest frame when the viewer joined. Frames before it
    /// are catch-up frames.
    squeeze: Option<(u64, u32)>,
    /// Modulo 2^32 (RFC 3550 §6.4.1).
    pub(crate) packets: u32,
    /// Modulo 2^32 (RFC 3550 §6.4.1).
    pub(crate) payload_bytes: u32,
}

/// Everything that sending a packet to one viewer reads, contiguous in memory.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    pub(crate) tracks: SmallVec<[Track; 2]>,
    pub(crate) path: Option<Path>,
    /// Set once the viewer is connected.
    pub(crate) media: Option<Media>,
}

/// Encrypts the packets of one viewer and queues them at the socket.
pub(crate) struct Way<'a> {
    socket: &'a mut Socket,
    media: &'a mut Media,
    path: &'a Path,
}

impl Outlet {
    /// Returns the tracks and the sink for their packets, or `None` if the viewer is not connected.
    pub(crate) fn split<'a>(&'a mut self, socket: &'a mut Socket) -> Option<(&'a mut [Track], Way<'a>)> {
        let (media, path) = (self.media.as_mut()?, self.path.as_ref()?);
        Some((&mut self.tracks, Way { socket, media, path }))
    }
}

impl Track {
    /// Starts at the last key frame in the ring or, if there is none, at the next one.
    pub(crate) fn new(feed: &Feed, ring: &Ring, payload_type: u8, start: u16, rides: bool) -> Self {
        let newest = ring.end().saturating_sub(1);
        Self {
            feed: feed.id,
            ssrc: feed.ssrc,
            rides,
            payload_type,
            timestamp_offset: feed.timestamp_offset,
            next: Place { frame: ring.start(), packet: 0 },
            wait_key: true,
            base: None,
            next_out: u64::from(start & 0x3fff),
            squeeze: ring.frame(newest).map(|frame| (newest, frame.timestamp)),
            packets: 0,
            payload_bytes: 0,
        }
    }

    /// Sends new packets and subtracts their number from `budget`. Returns true if the budget was
    /// exhausted before the end of the ring.
    pub(crate) fn send_new(&mut self, ring: &Ring, way: &mut Way<'_>, budget: &mut u32) -> bool {
        if self.next.frame < ring.front() {
            // The viewer has fallen behind the ring: resume at a key frame. Sequence numbers
            // continue without a gap, or the viewer would request the skipped packets.
            self.next = Place { frame: ring.start(), packet: 0 };
            self.wait_key = true;
            self.base = None;
        }
        while let Some(frame) = ring.frame(self.next.frame) {
            if self.wait_key && !frame.key {
                self.next.frame += 1;
                continue;
            }
            self.wait_key = false;
            while self.next.packet < frame.len() {
                if *budget == 0 {
                    return true;
                }
                *budget -= 1;
                self.base.get_or_insert((frame.first + u64::from(self.next.packet), self.next_out));
                self.send(frame, self.next, self.next_out, way);
                self.next.packet += 1;
                self.next_out += 1;
            }
            self.next = Place { frame: self.next.frame + 1, packet: 0 };
        }
        false
    }

    /// Retransmits a packet. Returns false if it was never sent or has left the ring.
    pub(crate) fn send_again(&mut self, ring: &Ring, sequence_number: u16, way: &mut Way<'_>) -> bool {
        let Some((ring_base, out_base)) = self.base else { return false };
        // The newest extended sequence number, not after the last sent, with these lower 16 bits.
        let Some(newest) = self.next_out.checked_sub(1) else { return false };
        let back = u64::from((newest as u16).wrapping_sub(sequence_number));
        let Some(out) = newest.checked_sub(back).filter(|&out| out >= out_base) else { return false };
        let Some(place) = ring.find(ring_base + (out - out_base)) else { return false };
        let Some(frame) = ring.frame(place.frame) else { return false };
        self.send(frame, place, out, way);
        true
    }

    /// Sends the packet of `frame` at `cursor` with the extended sequence number `seq`.
    fn send(&mut self, frame: &PacketisedFrame, place: Place, out: u64, way: &mut Way<'_>) {
        let Some(payload) = frame.payload(place.packet) else { return };
        let timestamp = match self.squeeze {
            Some((newest, timestamp)) if place.frame < newest => {
                timestamp.wrapping_sub(((newest - place.frame) as u32).wrapping_mul(SQUEEZED_TICKS))
            }
            _ => frame.timestamp,
        };
        let padding = frame.padding(place.packet);
        let header = Header {
            padded: padding > 0,
            marker: frame.is_marked(place.packet),
            payload_type: self.payload_type,
            sequence_number: out as u16,
            timestamp: timestamp.wrapping_add(self.timestamp_offset),
            ssrc: self.ssrc,
        };
        let room = way.socket.datagram(way.path, way.media.sealed_bytes(payload.len()));
        if way.media.seal(&header, (out >> 16) as u32, payload, room).is_err() {
            // Unreachable with payloads below the size limit; the viewer discards a
            // packet of zeros.
            room.fill(0);
        }
        self.packets = self.packets.wrapping_add(1);
        self.payload_bytes = self.payload_bytes.wrapping_add(payload.len() as u32 - u32::from(padding));
    }
}
