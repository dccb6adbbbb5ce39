//! Writes initialization segments: tracks and their decoder configurations, without samples
//! (ISO/IEC 14496-12 §8.2).

use std::sync::Arc;

use bytes::Bytes;
use mp4_atom as mp4;
use mp4_atom::Encode;

use super::CmafError;
use super::part::{NON_SYNC_SAMPLE, SYNC_SAMPLE};
use super::sample_entry::sample_entry;
use super::track_id::{AUDIO_TRACK, track_id};
use crate::{Codec, MediaKind, Track};

/// Returns the ticks per second of a track in the file: 90,000 for video, the sample rate for
/// audio.
pub fn timescale(track: &Track) -> u32 {
    match track.codec {
        Codec::H264 | Codec::H265 | Codec::Av1 => 90_000,
        Codec::Opus => 48_000,
        Codec::Aac => track.audio.map(|a| a.sample_rate_hz).filter(|&hz| hz > 0).unwrap_or(48_000),
    }
}

/// An initialization segment and the tracks that it describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// The whole segment: `ftyp` and `moov`.
    pub bytes: Bytes,
    /// CRC-32 of the bytes, for use in URLs: the same tracks have the same id on every node.
    pub id: u32,
    /// The video track, if there is one.
    pub video: Option<Arc<Track>>,
    /// The audio track, if there is one.
    pub audio: Option<Arc<Track>>,
}

impl Init {
    /// Writes the initialization segment for these tracks.
    ///
    /// # Errors
    /// If there is no track, or a decoder configuration is malformed.
    pub fn new(video: Option<Arc<Track>>, audio: Option<Arc<Track>>) -> Result<Self, CmafError> {
        let tracks: Vec<&Track> = video.iter().chain(&audio).map(Arc::as_ref).collect();
        if tracks.is_empty() {
            return Err(CmafError::NoTrack);
        }
        let bytes = encode(&tracks)?;
        Ok(Self { id: crc32fast::hash(&bytes), bytes, video, audio })
    }

    /// Returns true if frames of `track` can be decoded with this initialization segment.
    pub fn describes(&self, track: &Arc<Track>) -> bool {
        let own = match track.kind() {
            MediaKind::Video => &self.video,
            MediaKind::Audio => &self.audio,
        };
        own.as_ref().is_some_and(|k| same_configuration(k, track))
    }

    /// Returns the RFC 6381 codec strings of all tracks, separated by commas, or `None` if one is
    /// unknown.
    pub fn codecs(&self) -> Option<String> {
        let strings: Option<Vec<&str>> =
            self.video.iter().chain(&self.audio).map(|t| t.codec_string.as_deref()).collect();
        strings.map(|s| s.join(","))
    }
}

/// Returns true if both tracks have the same decoder configuration.
pub(super) fn same_configuration(a: &Arc<Track>, b: &Arc<Track>) -> bool {
    Arc::ptr_eq(a, b) || (a.codec == b.codec && a.config == b.config)
}

fn encode(tracks: &[&Track]) -> Result<Bytes, CmafError> {
    let fourcc = |b: &[u8; 4]| mp4::FourCC::new(b);
    let ftyp = mp4::Ftyp {
        major_brand: fourcc(b"iso6"),
        minor_version: 0,
        compatible_brands: vec![fourcc(b"iso6"), fourcc(b"cmfc"), fourcc(b"mp41")],
    };
    let mut moov = mp4::Moov {
        mvhd: mp4::Mvhd {
            timescale: 1_000,
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: AUDIO_TRACK + 1,
            ..Default::default()
        },
        mvex: Some(mp4::Mvex::default()),
        ..Default::default()
    };
    for track in tracks {
        moov.trak.push(trak(track)?);
        if let Some(mvex) = &mut moov.mvex {
            mvex.trex.push(trex(track));
        }
    }
    let mut out = Vec::with_capacity(2_048);
    let written = ftyp.encode(&mut out).and_then(|()| moov.encode(&mut out));
    written.map_err(|e| CmafError::Configuration { codec: tracks[0].codec.name(), reason: e.to_string() })?;
    Ok(out.into())
}

fn trex(track: &Track) -> mp4::Trex {
    mp4::Trex {
        track_id: track_id(track),
        default_sample_description_index: 1,
        default_sample_flags: match track.kind() {
            MediaKind::Video => NON_SYNC_SAMPLE,
            MediaKind::Audio => SYNC_SAMPLE,
        },
        ..Default::default()
    }
}

fn trak(track: &Track) -> Result<mp4::Trak, CmafError> {
    let video = track.kind() == MediaKind::Video;
    let size = track.video.unwrap_or_default();
    let pixels = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let (handler, name) = if video { (b"vide", "video") } else { (b"soun", "audio") };
    Ok(mp4::Trak {
        tkhd: mp4::Tkhd {
            track_id: track_id(track),
            enabled: true,
            in_movie: true,
            volume: u8::from(!video).into(),
            width: pixels(size.width).into(),
            height: pixels(size.height).into(),
            ..Default::default()
        },
        mdia: mp4::Mdia {
            mdhd: mp4::Mdhd { timescale: timescale(track), language: "und".to_owned(), ..Default::default() },
            hdlr: mp4::Hdlr { handler: mp4::FourCC::new(handler), name: name.to_owned() },
            minf: mp4::Minf {
                vmhd: video.then(mp4::Vmhd::default),
                smhd: (!video).then(mp4::Smhd::default),
                dinf: mp4::Dinf {
                    dref: mp4::Dref { entries: vec![mp4::DrefEntry::Url(mp4::Url { location: String::new() })] },
                },
                stbl: mp4::Stbl {
                    stsd: mp4::Stsd { codecs: vec![sample_entry(track)?] },
                    stco: Some(mp4::Stco::default()),
                    ..Default::default()
                },
                ..Default::default()
            },
        },
        ..Default::default()
    })
}
