//! One track as one viewer gets it: where it stands in the ring, and how ring numbers become the viewer's numbers.
//!
//! Every viewer counts its packets from its own random start below 2^14, so that its rollover counter begins at 0
//! (RFC 3711 §3.3.1) however long the stream has run. A viewer that joins gets the last key group at once, with its
//! timestamps squeezed to a millisecond a frame before the newest one: a player that spread the group over its real time
//! would stay that far behind.

use headwater_wire::rtp::{Header, PacketisedFrame, Place, Ring};
use smallvec::SmallVec;

use super::feed::Feed;
use super::srtp::Media;
use super::udp::{Path, Socket};

/// Ticks between the squeezed frames of a joining viewer: a millisecond at 90 kHz.
const SQUEEZED_TICKS: u32 = 90;

/// What one viewer gets of one feed.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) feed: u64,
    pub(super) ssrc: u32,
    /// True if the viewer gets pictures and sound.
    pub(super) rides: bool,
    payload_type: u8,
    timestamp_offset: u32,
    next: Place,
    /// Nothing is sent until a frame that a decoder may start at.
    wait_key: bool,
    /// Ring number of a packet, and the viewer's number of the same; later ones follow.
    base: Option<(u64, u64)>,
    /// The viewer's number of its next packet, not wrapped.
    next_out: u64,
    /// Newest frame at the time of joining and its timestamp: earlier ones are squeezed before it.
    squeeze: Option<(u64, u32)>,
    /// Modulo 2^32, as sender reports want it.
    pub(super) packets: u32,
    /// Modulo 2^32, as sender reports want it.
    pub(super) payload_bytes: u32,
}

/// All that is read of one viewer for every packet it gets, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    pub(super) tracks: SmallVec<[Track; 2]>,
    pub(super) path: Option<Path>,
    /// There once it is connected.
    pub(super) media: Option<Media>,
}

/// The way out for one viewer's packets.
pub(super) struct Way<'a> {
    socket: &'a mut Socket,
    media: &'a mut Media,
    path: &'a Path,
}

impl Outlet {
    /// The tracks, and the way out for them, once connected.
    pub(super) fn split<'a>(&'a mut self, socket: &'a mut Socket) -> Option<(&'a mut [Track], Way<'a>)> {
        let (media, path) = (self.media.as_mut()?, self.path.as_ref()?);
        Some((&mut self.tracks, Way { socket, media, path }))
    }
}

impl Track {
    /// Begins at the last key frame of the ring, or at the next one to come.
    pub(super) fn new(feed: &Feed, ring: &Ring, payload_type: u8, start: u16, rides: bool) -> Self {
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

    /// Sends what is new, `budget` packets at most, which it counts down. True if there is more.
    pub(super) fn send_new(&mut self, ring: &Ring, way: &mut Way<'_>, budget: &mut u32) -> bool {
        if self.next.frame < ring.front() {
            // Too slow even for the ring: go on at a key frame. The numbers go on too, or the gap would be asked for.
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

    /// Sends a packet again, if it was sent and is still here.
    pub(super) fn send_again(&mut self, ring: &Ring, sequence_number: u16, way: &mut Way<'_>) -> bool {
        let Some((ring_base, out_base)) = self.base else { return false };
        // The newest number sent that ends in these 16 bits.
        let Some(newest) = self.next_out.checked_sub(1) else { return false };
        let back = u64::from((newest as u16).wrapping_sub(sequence_number));
        let Some(out) = newest.checked_sub(back).filter(|&out| out >= out_base) else { return false };
        let Some(place) = ring.find(ring_base + (out - out_base)) else { return false };
        let Some(frame) = ring.frame(place.frame) else { return false };
        self.send(frame, place, out, way);
        true
    }

    /// Sends the packet of `frame` that `place` says, as the viewer's number `out`.
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
            // Cannot happen with payloads within the budget; a packet of zeros harms nobody.
            room.fill(0);
        }
        self.packets = self.packets.wrapping_add(1);
        self.payload_bytes = self.payload_bytes.wrapping_add(payload.len() as u32 - u32::from(padding));
    }
}
