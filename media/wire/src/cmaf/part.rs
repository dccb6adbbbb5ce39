//! Writes one part: a movie fragment with its media data (ISO/IEC 14496-12 §8.8).
//!
//! ```text
//! moof  mfhd  traf(video: tfhd tfdt trun)  traf(audio: tfhd tfdt trun)
//! mdat  samples of the video run, then samples of the audio run
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use mp4_atom as mp4;
use mp4_atom::Encode;

use super::track_id::VIDEO_TRACK;

/// Flags of a sample at which a decoder can start, because it depends on no other
/// (ISO/IEC 14496-12 §8.8.3.1).
pub(super) const SYNC_SAMPLE: u32 = 0x0200_0000;
/// Flags of a sample that depends on others.
pub(super) const NON_SYNC_SAMPLE: u32 = 0x0101_0000;

/// One sample of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Duration in ticks of the track's timescale.
    pub duration: u32,
    /// Presentation time minus decoding time, in ticks. May be negative.
    pub composition_offset: i32,
    /// True if a decoder can start here.
    pub key: bool,
    /// The encoded bytes, in the format of [`crate::Frame::payload`].
    pub payload: Bytes,
}

/// Consecutive samples of one track.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// [`super::VIDEO_TRACK`] or [`super::AUDIO_TRACK`].
    pub track_id: u32,
    /// Decoding time of the first sample, in ticks.
    pub base_decode_time: u64,
    /// The samples in decoding order, at least one.
    pub samples: &'a [Sample],
}

/// Writes `moof` and `mdat`. The payloads are copied once, into the returned buffer.
pub fn encode_part(sequence_number: u32, runs: &[Run<'_>]) -> Bytes {
    let payload_bytes: usize = runs.iter().flat_map(|r| r.samples).map(|s| s.payload.len()).sum();
    // The data offsets depend on the length of the `moof`, which does not depend on their values.
    let moof_bytes = encode_moof(sequence_number, runs, 0).len();
    let moof = encode_moof(sequence_number, runs, moof_bytes + MDAT_HEADER_BYTES);
    let mut out = BytesMut::with_capacity(moof.len() + MDAT_HEADER_BYTES + payload_bytes);
    out.put_slice(&moof);
    out.put_u32(u32::try_from(payload_bytes + MDAT_HEADER_BYTES).unwrap_or(0));
    out.put_slice(b"mdat");
    for sample in runs.iter().flat_map(|r| r.samples) {
        out.put_slice(&sample.payload);
    }
    out.freeze()
}

fn encode_moof(sequence_number: u32, runs: &[Run<'_>], first_offset: usize) -> Vec<u8> {
    let mut offset = first_offset;
    let traf = runs
        .iter()
        .map(|run| {
            let traf = mp4::Traf {
                tfhd: mp4::Tfhd { track_id: run.track_id, default_base_is_moof: true, ..Default::default() },
                tfdt: Some(mp4::Tfdt { base_media_decode_time: run.base_decode_time }),
                trun: vec![trun(run, offset)],
                ..Default::default()
            };
            offset += run.samples.iter().map(|s| s.payload.len()).sum::<usize>();
            traf
        })
        .collect();
    let moof = mp4::Moof { mfhd: mp4::Mfhd { sequence_number }, traf };
    let mut out = Vec::with_capacity(256);
    // Fails only for offsets beyond 32 bits; these are `i32`.
    let _ = moof.encode(&mut out);
    out
}

fn trun(run: &Run<'_>, offset: usize) -> mp4::Trun {
    let reordered = run.samples.iter().any(|s| s.composition_offset != 0);
    // Only samples that differ from the track's default flags (`trex`) carry flags: a key frame,
    // which is usually the first of its run.
    let video = run.track_id == VIDEO_TRACK;
    let later_key = video && run.samples.iter().skip(1).any(|s| s.key);
    let flags = |i: usize, key: bool| match (video, key) {
        (true, true) => Some(SYNC_SAMPLE),
        (true, false) if later_key || i == 0 => Some(NON_SYNC_SAMPLE),
        _ => None,
    };
    let entries: Vec<mp4::TrunEntry> = run
        .samples
        .iter()
        .enumerate()
        .map(|(i, s)| mp4::TrunEntry {
            duration: Some(s.duration),
            size: u32::try_from(s.payload.len()).ok(),
            flags: flags(i, s.key),
            cts: reordered.then_some(i64::from(s.composition_offset)),
        })
        .collect();
    mp4::Trun { data_offset: i32::try_from(offset).ok(), samples: entries.into() }
}

/// Box size and box type, 4 bytes each.
const MDAT_HEADER_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use mp4_atom::Decode;

    use super::*;

    fn sample(key: bool, offset: i32, payload: &'static [u8]) -> Sample {
        Sample { duration: 3_000, composition_offset: offset, key, payload: Bytes::from_static(payload) }
    }

    #[test]
    fn data_offsets_point_at_the_first_byte_of_each_run() {
        let video = [sample(true, 0, b"VVVV"), sample(false, 0, b"vv")];
        let audio = [sample(true, 0, b"aaa")];
        let part = encode_part(
            7,
            &[
                Run { track_id: 1, base_decode_time: 90_000, samples: &video },
                Run { track_id: 2, base_decode_time: 48_000, samples: &audio },
            ],
        );
        let moof = mp4::Moof::decode(&mut part.as_ref()).unwrap();
        let at = |i: usize| moof.traf[i].trun[0].data_offset.unwrap() as usize;
        assert_eq!(&part[at(0)..at(0) + 6], b"VVVVvv");
        assert_eq!(&part[at(1)..], b"aaa");
        assert_eq!(moof.mfhd.sequence_number, 7);
        assert_eq!(moof.traf[1].tfdt.as_ref().unwrap().base_media_decode_time, 48_000);
        let mdat = at(0) - MDAT_HEADER_BYTES;
        assert_eq!(part[mdat..mdat + 8], [0, 0, 0, 17, b'm', b'd', b'a', b't']);
    }

    #[test]
    fn only_key_frames_are_marked_as_sync_samples() {
        let check = |keys: &[bool], expect: &[Option<u32>]| {
            let samples: Vec<_> = keys.iter().map(|&k| sample(k, 0, b"x")).collect();
            let part = encode_part(0, &[Run { track_id: 1, base_decode_time: 0, samples: &samples }]);
            let moof = mp4::Moof::decode(&mut part.as_ref()).unwrap();
            let got: Vec<_> = moof.traf[0].trun[0].samples.iter().map(|s| s.flags).collect();
            assert_eq!(got, expect);
        };
        check(&[true, false, false], &[Some(SYNC_SAMPLE), None, None]);
        check(&[false, false], &[Some(NON_SYNC_SAMPLE), None]);
        check(&[false, true], &[Some(NON_SYNC_SAMPLE), Some(SYNC_SAMPLE)]);
    }

    #[test]
    fn frame_presented_before_its_decoding_time_has_a_negative_offset() {
        let samples = [sample(true, 6_000, b"I"), sample(false, -3_000, b"B")];
        let part = encode_part(0, &[Run { track_id: 1, base_decode_time: 0, samples: &samples }]);
        let moof = mp4::Moof::decode(&mut part.as_ref()).unwrap();
        let got: Vec<_> = moof.traf[0].trun[0].samples.iter().map(|s| s.cts).collect();
        assert_eq!(got, [Some(6_000), Some(-3_000)]);
    }
}
