//! Decodes AAC-LC packets to interleaved stereo samples with `symphonia`.
//!
//! The input is untrusted bytes of a publisher. A panic of the decoder is caught and reported as
//! an undecodable packet.

use std::panic::{AssertUnwindSafe, catch_unwind};

use headwater_wire::Track;
use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

/// Why a track cannot be decoded, with the setting to change at the encoder.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnsupportedAac {
    /// The decoder supports mono and stereo only.
    #[error("the audio has {channels} channels; set the encoder to stereo")]
    Channels {
        /// Number of channels of the track.
        channels: u32,
    },
    /// The track has another object type, another frame length, or an invalid configuration.
    #[error("this kind of AAC cannot be decoded ({reason}); set the encoder to AAC-LC")]
    Kind {
        /// The decoder's message.
        reason: String,
    },
    /// No level of AAC has this sample rate.
    #[error("AAC at {sample_rate_hz} Hz cannot be decoded; set the encoder to 48,000 Hz")]
    SampleRate {
        /// Sample rate of the track.
        sample_rate_hz: u32,
    },
}

/// The decoder of one AAC-LC track.
pub(super) struct Decoder {
    inner: Box<dyn AudioDecoder>,
    scratch: Vec<f32>,
}

impl Decoder {
    /// Creates a decoder for a track whose `config` is an `AudioSpecificConfig`.
    ///
    /// # Errors
    /// Fails for anything but AAC-LC in mono or stereo, for example HE-AAC or 5.1.
    pub(super) fn new(track: &Track) -> Result<Self, UnsupportedAac> {
        let (channels, sample_rate_hz) = track.audio.map_or((0, 0), |audio| (audio.channels, audio.sample_rate_hz));
        if channels > MAX_CHANNELS {
            return Err(UnsupportedAac::Channels { channels });
        }
        if !SAMPLE_RATES_HZ.contains(&sample_rate_hz) {
            return Err(UnsupportedAac::SampleRate { sample_rate_hz });
        }
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(CODEC_ID_AAC).with_extra_data(track.config.to_vec().into_boxed_slice());
        let created = catch_unwind(AssertUnwindSafe(|| {
            symphonia::default::get_codecs().make_audio_decoder(&parameters, &AudioDecoderOptions::default())
        }));
        match created {
            Ok(Ok(inner)) => Ok(Self { inner, scratch: Vec::new() }),
            Ok(Err(e)) => Err(UnsupportedAac::Kind { reason: e.to_string() }),
            Err(_) => Err(UnsupportedAac::Kind { reason: "its header is invalid".to_owned() }),
        }
    }

    /// Decodes one access unit and appends interleaved stereo samples in the range -1..1. Returns
    /// false if the access unit could not be decoded.
    pub(super) fn decode(&mut self, access_unit: &[u8], out: &mut Vec<f32>) -> bool {
        let Self { inner, scratch } = self;
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let packet = PacketRef::new(0, Timestamp::new(0), Duration::new(0), access_unit);
            let buffer = inner.decode_ref(&packet).ok()?;
            buffer.copy_to_vec_interleaved(scratch);
            Some(buffer.num_planes())
        }));
        match decoded {
            Ok(Some(channels @ 1..)) => {
                out.extend(scratch.chunks_exact(channels).flat_map(to_stereo));
                true
            }
            Ok(_) => false,
            Err(_) => {
                let _ = catch_unwind(AssertUnwindSafe(|| inner.reset()));
                false
            }
        }
    }
}

/// Returns one sample per channel as stereo. The decoder returns one or two channels.
fn to_stereo(frame: &[f32]) -> [f32; 2] {
    match *frame {
        [mono] => [mono, mono],
        [left, right, ..] => [left, right],
        [] => [0.0, 0.0],
    }
}

/// Number of channels that `symphonia` decodes.
const MAX_CHANNELS: u32 = 2;
/// ISO/IEC 14496-3 table 1.18.
const SAMPLE_RATES_HZ: std::ops::RangeInclusive<u32> = 7_350..=96_000;
