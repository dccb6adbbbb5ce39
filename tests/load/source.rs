//! The published stream: one FLV file, created once with ffmpeg in a cache folder
//! and read into memory.
//!
//! 1280x720 at 30 frames per second, H.264 High at a constant 2.5 Mbit/s, a key frame every second,
//! no B-frames, and AAC at 128 kbit/s, 48 kHz stereo. Eight seconds is the shortest time that is a
//! whole number of video frames, GOPs and AAC frames (375 of 1024 samples), so the file loops
//! seamlessly. This file must not know who sends it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;

/// An FLV tag body and its timestamp.
#[derive(Debug, Clone)]
pub(crate) struct FlvTag {
    /// Timestamp within a pass, in milliseconds.
    pub(crate) at_ms: u32,
    /// True for video, false for audio.
    pub(crate) video: bool,
    /// The tag body: FLV video or audio header, then one video or AAC frame.
    pub(crate) body: Bytes,
}

/// A stream that can be sent in a loop.
#[derive(Debug)]
pub(crate) struct Source {
    /// Sequence headers: video, then audio.
    pub(crate) headers: Vec<FlvTag>,
    /// Video and audio of one pass, in time order.
    pub(crate) tags: Vec<FlvTag>,
}

/// Length of one pass, in milliseconds.
pub(crate) const PASS_MS: u32 = 8_000;

/// Frames per second.
pub(crate) const FRAMES_PER_SECOND: f64 = 30.0;

/// AAC packets per second: 1024 samples each, at 48 kHz.
pub(crate) const AUDIO_PACKETS_PER_SECOND: f64 = 46.875;

impl Source {
    /// Reads the stream from the cache, creating it first if it is missing.
    ///
    /// # Errors
    /// If ffmpeg is not installed or fails, or the file does not have the expected content.
    pub(crate) fn open() -> Result<Self> {
        let folder = std::env::temp_dir().join("headwater-load");
        std::fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        let file = folder.join("720p30-2500k-1.flv");
        if !file.exists() {
            create_source(&folder, &file)?;
        }
        let flv = std::fs::read(&file).with_context(|| format!("could not read {}", file.display()))?;
        Self::parse(&Bytes::from(flv)).with_context(|| format!("{} is unusable; delete it", file.display()))
    }

    /// Reads an FLV file (Video File Format Specification 10.1, Annex E).
    fn parse(flv: &Bytes) -> Result<Self> {
        let mut source = Self { headers: Vec::new(), tags: Vec::new() };
        let mut at = FILE_HEADER_BYTES;
        while let Some(header) = flv.get(at..at + TAG_HEADER_BYTES) {
            let size = be24(&header[1..]) as usize;
            let at_ms = be24(&header[4..]) | u32::from(header[7]) << 24;
            let start = at + TAG_HEADER_BYTES;
            ensure!(flv.len() >= start + size, "the last tag is incomplete");
            let tag = FlvTag { at_ms, video: header[0] == 9, body: flv.slice(start..start + size) };
            at = start + size + 4;
            match (header[0], tag.body.get(1)) {
                (8 | 9, Some(0)) => source.headers.push(tag),
                (8 | 9, Some(1)) if at_ms < PASS_MS => source.tags.push(tag),
                _ => {}
            }
        }
        let frames = source.tags.iter().filter(|i| i.video).count() as u32;
        if source.headers.len() != 2 || frames * 1_000 != PASS_MS * FRAMES_PER_SECOND as u32 {
            bail!("{} sequence headers and {frames} frames", source.headers.len());
        }
        source.headers.sort_by_key(|i| !i.video);
        Ok(source)
    }
}

fn create_source(folder: &Path, file: &Path) -> Result<()> {
    let partial: PathBuf = folder.join(format!("partial-{}.flv", std::process::id()));
    let arguments = "-v error -y -f lavfi -i testsrc2=s=1280x720:r=30,noise=alls=12:allf=t \
        -f lavfi -i sine=f=440:r=48000 -t 8.2 -ac 2 -c:v libx264 -preset veryfast -profile:v high -pix_fmt yuv420p \
        -b:v 2500k -minrate 2500k -maxrate 2500k -bufsize 1250k -g 30 -keyint_min 30 -sc_threshold 0 -bf 0 \
        -x264-params sliced-threads=0:slices=1 -c:a aac -b:a 128k";
    let status = Command::new("ffmpeg")
        .args(arguments.split_whitespace())
        .args(["-f", "flv"])
        .arg(&partial)
        .status()
        .context("could not start ffmpeg (apt-get install ffmpeg)")?;
    ensure!(status.success(), "ffmpeg could not create the test stream: {status}");
    std::fs::rename(&partial, file).with_context(|| format!("could not write {}", file.display()))
}

fn be24(bytes: &[u8]) -> u32 {
    u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2])
}

const FILE_HEADER_BYTES: usize = 9 + 4;
const TAG_HEADER_BYTES: usize = 11;
