//! The stream under load: one FLV file, made once with ffmpeg, kept in a cache folder, read into memory.
//!
//! 1280x720 at 30 pictures a second, H.264 High at 2.5 Mbit/s constant, a key frame every second, no B-frames, and AAC
//! 128 kbit/s at 48 kHz stereo. Eight seconds: the shortest time that is a whole number of pictures, key frames and
//! AAC frames (375 of 1024 samples), so it loops without a seam. This file must not know who sends it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;

/// One FLV tag body and when it is due.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Milliseconds since the start of a pass.
    pub(crate) at_ms: u32,
    /// True for video, false for audio.
    pub(crate) video: bool,
    /// The tag body: FLV video or audio header, then one picture or AAC frame.
    pub(crate) body: Bytes,
}

/// A stream that can be sent for ever.
#[derive(Debug)]
pub(crate) struct Source {
    /// Sequence headers: first the video's, then the audio's.
    pub(crate) headers: Vec<Item>,
    /// Pictures and sound of one pass, in the order of time.
    pub(crate) items: Vec<Item>,
}

/// Length of one pass, in milliseconds.
pub(crate) const PASS_MS: u32 = 8_000;

/// Pictures a second.
pub(crate) const FRAMES_PER_SECOND: f64 = 30.0;

impl Source {
    /// Reads the stream from the cache, making it first if it is not there.
    ///
    /// # Errors
    /// ffmpeg is absent or failed, or the file is not what ffmpeg should have made.
    pub(crate) fn open() -> Result<Self> {
        let folder = std::env::temp_dir().join("headwater-load");
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        let file = folder.join("720p30-2500k-1.flv");
        if !file.exists() {
            make(&folder, &file)?;
        }
        let flv = std::fs::read(&file).with_context(|| format!("could not read {}", file.display()))?;
        Self::parse(&Bytes::from(flv)).with_context(|| format!("{} is not usable; delete it", file.display()))
    }

    /// Reads an FLV file (Video File Format Specification 10.1, Annex E).
    fn parse(flv: &Bytes) -> Result<Self> {
        let mut source = Self { headers: Vec::new(), items: Vec::new() };
        let mut at = FILE_HEADER_BYTES;
        while let Some(header) = flv.get(at..at + TAG_HEADER_BYTES) {
            let size = be24(&header[1..]) as usize;
            let at_ms = be24(&header[4..]) | u32::from(header[7]) << 24;
            let start = at + TAG_HEADER_BYTES;
            ensure!(flv.len() >= start + size, "the last tag is cut off");
            let item = Item { at_ms, video: header[0] == 9, body: flv.slice(start..start + size) };
            at = start + size + 4;
            match (header[0], item.body.get(1)) {
                (8 | 9, Some(0)) => source.headers.push(item),
                (8 | 9, Some(1)) if at_ms < PASS_MS => source.items.push(item),
                _ => {}
            }
        }
        let frames = source.items.iter().filter(|i| i.video).count() as u32;
        if source.headers.len() != 2 || frames * 1_000 != PASS_MS * FRAMES_PER_SECOND as u32 {
            bail!("{} sequence headers and {pictures} pictures", source.headers.len());
        }
        source.headers.sort_by_key(|i| !i.video);
        Ok(source)
    }
}

fn make(folder: &Path, file: &Path) -> Result<()> {
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
    ensure!(status.success(), "ffmpeg could not make the test stream: {status}");
    std::fs::rename(&partial, file).with_context(|| format!("could not write {}", file.display()))
}

fn be24(bytes: &[u8]) -> u32 {
    u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2])
}

const FILE_HEADER_BYTES: usize = 9 + 4;
const TAG_HEADER_BYTES: usize = 11;
