//! The RTP send state of one track for one viewer: its position in the packet ring, and the mapping
//! from ring packet numbers to the viewer's sequence numbers.
//!
//! The sequence numbers of each viewer start at a random value below 2^14, so that its rollover
//! counter starts at 0 (RFC 3711 §3.3.1) however long the stream has run. A viewer that joins
//! receives the last GOP at once. The timestamps of these catch-up frames are 1 ms apart and end at
//! the newest frame; a player that spread the GOP over its real duration would keep that latency.

use headwater_wire::rtp::{Header, PacketizedFrame, Ring, RingCursor};
use smallvec::SmallVec;

use crate::gateway::webrtc::play::packetizer::StreamPacketizer;
use crate::gateway::webrtc::transport::srtp::MediaCipher;
use crate::gateway::webrtc::transport::udp::{AddressPair, Socket};

/// Timestamp ticks between the catch-up frames of a joining viewer: 1 ms at 90 kHz.
const CATCH_UP_TICKS: u32 = 90;

/// The send state of one track for one viewer.
#[derive(Debug)]
pub(crate) struct SendTrack {
    pub(crate) packetizer_id: u64,
    pub(crate) ssrc: u32,
    /// True if the viewer receives both audio and video.
    pub(crate) batches_audio: bool,
    payload_type: u8,
    timestamp_offset: u32,
    cursor: RingCursor,
    /// Skips frames until one at which a decoder can start.
    wait_key: bool,
    /// Ring number and extended sequence number of the first packet since the last skip. Both
    /// increase by one per packet.
    seq_base: Option<(u64, u64)>,
    /// Extended (not wrapped) sequence number of the next packet.
    next_seq: u64,
    /// Number and timestamp of the newest frame when the viewer joined. Frames before it
    /// are catch-up frames.
    catch_up: Option<(u64, u32)>,
    /// Modulo 2^32 (RFC 3550 §6.4.1).
    pub(crate) packets: u32,
    /// Modulo 2^32 (RFC 3550 §6.4.1).
    pub(crate) payload_bytes: u32,
}

/// Everything that sending a packet to one viewer reads, contiguous in memory.
#[derive(Debug, Default)]
pub(crate) struct ViewerSendState {
    pub(crate) tracks: SmallVec<[SendTrack; 2]>,
    /// The selected pair while its remote address is proven; otherwise nothing is sent.
    pub(crate) selected_pair: Option<AddressPair>,
    /// Set once the viewer is connected.
    pub(crate) cipher: Option<MediaCipher>,
}

/// Encrypts the packets of one viewer and queues them at the socket.
pub(crate) struct PacketSink<'a> {
    socket: &'a mut Socket,
    cipher: &'a mut MediaCipher,
    pair: &'a AddressPair,
}

impl ViewerSendState {
    /// Returns the tracks and the sink for their packets, or `None` if the viewer is not connected.
    pub(crate) fn split_for_sending<'a>(
        &'a mut self,
        socket: &'a mut Socket,
    ) -> Option<(&'a mut [SendTrack], PacketSink<'a>)> {
        let (cipher, pair) = (self.cipher.as_mut()?, self.selected_pair.as_ref()?);
        Some((&mut self.tracks, PacketSink { socket, cipher, pair }))
    }
}

impl SendTrack {
    /// Starts at the last key frame in the ring or, if there is none, at the next one.
    pub(crate) fn new(
        packetizer: &StreamPacketizer,
        ring: &Ring,
        payload_type: u8,
        start_seq: u16,
        batches_audio: bool,
    ) -> Self {
        let newest = ring.next_frame().saturating_sub(1);
        Self {
            packetizer_id: packetizer.id,
            ssrc: packetizer.ssrc,
            batches_audio,
            payload_type,
            timestamp_offset: packetizer.timestamp_offset,
            cursor: RingCursor { frame: ring.start_frame(), packet: 0 },
            wait_key: true,
            seq_base: None,
            next_seq: u64::from(start_seq & 0x3fff),
            catch_up: ring.frame(newest).map(|frame| (newest, frame.timestamp)),
            packets: 0,
            payload_bytes: 0,
        }
    }

    /// Sends new packets and subtracts their number from `budget`. Returns true if the budget was
    /// exhausted before the end of the ring.
    pub(crate) fn send_new(&mut self, ring: &Ring, sink: &mut PacketSink<'_>, budget: &mut u32) -> bool {
        if self.cursor.frame < ring.oldest_frame() {
            // The viewer has fallen behind the ring: resume at a key frame. Sequence numbers
            // continue without a gap, or the viewer would request the skipped packets.
            self.cursor = RingCursor { frame: ring.start_frame(), packet: 0 };
            self.wait_key = true;
            self.seq_base = None;
        }
        while let Some(frame) = ring.frame(self.cursor.frame) {
            if self.wait_key && !frame.key {
                self.cursor.frame += 1;
                continue;
            }
            self.wait_key = false;
            while self.cursor.packet < frame.len() {
                if *budget == 0 {
                    return true;
                }
                *budget -= 1;
                self.seq_base.get_or_insert((frame.first_packet + u64::from(self.cursor.packet), self.next_seq));
                self.send(frame, self.cursor, self.next_seq, sink);
                self.cursor.packet += 1;
                self.next_seq += 1;
            }
            self.cursor = RingCursor { frame: self.cursor.frame + 1, packet: 0 };
        }
        false
    }

    /// Retransmits a packet. Returns false if it was never sent or has left the ring.
    pub(crate) fn retransmit(&mut self, ring: &Ring, sequence_number: u16, sink: &mut PacketSink<'_>) -> bool {
        let Some((first_packet, first_seq)) = self.seq_base else { return false };
        // The newest extended sequence number, not after the last sent, with these lower 16 bits.
        let Some(newest) = self.next_seq.checked_sub(1) else { return false };
        let age = u64::from((newest as u16).wrapping_sub(sequence_number));
        let Some(seq) = newest.checked_sub(age).filter(|&seq| seq >= first_seq) else { return false };
        let Some(cursor) = ring.find(first_packet + (seq - first_seq)) else { return false };
        let Some(frame) = ring.frame(cursor.frame) else { return false };
        self.send(frame, cursor, seq, sink);
        true
    }

    /// Sends the packet of `frame` at `cursor` with the extended sequence number `seq`.
    fn send(&mut self, frame: &PacketizedFrame, cursor: RingCursor, seq: u64, sink: &mut PacketSink<'_>) {
        let Some(payload) = frame.payload(cursor.packet) else { return };
        let timestamp = match self.catch_up {
            Some((newest, timestamp)) if cursor.frame < newest => {
                timestamp.wrapping_sub(((newest - cursor.frame) as u32).wrapping_mul(CATCH_UP_TICKS))
            }
            _ => frame.timestamp,
        };
        let padding = frame.padding_bytes(cursor.packet);
        let header = Header {
            padded: padding > 0,
            marker: frame.has_marker(cursor.packet),
            payload_type: self.payload_type,
            sequence_number: seq as u16,
            timestamp: timestamp.wrapping_add(self.timestamp_offset),
            ssrc: self.ssrc,
        };
        let buffer = sink.socket.reserve_datagram(sink.pair, sink.cipher.sealed_bytes(payload.len()));
        if sink.cipher.seal(&header, (seq >> 16) as u32, payload, buffer).is_err() {
            // Unreachable with payloads below the size limit; the viewer discards a
            // packet of zeros.
            buffer.fill(0);
        }
        self.packets = self.packets.wrapping_add(1);
        self.payload_bytes = self.payload_bytes.wrapping_add(payload.len() as u32 - u32::from(padding));
    }
}
