//! ffmpeg as an independent publisher, with the same video and audio every time.

use std::path::Path;
use std::process::Command;

use crate::process::Process;
use crate::tools;

/// What a publisher sends: a moving test pattern and a 440 Hz tone, in real time.
#[derive(Debug, Clone)]
pub struct Source {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// Frames from one key frame to the next.
    pub gop: u32,
    /// Consecutive B-frames; WebRTC requires 0.
    pub b_frames: u32,
    /// ffmpeg options of the audio encoder, such as `["-c:a", "aac"]`; empty for no audio.
    pub audio: Vec<&'static str>,
    /// Audio sample rate.
    pub sample_rate_hz: u32,
    /// Audio channels.
    pub channels: u32,
    /// False for audio only.
    pub video: bool,
    /// Duration in seconds; endless if `None`.
    pub seconds: Option<u32>,
}

impl Default for Source {
    /// 320x180 at 25 frames per second, one key frame per second, no B-frames, AAC at 48 kHz
    /// stereo: cheap to encode.
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
    /// ffmpeg arguments for the inputs and the encoders.
    pub fn ffmpeg_arguments(&self) -> Vec<String> {
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

/// Starts ffmpeg to publish `source` to an RTMP URL. Returns `None` if ffmpeg is not installed; the
/// skip is printed.
///
/// # Errors
/// If it cannot be started.
pub fn start_ffmpeg(source: &Source, url: &str) -> anyhow::Result<Option<Process>> {
    let Some(mut command) = ffmpeg_command() else { return Ok(None) };
    command.args(source.ffmpeg_arguments()).args(["-flvflags", "no_duration_filesize", "-f", "flv", url]);
    Process::start(&mut command).map(Some)
}

/// Starts ffmpeg to write `source` to a file at full speed. Returns `None` if ffmpeg is not
/// installed; the skip is printed.
///
/// # Errors
/// If it cannot be started.
pub fn encode_to_file(source: &Source, file: &Path) -> anyhow::Result<Option<Process>> {
    let Some(mut command) = ffmpeg_command() else { return Ok(None) };
    command.args(source.ffmpeg_arguments().iter().filter(|a| *a != "-re")).arg("-y").arg(file);
    Process::start(&mut command).map(Some)
}

/// Returns an ffmpeg command that prints only errors and has no inputs yet, or `None` if ffmpeg is
/// not installed; the skip is printed.
pub fn ffmpeg_command() -> Option<Command> {
    let mut command = Command::new(tools::find_program("ffmpeg")?);
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]);
    Some(command)
}
