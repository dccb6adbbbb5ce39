//! What a stranger's decoder makes of a file: hashes of pictures, and how much of the sound is the test tone.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::publish::ffmpeg_command;

/// An MD5 per decoded picture, in order of showing. Any complaint of the decoder is an error.
///
/// # Errors
/// If ffmpeg is missing or does not like the file.
pub fn pictures(file: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = ffmpeg_command().context("ffmpeg is missing")?;
    let command = command.arg("-i").arg(file).args(["-an", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let output = command.output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaints.is_empty(), "ffmpeg on {}: {complaints}", file.display());
    let text = String::from_utf8(output.stdout)?;
    let hashes = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit(',').next());
    Ok(hashes.map(|h| h.trim().to_owned()).collect())
}

/// Decoded sound: how long it is, and which share of its energy is at 440 Hz.
#[derive(Debug, Clone, Copy)]
pub struct Tone {
    /// Seconds.
    pub seconds: f64,
    /// 0 to 1.
    pub share: f64,
}

/// Decodes the sound of `file`, mixed to one channel, and looks for the tone of the test source. The first tenth of a second is
/// left out: a decoder begins with silence.
///
/// # Errors
/// If ffmpeg is missing or does not like the file.
pub fn tone(file: &Path) -> anyhow::Result<Tone> {
    const RATE_HZ: u32 = 48_000;
    let mut command = ffmpeg_command().context("ffmpeg is missing")?;
    let command = command.arg("-i").arg(file).args(["-vn", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"]);
    let output = command.output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaints.is_empty(), "ffmpeg on {}: {complaints}", file.display());
    let samples: Vec<f64> =
        output.stdout.chunks_exact(2).map(|b| f64::from(i16::from_le_bytes([b[0], b[1]]))).collect();
    let heard = samples.get(RATE_HZ as usize / 10..).unwrap_or_default();
    // In blocks of 100 ms, so that a seam between two of them does not cancel the tone (Goertzel's sum, written out).
    let (mut tone, mut all) = (0.0, 0.0);
    for block in heard.chunks_exact(RATE_HZ as usize / 10) {
        let turn = std::f64::consts::TAU * 440.0 / f64::from(RATE_HZ);
        let (re, im) = block.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, s)| {
            let angle = turn * n as f64;
            (re + s * angle.cos(), im + s * angle.sin())
        });
        tone += 2.0 * (re * re + im * im) / block.len() as f64;
        all += block.iter().map(|s| s * s).sum::<f64>();
    }
    let share = if all > 0.0 { tone / all } else { 0.0 };
    Ok(Tone { seconds: samples.len() as f64 / f64::from(RATE_HZ), share })
}
