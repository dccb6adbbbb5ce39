//! AAC: `AudioSpecificConfig` (ISO/IEC 14496-3 §1.6.2.1) and ADTS headers (ISO/IEC 13818-7 §6.2).

use bytes::Bytes;

use super::CodecError;
use super::bits::Bits;
use crate::{AudioTrack, Codec, Track};

/// The decoder configuration of an AAC track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Audio object type as signalled: 2 is AAC-LC, 5 HE-AAC (SBR), 29 HE-AAC v2 (PS).
    pub object_type: u8,
    /// Sample rate of the core coder; [`Self::samples_per_frame`] counts samples of this rate. With
    /// SBR, the output rate of the decoder is higher, usually twice as high.
    pub sample_rate_hz: u32,
    /// Sample rate after SBR, if SBR is signalled.
    pub extension_sample_rate_hz: Option<u32>,
    /// `channelConfiguration`: 1 to 7, or 0 if the stream itself defines the channels.
    pub channel_configuration: u8,
    /// Samples per channel in one access unit: 1024, or 960 if `frameLengthFlag` is set.
    pub samples_per_frame: u32,
}

impl AudioSpecificConfig {
    /// Parses an `AudioSpecificConfig`.
    ///
    /// # Errors
    /// If it is truncated, or has a reserved or zero sample rate or a reserved channel
    /// configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut bits = Bits::new(bytes);
        let object_type = object_type(&mut bits)?;
        let mut sample_rate_hz = rate(&mut bits)?;
        let channel_configuration = bits.read(4).ok_or(SHORT)? as u8;
        if channel_configuration > 7 {
            let value = u32::from(channel_configuration);
            return Err(CodecError::Value { what: WHAT, field: "channel configuration", value });
        }
        let mut extension_sample_rate_hz = None;
        let mut core = object_type;
        if matches!(object_type, 5 | 29) {
            extension_sample_rate_hz = Some(rate(&mut bits)?);
            core = self::object_type(&mut bits)?;
        }
        // GASpecificConfig begins with frameLengthFlag; a missing one is treated as zero.
        let short_frames = matches!(core, 1..=4 | 6 | 7) && bits.flag().unwrap_or(false);
        if sample_rate_hz == 0 {
            return Err(CodecError::Value { what: WHAT, field: "sample rate", value: 0 });
        }
        // The escape form can hold any 24-bit rate; no AAC level exceeds 96 kHz.
        sample_rate_hz = sample_rate_hz.min(MAX_RATE_HZ);
        let samples_per_frame = if short_frames { 960 } else { 1024 };
        Ok(Self { object_type, sample_rate_hz, extension_sample_rate_hz, channel_configuration, samples_per_frame })
    }

    /// Returns the number of channels; 2 if only the stream itself defines it.
    pub fn channels(&self) -> u32 {
        match self.channel_configuration {
            0 => 2,
            7 => 8,
            n => u32::from(n),
        }
    }

    /// Returns the RFC 6381 codec string, such as `mp4a.40.2`.
    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }

    /// Returns a two-byte AAC-LC configuration, or `None` if the sample rate has no index.
    pub fn encode_lc(sample_rate_hz: u32, channel_configuration: u8) -> Option<[u8; 2]> {
        let index = RATES_HZ.iter().position(|&r| r == sample_rate_hz)? as u8;
        Some([2 << 3 | index >> 1, index << 7 | (channel_configuration & 15) << 3])
    }
}

/// Creates a track from an `AudioSpecificConfig`.
///
/// # Errors
/// See [`AudioSpecificConfig::parse`].
pub fn track(config: Bytes) -> Result<Track, CodecError> {
    let asc = AudioSpecificConfig::parse(&config)?;
    Ok(Track {
        codec: Codec::Aac,
        config,
        codec_string: Some(asc.codec_string()),
        video: None,
        audio: Some(AudioTrack {
            sample_rate_hz: asc.sample_rate_hz,
            channels: asc.channels(),
            samples_per_frame: asc.samples_per_frame,
        }),
    })
}

/// The fields of an ADTS header that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adts {
    /// Audio object type: 1 to 4.
    pub object_type: u8,
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// `channel_configuration`.
    pub channel_configuration: u8,
    /// Length of the header: 7 bytes, or 9 with a CRC.
    pub header_bytes: usize,
    /// Length of header and access unit together; never less than `header_bytes`.
    pub frame_bytes: usize,
    /// Access units in the frame: 1 to 4.
    pub access_units: u8,
}

impl Adts {
    /// Parses the header at the start of `bytes`.
    ///
    /// # Errors
    /// If it is truncated, has no sync word, has a reserved sample rate, or is longer than its
    /// frame.
    pub fn parse(bytes: &[u8]) -> Result<Self, CodecError> {
        let head = bytes.first_chunk::<7>().ok_or(CodecError::Short { what: ADTS })?;
        let wrong = |field, value| CodecError::Value { what: ADTS, field, value };
        let sync = u32::from(head[0]) << 4 | u32::from(head[1] >> 4);
        // The layer bits, always zero, distinguish it from MPEG-1 audio.
        if sync != 0xfff || head[1] & 6 != 0 {
            return Err(wrong("sync word", sync));
        }
        let header_bytes = if head[1] & 1 == 1 { 7 } else { 9 };
        let index = head[2] >> 2 & 15;
        let sample_rate_hz =
            *RATES_HZ.get(usize::from(index)).ok_or_else(|| wrong("sample rate index", u32::from(index)))?;
        let channel_configuration = (head[2] & 1) << 2 | head[3] >> 6;
        let frame_bytes = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
        if frame_bytes < header_bytes {
            return Err(wrong("frame length", frame_bytes as u32));
        }
        let (object_type, access_units) = ((head[2] >> 6) + 1, (head[6] & 3) + 1);
        Ok(Self { object_type, sample_rate_hz, channel_configuration, header_bytes, frame_bytes, access_units })
    }

