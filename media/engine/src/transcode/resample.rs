//! Changes the sample rate of audio by a rational factor with a polyphase windowed-sinc filter.
//!
//! A plain value: samples in, samples out. The output never drifts: after n input samples, exactly
//! floor((n - delay) x out / in) samples were produced, where delay is half the filter length.

/// A resampler for interleaved audio.
#[derive(Debug, Clone)]
pub(super) struct Resampler {
    /// Output rate over the common divisor; also the number of phases.
    up: usize,
    /// Input rate over the common divisor.
    down: usize,
    channels: usize,
    taps: usize,
    /// `up` filters of `taps` coefficients, each once per channel; coefficient k is applied to the
    /// k-th oldest input sample.
    filters: Vec<f32>,
    /// Interleaved input frames not yet consumed, beginning with the filter's history.
    pending: Vec<f32>,
    /// Position of the next output after the front of `pending`, in 1/up input frames.
    phase: usize,
}

impl Resampler {
    /// Creates a resampler from `from_hz` to `to_hz`, both above 0, for 1 or 2 interleaved
    /// `channels`.
    pub(super) fn new(from_hz: u32, to_hz: u32, channels: usize) -> Self {
        let divisor = gcd(from_hz, to_hz);
        let (up, down) = ((to_hz / divisor) as usize, (from_hz / divisor) as usize);
        // For downsampling, the filter must be longer by the ratio to cut off below the lower of
        // the two Nyquist rates.
        let taps = (HALF_TAPS * down.div_ceil(up)).max(HALF_TAPS) * 2;
        let filters = if up == down { Vec::new() } else { design(up, down, taps) };
        let filters = filters.into_iter().flat_map(|c| std::iter::repeat_n(c, channels)).collect();
        let pending = if up == down { Vec::new() } else { vec![0.0; (taps / 2) * channels] };
        Self { up, down, channels, taps, filters, pending, phase: 0 }
    }

    /// Consumes interleaved samples and appends the resampled ones, also interleaved.
    pub(super) fn push(&mut self, input: &[f32], out: &mut Vec<f32>) {
        if self.up == self.down {
            out.extend_from_slice(input);
            return;
        }
        self.pending.extend_from_slice(input);
        let frames = self.pending.len() / self.channels;
        let mut front = self.phase / self.up;
        while front + self.taps <= frames {
            let width = self.taps * self.channels;
            let filter = &self.filters[(self.phase % self.up) * width..][..width];
            let sums = products(filter, &self.pending[front * self.channels..][..width]);
            out.extend((0..self.channels).map(|channel| sums[channel..].iter().step_by(self.channels).sum::<f32>()));
            self.phase += self.down;
            front = self.phase / self.up;
        }
        let passed = front.min(frames);
        self.pending.drain(..passed * self.channels);
        self.phase -= passed * self.up;
    }

    /// Discards all input so far, as after a gap.
    pub(super) fn reset(&mut self) {
        self.pending.clear();
        self.phase = 0;
        if self.up != self.down {
            self.pending.resize((self.taps / 2) * self.channels, 0.0);
        }
    }
}

/// Returns the sum of products as [`LANES`] independent partial sums, which the compiler
/// vectorizes; it must not reorder a single sum. Both inputs have the same length, a
/// multiple of `LANES`.
fn products(filter: &[f32], window: &[f32]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for (filter, window) in filter.as_chunks::<LANES>().0.iter().zip(window.as_chunks::<LANES>().0) {
        for ((sum, f), s) in sums.iter_mut().zip(filter).zip(window) {
            *sum += f * s;
        }
    }
    sums
}

