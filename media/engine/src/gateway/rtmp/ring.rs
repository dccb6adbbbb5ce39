//! Ring of the packets of one stream, which are the same bytes for every player: its last two GOPs.
//!
//! A plain value. A player's position is a packet number; a player whose next packet was evicted
//! continues at the last key frame.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use headwater_wire::rtmp::mux;
use headwater_wire::{Frame, MediaKind, Track};
use std::sync::Arc;

/// The unit of writing: a video frame with the audio before it, or one frame alone.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    /// Complete RTMP chunks.
    pub(super) bytes: Bytes,
    /// True if a player may start here.
    pub(super) key: bool,
    /// Version of the decoder configurations it needs, see [`Ring::header`].
    pub(super) version: u32,
}

/// The newest packets of a stream.
#[derive(Debug, Default)]
pub(super) struct Ring {
    packets: VecDeque<Packet>,
    /// Number of the front packet.
    first_number: u64,
    last_key: Option<u64>,
    bytes: usize,
    header: Bytes,
    version: u32,
    ended: bool,
}

impl Ring {
    /// Number of the next packet.
    pub(super) fn end(&self) -> u64 {
        self.first_number + self.packets.len() as u64
    }

    /// Where a new player starts, and a player that lags continues: the last key packet.
    pub(super) fn start(&self) -> u64 {
        self.last_key.filter(|&key| key >= self.first_number).unwrap_or_else(|| self.end())
    }

    /// Decoder configurations that a player needs before its first packet, and their version;
    /// `None` before the first packet.
    pub(super) fn header(&self) -> Option<(&Bytes, u32)> {
        (!self.header.is_empty()).then_some((&self.header, self.version))
    }

    /// The packet of this number, or `None` if it has not been pushed yet.
    ///
    /// # Errors
    /// If the packet was evicted.
    pub(super) fn get(&self, number: u64) -> Result<Option<&Packet>, Evicted> {
        let index = number.checked_sub(self.first_number).ok_or(Evicted)?;
        Ok(usize::try_from(index).ok().and_then(|i| self.packets.get(i)))
    }

    /// True once the stream has ended: no packet follows.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn set_ended(&mut self) {
        self.ended = true;
    }

    fn push(&mut self, packet: Packet) {
        let number = self.end();
        self.bytes += packet.bytes.len();
        let previous_key = if packet.key { self.last_key.replace(number) } else { None };
        self.packets.push_back(packet);
        while previous_key.is_some_and(|number| self.first_number < number) {
            self.pop();
        }
        while self.packets.len() > 1 && (self.packets.len() > MAX_PACKETS || self.bytes > MAX_BYTES) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(packet) = self.packets.pop_front() {
            self.bytes -= packet.bytes.len();
            self.first_number += 1;
        }
    }
}

/// The packet is older than the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evicted;

/// Turns frames into packets.
#[derive(Debug, Default)]
pub(super) struct Packer {
    video: Option<Arc<Track>>,
    audio: Option<Arc<Track>>,
    /// True: audio waits for the next video frame. False: every frame is a packet.
    merge_audio: bool,
    version: u32,
    pending: BytesMut,
    pending_key: bool,
    pending_video: bool,
}

impl Packer {
    /// Starts with the tracks that are known before the first frame.
    pub(super) fn new(video: Option<Arc<Track>>, audio: Option<Arc<Track>>, merge_audio: bool) -> Self {
        Self { video, audio, merge_audio, ..Self::default() }
    }

    /// True while frames wait to be flushed.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Adds a frame to the pending packet. A key frame starts a new packet unless only audio is
    /// pending. Without merging, every frame starts a new packet.
    pub(super) fn push(&mut self, frame: &Frame, ring: &mut Ring) {
        let is_video = frame.kind() == MediaKind::Video;
        if !self.merge_audio || (is_video && frame.key && self.pending_video) {
            self.flush(ring);
        }
        let current = if is_video { &mut self.video } else { &mut self.audio };
        let track_changed = !current.as_ref().is_some_and(|track| Arc::ptr_eq(track, &frame.track));
        if track_changed {
            *current = Some(Arc::clone(&frame.track));
        }
        let is_start = frame.key && (is_video || self.video.is_none());
        if track_changed || self.version == 0 || is_start {
            let mut header = BytesMut::with_capacity(512);
            let tracks: Vec<&Track> = self.video.iter().chain(&self.audio).map(|track| &**track).collect();
            mux::write_header(&mut header, &tracks, frame.dts);
            // Players receive a change in line; a player that joins later receives it first.
            if track_changed && self.version > 0 {
                self.pending.extend_from_slice(&header);
            }
            self.version += u32::from(track_changed || self.version == 0);
            ring.header = header.freeze();
            ring.version = self.version;
        }
        self.pending.reserve(frame.payload.len() + 64);
        mux::write_frame(&mut self.pending, frame);
        self.pending_key |= is_start;
        self.pending_video |= is_video;
    }

    /// True if the pending packet need not wait: audio is not merged, the packet holds a video
    /// frame, or there is no video track.
    pub(super) fn should_flush(&self) -> bool {
        !self.merge_audio || self.pending_video || self.video.is_none()
    }

