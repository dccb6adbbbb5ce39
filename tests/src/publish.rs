//! Publishers that are not ours, with the same pictures and the same sound every time.

use std::path::Path;
use std::process::Command;

use crate::process::Process;
use crate::tools;

/// What a publisher sends: a moving test picture and a 440 Hz tone, in real time.
#[derive(Debug, Clone)]
pub struct Source {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pictures a second.
    pub fps: u32,
    /// Pictures from one key frame to the next.
    pub gop: u32,
    /// B-frames between two others; 0 is what WebRTC needs.
    pub b_frames: u32,
    /// Sound, as ffmpeg's encoder and its options: `["-c:a", "aac"]`; empty for none.
    pub audio: Vec<&'static str>,
    /// Samples a second.
    pub sample_rate_hz: u32,
    /// Channels.
    pub channels: u32,
    /// Pictures at all, or sound alone.
    pub video: bool,
    /// Length in seconds; endless if `None`.
    pub seconds: Option<u32>,
}

impl Default for Source {
    /// 320x180 at 25 pictures a second, a key frame a second, no B-frames, AAC at 48 kHz stereo: cheap to make.
    fn default() -> Self {
        Self {
            width: 320,
            height: 180,
            fps: 25,
            gop: 25,
            b_frames: 0,
            audio: vec!["-c:a", "aac", "-b:a", "96k"],
            sample_rate_hz: 48_000,
            channels: 2,
            video: true,
            seconds: None,
        }
    }
}

impl Source {
    /// ffmpeg's arguments from the inputs to the encoders.
    pub fn arguments(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut add = |text: &str| out.extend(text.split(' ').map(str::to_owned));
        if self.video {
            let (w, h, fps) = (self.width, self.height, self.fps);
            add(&format!("-re -f lavfi -i testsrc2=size={w}x{h}:rate={fps}"));
        }
        if !self.audio.is_empty() {
            add(&format!("-re -f lavfi -i sine=frequency=440:sample_rate={}", self.sample_rate_hz));
        }
        if self.video {
            let (gop, b) = (self.gop, self.b_frames);
            add("-c:v libx264 -preset ultrafast -pix_fmt yuv420p -threads 1");
            add(&format!("-g {gop} -keyint_min {gop} -sc_threshold 0 -bf {b}"));
        }
        if !self.audio.is_empty() {
            out.extend(self.audio.iter().map(|s| (*s).to_owned()));
            out.extend(["-ac".to_owned(), self.channels.to_string()]);
        }
        if let Some(seconds) = self.seconds {
            out.extend(["-t".to_owned(), seconds.to_string()]);
        }
        out
    }
}

/// ffmpeg publishing `source` to an RTMP address. `None` if ffmpeg is missing (said aloud).
///
/// # Errors
/// If it cannot be started.
pub fn ffmpeg(source: &Source, url: &str) -> anyhow::Result<Option<Process>> {
    let Some(mut command) = ffmpeg_command() else { return Ok(None) };
    command.args(source.arguments()).args(["-flvflags", "no_duration_filesize", "-f", "flv", url]);
    Process::start(&mut command).map(Some)
}

/// ffmpeg writing `source` into a file as fast as it can. `None` if ffmpeg is missing.
///
/// # Errors
/// If it cannot be started.
pub fn ffmpeg_file(source: &Source, file: &Path) -> anyhow::Result<Option<Process>> {
    let Some(mut command) = ffmpeg_command() else { return Ok(None) };
    command.args(source.arguments().iter().filter(|a| *a != "-re")).arg("-y").arg(file);
    Process::start(&mut command).map(Some)
}

/// ffmpeg, quiet but for errors, ready for inputs. `None` if it is missing (said aloud).
pub fn ffmpeg_command() -> Option<Command> {
    let mut command = Command::new(tools::find("ffmpeg")?);
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]);
    Some(command)
}