/// Designs a low-pass filter at 0.92 of the lower Nyquist rate, split into `up` phases
/// of `taps` coefficients.
fn design(up: usize, down: usize, taps: usize) -> Vec<f32> {
    let cutoff = 0.92 * (up as f64 / down as f64).min(1.0);
    let centre = taps as f64 / 2.0;
    let mut filters = Vec::with_capacity(up * taps);
    for phase in 0..up {
        let offset = phase as f64 / up as f64;
        let ideal: Vec<f64> = (0..taps)
            .map(|k| {
                let t = k as f64 - centre - offset + 1.0;
                cutoff * sinc(cutoff * t) * kaiser(t / centre)
            })
            .collect();
        // Every phase must pass a constant unchanged; otherwise the phase would modulate a tone.
        let sum: f64 = ideal.iter().sum();
        filters.extend(ideal.iter().map(|c| (c / sum) as f32));
    }
    filters
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) }
}

/// Kaiser window with beta 8 (side lobes below -80 dB), 0 outside -1..1.
fn kaiser(x: f64) -> f64 {
    const BETA: f64 = 8.0;
    if x.abs() >= 1.0 { 0.0 } else { bessel_i0(BETA * (1.0 - x * x).sqrt()) / bessel_i0(BETA) }
}

fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..40 {
        term *= quarter / f64::from(k * k);
        sum += term;
    }
    sum
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Half the filter length in input samples at equal rates: 80 dB with a transition band of about 2
/// kHz at 48 kHz.
const HALF_TAPS: usize = 32;
/// Number of partial sums; channels alternate in them.
const LANES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, rate: u32, frames: usize) -> Vec<f32> {
        (0..frames).map(|n| (std::f64::consts::TAU * hz * n as f64 / f64::from(rate)).sin() as f32).collect()
    }

    fn run(from: u32, to: u32, input: &[f32], piece: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(from, to, 1);
        let mut out = Vec::new();
        input.chunks(piece).for_each(|chunk| resampler.push(chunk, &mut out));
        out
    }

    /// Returns the amplitude of one frequency in the middle half of a signal.
    fn amplitude(signal: &[f32], hz: f64, rate: u32) -> f64 {
        let middle = &signal[signal.len() / 4..signal.len() * 3 / 4];
        let (mut re, mut im) = (0.0, 0.0);
        for (n, s) in middle.iter().enumerate() {
            let angle = std::f64::consts::TAU * hz * n as f64 / f64::from(rate);
            re += f64::from(*s) * angle.cos();
            im += f64::from(*s) * angle.sin();
        }
        2.0 * re.hypot(im) / middle.len() as f64
    }

    #[test]
    fn tones_keep_their_frequency_and_level_at_every_aac_rate() {
        for from in [7_350, 8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 64_000, 88_200, 96_000] {
            for hz in [100.0, 1_000.0, 3_000.0] {
                let out = run(from, 48_000, &tone(hz, from, from as usize), 1024);
                let level = amplitude(&out, hz, 48_000);
                assert!((level - 1.0).abs() < 0.02, "{hz} Hz from {from}: level {level}");
            }
        }
    }

    #[test]
    fn frequencies_above_the_lower_nyquist_rate_are_removed() {
        let out = run(96_000, 48_000, &tone(30_000.0, 96_000, 96_000), 1024);
        let loudest = out[2_000..].iter().fold(0.0_f32, |max, s| max.max(s.abs()));
        assert!(loudest < 1e-3, "alias at {loudest}");
    }

    #[test]
    fn ten_minutes_of_audio_do_not_drift_by_a_sample() {
        let mut resampler = Resampler::new(44_100, 48_000, 1);
        let mut out = Vec::new();
        let (piece, mut total) = (vec![0.0; 44_100], 0);
        for _ in 0..600 {
            out.clear();
            resampler.push(&piece, &mut out);
            total += out.len();
        }
        let due = 600 * 48_000;
        assert!((due - 64..=due).contains(&total), "{total} samples instead of {due}");
    }

    #[test]
    fn output_does_not_depend_on_the_input_chunk_size() {
        let input = tone(440.0, 44_100, 10_000);
        assert_eq!(run(44_100, 48_000, &input, 10_000), run(44_100, 48_000, &input, 7));
    }
}