    /// Pushes the pending frames to the ring as one packet.
    pub(super) fn flush(&mut self, ring: &mut Ring) {
        if self.pending.is_empty() {
            return;
        }
        // An exact copy, because the ring keeps packets for two GOPs.
        let bytes = Bytes::copy_from_slice(&self.pending);
        self.pending.clear();
        if self.pending.capacity() > MAX_IDLE_BYTES {
            self.pending = BytesMut::new();
        }
        let key = std::mem::take(&mut self.pending_key);
        self.pending_video = false;
        ring.push(Packet { bytes, key, version: self.version });
    }
}

/// 30 video frames and 47 audio packets per second, each a packet, over two GOPs of one minute
/// each.
const MAX_PACKETS: usize = 10_240;
/// Two key frames of the maximum length, or two GOPs of 2 s at 60 Mbit/s.
const MAX_BYTES: usize = 32 << 20;
/// The packer's buffer is freed if it has grown beyond this.
const MAX_IDLE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use headwater_wire::codec::{aac, h264};
    use headwater_wire::{Codec, MediaTime, VideoTrack};

    use super::*;

    fn video() -> Arc<Track> {
        Arc::new(Track {
            codec: Codec::H264,
            config: h264::DecoderConfig::from_parameter_sets(vec![0x67, 66, 0, 31].into(), vec![0x68].into())
                .unwrap()
                .encode(),
            codec_string: None,
            video: Some(VideoTrack::default()),
            audio: None,
        })
    }

    fn audio() -> Arc<Track> {
        Arc::new(aac::track(Bytes::from_static(&[0x12, 0x10])).unwrap())
    }

    fn frame(track: &Arc<Track>, ms: i64, key: bool) -> Frame {
        let t = MediaTime::from_ms(ms);
        Frame { track: Arc::clone(track), dts: t, pts: t, key, payload: Bytes::from_static(b"payload") }
    }

    #[test]
    fn audio_is_packed_with_the_next_video_frame() {
        let (video, audio) = (video(), audio());
        let (mut packer, mut ring) =
            (Packer::new(Some(Arc::clone(&video)), Some(Arc::clone(&audio)), true), Ring::default());
        packer.push(&frame(&video, 0, true), &mut ring);
        assert!(packer.should_flush());
        packer.flush(&mut ring);
        packer.push(&frame(&audio, 10, true), &mut ring);
        assert!(packer.has_pending() && !packer.should_flush());
        packer.push(&frame(&video, 33, false), &mut ring);
        assert!(packer.should_flush());
        packer.flush(&mut ring);
        assert_eq!(ring.end(), 2);
        assert_eq!(ring.start(), 0);
    }

    #[test]
    fn each_frame_of_a_batch_is_a_packet_without_merging() {
        let (video, audio) = (video(), audio());
        let (mut packer, mut ring) =
            (Packer::new(Some(Arc::clone(&video)), Some(Arc::clone(&audio)), false), Ring::default());
        for frame in [frame(&audio, 0, true), frame(&video, 1, true), frame(&audio, 21, true), frame(&video, 34, false)]
        {
            packer.push(&frame, &mut ring);
            assert!(packer.should_flush());
        }
        packer.flush(&mut ring);
        let keys: Vec<bool> = (0..ring.end()).map(|n| ring.get(n).unwrap().unwrap().key).collect();
        assert_eq!((keys, ring.start()), (vec![false, true, false, false], 1), "players start at the key frame");
    }

    #[test]
    fn audio_without_a_video_track_is_flushed_at_once() {
        let audio = audio();
        let (mut packer, mut ring) = (Packer::new(None, Some(Arc::clone(&audio)), true), Ring::default());
        packer.push(&frame(&audio, 0, true), &mut ring);
        assert!(packer.should_flush());
    }

    #[test]
    fn key_frame_never_follows_another_video_frame_in_a_packet() {
        let video = video();
        let (mut packer, mut ring) = (Packer::new(Some(Arc::clone(&video)), None, true), Ring::default());
        for (ms, key) in [(0, true), (33, false), (66, true), (99, false)] {
            packer.push(&frame(&video, ms, key), &mut ring);
        }
        packer.flush(&mut ring);
        assert_eq!((ring.end(), ring.start()), (2, 1));
    }

    #[test]
    fn ring_keeps_two_gops_and_evicts_older_ones() {
        let video = video();
        let (mut packer, mut ring) = (Packer::new(Some(Arc::clone(&video)), None, true), Ring::default());
        for n in 0..9 {
            packer.push(&frame(&video, n * 33, n % 3 == 0), &mut ring);
            packer.flush(&mut ring);
        }
        assert_eq!((ring.first_number, ring.start(), ring.end()), (3, 6, 9));
        assert_eq!(ring.get(2).unwrap_err(), Evicted);
        assert!(ring.get(3).unwrap().is_some_and(|p| p.key));
        assert!(ring.get(9).unwrap().is_none());
    }

    #[test]
    fn late_track_is_announced_in_line_and_in_the_header() {
        let (video, audio) = (video(), audio());
        let (mut packer, mut ring) = (Packer::new(Some(Arc::clone(&video)), None, true), Ring::default());
        packer.push(&frame(&video, 0, true), &mut ring);
        packer.flush(&mut ring);
        let before = ring.header().unwrap().0.len();
        packer.push(&frame(&audio, 10, true), &mut ring);
        packer.flush(&mut ring);
        let (header, version) = ring.header().unwrap();
        assert!(header.len() > before);
        assert_eq!((version, ring.get(0).unwrap().unwrap().version), (2, 1));
        let packet = ring.get(1).unwrap().unwrap();
        assert!(packet.version == 2 && packet.bytes.starts_with(header));
    }
}
