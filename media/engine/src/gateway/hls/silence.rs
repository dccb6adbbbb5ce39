//! Encoded silence: one audio packet that a decoder of a given track turns into zeros. Bytes only;
//! knows nothing of time.

use bytes::Bytes;
use headwater_wire::codec::aac::AudioSpecificConfig;
use headwater_wire::{Codec, MediaTime, Track};

/// A silent packet of an audio track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SilentPacket {
    pub(super) payload: Bytes,
    pub(super) duration: MediaTime,
}

impl SilentPacket {
    /// The silent packet for the decoder of `track`. `None` if there is none: video, AAC other than
    /// LC and HE, and channel layouts that the packets themselves define.
    pub(super) fn of(track: &Track) -> Option<Self> {
        match track.codec {
            Codec::Aac => {
                let config = AudioSpecificConfig::parse(&track.config).ok()?;
                let is_lc = matches!(config.object_type, AAC_LC | HE_AAC | HE_AAC_V2);
                let elements = AAC_ELEMENTS.get(usize::from(config.channel_configuration))?;
                if !is_lc || elements.is_empty() {
                    return None;
                }
                let duration = MediaTime::from_ticks(i64::from(config.samples_per_frame), config.sample_rate_hz);
                Some(Self { payload: silent_aac(elements), duration })
            }
            Codec::Opus => {
                let toc = match track.audio?.channels {
                    1 => OPUS_TOC,
                    2 => OPUS_TOC | OPUS_STEREO,
                    _ => return None,
                };
                let payload = Bytes::copy_from_slice(&[toc, 0xff, 0xfe]);
                Some(Self { payload, duration: MediaTime::from_ms(20) })
            }
            Codec::H264 | Codec::H265 | Codec::Av1 => None,
        }
    }
}

/// A syntactic element of an AAC access unit (ISO/IEC 14496-3 table 4.3), with its `id_syn_ele`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    /// One channel.
    Single = 0,
    /// Two channels with common window parameters.
    Pair = 1,
    /// The low-frequency channel.
    Lfe = 3,
}

/// A `raw_data_block` (ISO/IEC 14496-3 table 4.3) whose channels have no spectrum: `max_sfb` is 0.
///
/// | element | bits |
/// | --- | --- |
/// | single, LFE | id 3, tag 4, gain 8, `ics_info` 11, no pulse, TNS or gain control: 3 |
/// | pair | id 3, tag 4, common window 1, `ics_info` 11, no mid/side 2, two times gain 8 and 3 |
/// | end | id 3 (`ID_END`, 7), then zeros up to the next byte |
fn silent_aac(elements: &[Element]) -> Bytes {
    let mut bits = BitWriter::default();
    for (at, element) in elements.iter().enumerate() {
        // Elements of the same kind are numbered.
        let tag = elements[..at].iter().filter(|e| *e == element).count() as u32;
        bits.write(*element as u32, 3);
        bits.write(tag, 4);
        match element {
            Element::Pair => {
                bits.write(1, 1);
                bits.write(0, ICS_INFO_BITS + 2 + 2 * (8 + 3));
            }
            Element::Single | Element::Lfe => bits.write(0, 8 + ICS_INFO_BITS + 3),
        }
    }
    bits.write(7, 3);
    bits.bytes.into()
}

/// Writes bits, most significant first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    fn write(&mut self, value: u32, count: u32) {
        for at in (0..count).rev() {
            // Only the upper bits of a long field of zeros are beyond the width of `value`.
            let bit = value.checked_shr(at).unwrap_or(0) & 1;
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= (bit << (7 - self.used % 8)) as u8;
            }
            self.used += 1;
        }
    }
}

/// `ics_info` of a long window: reserved 1, sequence 2, shape 1, `max_sfb` 6, no prediction 1.
const ICS_INFO_BITS: u32 = 11;
/// Audio object types (ISO/IEC 14496-3 table 1.17). A decoder of HE-AAC needs no extension data.
const AAC_LC: u8 = 2;
const HE_AAC: u8 = 5;
const HE_AAC_V2: u8 = 29;
/// The elements of each `channelConfiguration` (ISO/IEC 14496-3 table 1.19).
const AAC_ELEMENTS: [&[Element]; 8] = {
    use Element::{Lfe, Pair, Single};
    [
        &[],
        &[Single],
        &[Pair],
        &[Single, Pair],
        &[Single, Pair, Single],
        &[Single, Pair, Pair],
        &[Single, Pair, Pair, Lfe],
        &[Single, Pair, Pair, Pair, Lfe],
    ]
};
/// One CELT frame of 20 ms, fullband, mono (RFC 6716 §3.1).
const OPUS_TOC: u8 = 31 << 3;
const OPUS_STEREO: u8 = 1 << 2;

#[cfg(test)]
mod tests {
    use headwater_wire::codec::{aac, opus};

    use super::*;

    fn silent(config: &'static [u8]) -> Option<SilentPacket> {
        SilentPacket::of(&aac::track(Bytes::from_static(config)).unwrap())
    }

    /// The expected bytes were decoded to zeros with ffmpeg 7.1, as ADTS.
    #[test]
    fn silent_aac_has_the_elements_of_its_channel_configuration() {
        for (channels, expected) in [
            (1, "00000007"),
            (2, "21000000001c"),
            (3, "000000010800000000e0"),
            (4, "00000001080000000002000007"),
            (5, "00000001080000000023000000001c"),
            (6, "00000001080000000023000000000c000000e0"),
            (7, "000000010800000000230000000004a0000000018000001c"),
        ] {
            let config = AudioSpecificConfig::encode_lc(48_000, channels).unwrap();
            let track = aac::track(Bytes::copy_from_slice(&config)).unwrap();
            let packet = SilentPacket::of(&track).unwrap();
            let hex: String = packet.payload.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((hex.as_str(), packet.duration.to_ticks(48_000)), (expected, 1_024), "{channels}");
        }
    }

    #[test]
    fn silent_opus_packet_lasts_20_ms() {
        let packet = SilentPacket::of(&opus::track(opus::head(2, 0)).unwrap()).unwrap();
        assert_eq!(opus::packet_samples(&packet.payload), Some(960));
        assert_eq!(packet.payload[..], [0xfc, 0xff, 0xfe]);
    }

    #[test]
    fn tracks_with_another_syntax_have_no_silent_packet() {
        // Channels defined in the stream; AAC-LD (object type 23).
        assert_eq!(silent(&[0x11, 0x80]), None);
        assert_eq!(silent(&[0xb9, 0x90]), None);
    }
}
