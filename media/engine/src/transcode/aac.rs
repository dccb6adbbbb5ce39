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

/// Why a track cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("this kind of AAC cannot be decoded: {0}")]
pub(super) struct UnsupportedAac(String);

/// The decoder of one AAC-LC track.
pub(super) struct Decoder {
    inner: Box<dyn AudioDecoder>,
    scratch: Vec<f32>,
}

impl Decoder {
    /// Creates a decoder for a track whose `config` is an `AudioSpecificConfig`.
    ///
    /// # Errors
    /// Fails for anything but AAC-LC with up to 8 channels, for example HE-AAC.
    pub(super) fn new(track: &Track) -> Result<Self, UnsupportedAac> {
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(CODEC_ID_AAC).with_extra_data(track.config.to_vec().into_boxed_slice());
        let created = catch_unwind(AssertUnwindSafe(|| {
            symphonia::default::get_codecs().make_audio_decoder(&parameters, &AudioDecoderOptions::default())
        }));
        match created {
            Ok(Ok(inner)) => Ok(Self { inner, scratch: Vec::new() }),
            Ok(Err(e)) => Err(UnsupportedAac(e.to_string())),
            Err(_) => Err(UnsupportedAac("its header is invalid".to_owned())),
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
                out.extend(scratch.chunks_exact(channels).flat_map(downmix));
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

/// Mixes one sample per channel down to stereo (ITU-R BS.775: centre and surround at -3 dB, no
/// low-frequency channel). AAC's channel order is centre, left, right, surround; `symphonia`
/// returns left, right, centre, low-frequency, surround.
fn downmix(frame: &[f32]) -> [f32; 2] {
    const MINUS_3_DB: f32 = std::f32::consts::FRAC_1_SQRT_2;
    match *frame {
        [mono] => [mono, mono],
        [left, right] => [left, right],
        [left, right, centre] => {
            [left + centre * MINUS_3_DB, right + centre * MINUS_3_DB].map(|s| s / (1.0 + MINUS_3_DB))
        }
        [left, right, centre, .., back_left, back_right] => {
            let mix = |front: f32, back: f32| (front + (centre + back) * MINUS_3_DB) / (1.0 + 2.0 * MINUS_3_DB);
            [mix(left, back_left), mix(right, back_right)]
        }
        [left, right, ..] => [left, right],
        [] => [0.0, 0.0],
    }
}