    /// Returns the `AudioSpecificConfig` with the values of this header.
    pub fn audio_specific_config(&self) -> [u8; 2] {
        let index = RATES_HZ.iter().position(|&r| r == self.sample_rate_hz).unwrap_or_default() as u8;
        [self.object_type << 3 | index >> 1, index << 7 | (self.channel_configuration & 15) << 3]
    }

    /// Returns the 7-byte header (no CRC) for an access unit, or `None` if ADTS cannot represent
    /// the sample rate, the object type or the length.
    pub fn encode(config: &AudioSpecificConfig, access_unit_bytes: usize) -> Option<[u8; 7]> {
        let index = RATES_HZ.iter().position(|&r| r == config.sample_rate_hz)? as u8;
        let object = if matches!(config.object_type, 5 | 29) { 2 } else { config.object_type };
        let profile = object.checked_sub(1).filter(|&p| p < 4)?;
        let len = u16::try_from(access_unit_bytes + 7).ok().filter(|&len| len < 1 << 13)?;
        let channels = config.channel_configuration;
        Some([
            0xff,
            0xf1,
            profile << 6 | index << 2 | channels >> 2 & 1,
            (channels & 3) << 6 | (len >> 11) as u8,
            (len >> 3) as u8,
            (len as u8 & 7) << 5 | 0x1f,
            0xfc,
        ])
    }
}

fn object_type(bits: &mut Bits<'_>) -> Result<u8, CodecError> {
    match bits.read(5).ok_or(SHORT)? {
        31 => Ok(32 + bits.read(6).ok_or(SHORT)? as u8),
        0 => Err(CodecError::Value { what: WHAT, field: "object type", value: 0 }),
        n => Ok(n as u8),
    }
}

fn rate(bits: &mut Bits<'_>) -> Result<u32, CodecError> {
    match bits.read(4).ok_or(SHORT)? {
        15 => bits.read(24).ok_or(SHORT),
        index => {
            let unknown = CodecError::Value { what: WHAT, field: "sample rate index", value: index };
            RATES_HZ.get(index as usize).copied().ok_or(unknown)
        }
    }
}

/// ISO/IEC 14496-3 table 1.18.
const RATES_HZ: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
const MAX_RATE_HZ: u32 = 96_000;
const WHAT: &str = "AudioSpecificConfig";
const ADTS: &str = "ADTS header";
const SHORT: CodecError = CodecError::Short { what: WHAT };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_of_common_encoders_are_parsed() {
        let check = |bytes: &[u8], expect: (u8, u32, u32, u32)| {
            let asc = AudioSpecificConfig::parse(bytes).unwrap();
            let got = (asc.object_type, asc.sample_rate_hz, asc.channels(), asc.samples_per_frame);
            assert_eq!(got, expect, "{bytes:02x?}");
        };
        check(&[0x12, 0x10], (2, 44_100, 2, 1024)); // ffmpeg, OBS
        check(&[0x11, 0x90, 0x56, 0xe5, 0x00], (2, 48_000, 2, 1024)); // followed by an extension that rules out SBR
        check(&[0x2b, 0x92, 0x08, 0x00], (5, 22_050, 2, 1024)); // HE-AAC, 44.1 kHz after SBR
        check(&[0x12, 0x14], (2, 44_100, 2, 960));
        check(&[0x17, 0x80, 0x5d, 0xc0, 0x08], (2, 48_000, 1, 1024)); // escaped rate
    }

    #[test]
    fn reserved_values_are_refused() {
        for bytes in [&[0x17, 0x80, 0, 0, 0x08][..], &[0x16, 0x90], &[0x11, 0xc8], &[0x00, 0x10]] {
            assert!(matches!(AudioSpecificConfig::parse(bytes), Err(CodecError::Value { .. })), "{bytes:02x?}");
        }
    }

    #[test]
    fn encoded_configuration_round_trips() {
        let bytes = AudioSpecificConfig::encode_lc(48_000, 2).unwrap();
        let asc = AudioSpecificConfig::parse(&bytes).unwrap();
        assert_eq!((asc.sample_rate_hz, asc.channel_configuration, asc.object_type), (48_000, 2, 2));
        assert_eq!(AudioSpecificConfig::encode_lc(47_999, 2), None);
    }

    #[test]
    fn adts_header_round_trips() {
        let asc = AudioSpecificConfig::parse(&[0x11, 0x90]).unwrap();
        let head = Adts::encode(&asc, 371).unwrap();
        let adts = Adts::parse(&head).unwrap();
        assert_eq!((adts.header_bytes, adts.frame_bytes, adts.sample_rate_hz), (7, 378, 48_000));
        assert_eq!((adts.object_type, adts.channel_configuration, adts.access_units), (2, 2, 1));
        assert_eq!(adts.audio_specific_config(), [0x11, 0x90]);
        assert_eq!(Adts::encode(&asc, 8_192), None);
    }
}
