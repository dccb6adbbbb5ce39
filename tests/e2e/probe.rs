//! Decodes a URL with ffprobe and ffmpeg, as independent clients.

use std::process::Command;

use anyhow::Context as _;
use headwater_tests::process::Process;
use headwater_tests::publish::ffmpeg_command;
use headwater_tests::wait::WAIT_TIMEOUT;

/// Decodes `seconds` of `input`; returns the number of frames and the mean volume of the 440 Hz
/// band in dB.
pub(crate) fn decode(input: &str, seconds: u32) -> anyhow::Result<(usize, f64)> {
    let mut command = ffmpeg_command().context("ffmpeg is missing")?;
    command.args(["-loglevel", "info", "-xerror", "-i", input, "-t", &seconds.to_string()]);
    command.args(["-map", "0:v:0", "-map", "0:a:0", "-vf", "showinfo"]);
    command.args(["-af", "bandpass=f=440:width_type=h:w=40,volumedetect", "-f", "null", "-"]);
    let player = Process::start(&mut command)?;
    let exit = player.wait_exit(2 * WAIT_TIMEOUT)?;
    let lines = player.lines();
    anyhow::ensure!(exit.success(), "{input}: {exit}: {lines:?}");
    let frames = lines.iter().filter(|l| l.contains("Parsed_showinfo") && l.contains(" pts_time:")).count();
    let volume = lines.iter().find_map(|l| l.split_once("mean_volume: ")).context("no audio")?.1;
    Ok((frames, volume.trim_end_matches(" dB").parse()?))
}

/// Codec name and type of each track according to ffprobe, as `aac,audio`, sorted.
pub(crate) fn codecs(input: &str) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "stream=codec_name,codec_type", "-of", "csv=p=0", input]);
    let probe = Process::start(&mut command)?;
    let exit = probe.wait_exit(WAIT_TIMEOUT)?;
    anyhow::ensure!(exit.success(), "{input}: {:?}", probe.lines());
    let mut lines: Vec<_> = probe.lines().into_iter().filter(|l| l.contains(',')).collect();
    lines.sort();
    lines.dedup();
    Ok(lines)
}
