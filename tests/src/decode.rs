//! Decodes files with ffmpeg: hashes of video frames, and the share of the test tone in the audio.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::publish::ffmpeg_command;

/// Returns the MD5 of each decoded frame, in presentation order.
///
/// # Errors
/// If ffmpeg is missing, fails or prints an error.
pub fn frame_hashes(file: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = ffmpeg_command().context("ffmpeg is missing")?;
    let command = command.arg("-i").arg(file).args(["-an", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && errors.is_empty(), "ffmpeg on {}: {errors}", file.display());
    let text = String::from_utf8(output.stdout)?;
    let hashes = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit(',').next());
    Ok(hashes.map(|h| h.trim().to_owned()).collect())
}

/// Duration of decoded audio, and the share of its energy at 440 Hz.
#[derive(Debug, Clone, Copy)]
pub struct Tone {
    /// Duration in seconds.
    pub duration_secs: f64,
    /// Share of the energy at 440 Hz, 0 to 1.
    pub energy_share: f64,
}

/// Decodes the audio of `file`, mixed to one channel, and measures the tone of the test source.
/// Skips the first tenth of a second, because a decoder starts with silence.
///
/// # Errors
/// If ffmpeg is missing, fails or prints an error.
pub fn measure_tone(file: &Path) -> anyhow::Result<Tone> {
    const RATE_HZ: u32 = 48_000;
    let mut command = ffmpeg_command().context("ffmpeg is missing")?;
    let command = command.arg("-i").arg(file).args(["-vn", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"]);
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && errors.is_empty(), "ffmpeg on {}: {errors}", file.display());
    let samples: Vec<f64> =
        output.stdout.chunks_exact(2).map(|b| f64::from(i16::from_le_bytes([b[0], b[1]]))).collect();
    let signal = samples.get(RATE_HZ as usize / 10..).unwrap_or_default();
    // Blocks of 100 ms, so that a phase jump between two packets does not cancel the tone
    // (Goertzel).
    let (mut tone, mut all) = (0.0, 0.0);
    for block in signal.chunks_exact(RATE_HZ as usize / 10) {
        let radians_per_sample = std::f64::consts::TAU * 440.0 / f64::from(RATE_HZ);
        let (re, im) = block.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, s)| {
            let angle = radians_per_sample * n as f64;
            (re + s * angle.cos(), im + s * angle.sin())
        });
        tone += 2.0 * (re * re + im * im) / block.len() as f64;
        all += block.iter().map(|s| s * s).sum::<f64>();
    }
    let energy_share = if all > 0.0 { tone / all } else { 0.0 };
    Ok(Tone { duration_secs: samples.len() as f64 / f64::from(RATE_HZ), energy_share })
}
