//! RTCP: parses the feedback of viewers (NACK and PLI of RFC 4585, FIR of RFC 5104, receiver
//! reports and BYE of RFC 3550), and writes sender reports and BYE.

use bytes::{Bytes, BytesMut};
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::packet::{Packet, marshal, unmarshal};
use rtc_rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::receiver_report::ReceiverReport;
use rtc_rtcp::sender_report::SenderReport as Report;
use rtc_rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
use rtc_rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;

/// Maximum number of sequence numbers taken from one NACK. A viewer that lost more packets needs a
/// key frame, not retransmissions.
const MAX_NACK_PACKETS: usize = 256;

/// One item of feedback from a viewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feedback {
    /// Reports lost packets (RFC 4585 §6.2.1).
    Nack {
        /// SSRC of the track.
        ssrc: u32,
        /// Sequence numbers of the lost packets; at most 256.
        sequence_numbers: Vec<u16>,
    },
    /// Requests a key frame (PLI of RFC 4585 §6.3.1, FIR of RFC 5104 §4.3.1).
    KeyFrame {
        /// SSRC of the track.
        ssrc: u32,
    },
    /// Reports reception quality (RFC 3550 §6.4.2).
    Report {
        /// SSRC of the track.
        ssrc: u32,
        /// Fraction of packets lost since the last report, in 1/256.
        fraction_lost: u8,
        /// Interarrival jitter, in ticks of the track's RTP clock.
        jitter: u32,
    },
    /// The viewer leaves the session (RFC 3550 §6.6).
    Bye,
}

impl Feedback {
    /// Parses a decrypted compound packet. Returns `None` if it is malformed; unknown packet types
    /// are skipped.
    pub fn parse(packet: &[u8]) -> Option<Vec<Self>> {
        let mut rest = BytesMut::from(packet);
        let packets = unmarshal(&mut rest).ok()?;
        let mut out = Vec::new();
        for packet in packets {
            let packet = packet.as_any();
            if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
                let numbers = nack.nacks.iter().flat_map(|pair| {
                    let lost = pair.lost_packets;
                    let id = pair.packet_id;
                    std::iter::once(id)
                        .chain((0..16).filter(move |bit| lost >> bit & 1 == 1).map(move |bit| id.wrapping_add(bit + 1)))
                });
                out.push(Self::Nack {
                    ssrc: nack.media_ssrc,
                    sequence_numbers: numbers.take(MAX_NACK_PACKETS).collect(),
                });
            } else if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
                out.push(Self::KeyFrame { ssrc: pli.media_ssrc });
            } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
                out.extend(fir.fir.iter().map(|entry| Self::KeyFrame { ssrc: entry.ssrc }));
            } else if let Some(report) = packet.downcast_ref::<ReceiverReport>() {
                out.extend(report.reports.iter().map(|r| Self::Report {
                    ssrc: r.ssrc,
                    fraction_lost: r.fraction_lost,
                    jitter: r.jitter,
                }));
            } else if packet.is::<Goodbye>() {
                out.push(Self::Bye);
            }
        }
        Some(out)
    }
}

/// A sender report of one track (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// SSRC of the track.
    pub ssrc: u32,
    /// Wall-clock time in seconds since 1900, as 32.32 fixed point.
    pub ntp: u64,
    /// The same time on the RTP clock of the track.
    pub rtp_timestamp: u32,
    /// Number of packets sent, modulo 2^32.
    pub packets: u32,
    /// Number of payload bytes sent, modulo 2^32.
    pub payload_bytes: u32,
}

impl SenderReport {
    /// Returns a compound packet of this report and the canonical name. Both tracks of a stream
    /// have the same name, which lets the viewer synchronize audio and video.
    pub fn encode(&self, cname: &str) -> Bytes {
        let report = Report {
            ssrc: self.ssrc,
            ntp_time: self.ntp,
            rtp_time: self.rtp_timestamp,
            packet_count: self.packets,
            octet_count: self.payload_bytes,
            ..Report::default()
        };
        let item =
            SourceDescriptionItem { sdes_type: SdesType::SdesCname, text: Bytes::copy_from_slice(cname.as_bytes()) };
        let name = SourceDescription { chunks: vec![SourceDescriptionChunk { source: self.ssrc, items: vec![item] }] };
        encode(&[Box::new(report), Box::new(name)])
    }
}

/// Returns a compound packet that ends a track: BYE after an empty receiver report, because every
/// compound packet must begin with a report (RFC 3550 §6.1).
pub fn goodbye(ssrc: u32) -> Bytes {
    let report = ReceiverReport { ssrc, ..ReceiverReport::default() };
    encode(&[Box::new(report), Box::new(Goodbye { sources: vec![ssrc], reason: Bytes::new() })])
}

fn encode(packets: &[Box<dyn Packet>]) -> Bytes {
    // Fails only for more sources or longer names than are used here.
    marshal(packets).map(BytesMut::freeze).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RR of one block, NACK of 1000 and 1002, PLI; hand-built.
    const COMPOUND: [u8; 60] = [
        0x81, 201, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 25, 0, 0, 3, 0, 0, 0x12, 0x34, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0,
        0, //
        0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0x03, 0xe8, 0x00, 0x02, //
        0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2,
    ];

    #[test]
    fn compound_packet_is_parsed_in_order() {
        assert_eq!(
            Feedback::parse(&COMPOUND).unwrap(),
            [
                Feedback::Report { ssrc: 2, fraction_lost: 25, jitter: 77 },
                Feedback::Nack { ssrc: 2, sequence_numbers: vec![1_000, 1_002] },
                Feedback::KeyFrame { ssrc: 2 },
            ]
        );
    }

    #[test]
    fn nack_of_thousands_of_packets_is_truncated() {
        let mut nack = vec![0x81, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
        for id in 0..200_u16 {
            nack.extend_from_slice(&(id * 17).to_be_bytes());
            nack.extend_from_slice(&[0xff, 0xff]);
        }
        let words = (nack.len() / 4 - 1) as u16;
        nack[2..4].copy_from_slice(&words.to_be_bytes());
        let Feedback::Nack { sequence_numbers, .. } = &Feedback::parse(&nack).unwrap()[0] else { panic!("no NACK") };
        assert_eq!(sequence_numbers.len(), MAX_NACK_PACKETS);
    }

    #[test]
    fn encoded_report_and_goodbye_are_parsed() {
        let report = SenderReport { ssrc: 9, ntp: 1 << 40, rtp_timestamp: 5, packets: 6, payload_bytes: 7 };
        let bytes = report.encode("headwater");
        assert_eq!((bytes[1], bytes.len() % 4), (200, 0));
        assert_eq!(Feedback::parse(&bytes), Some(vec![]));
        assert_eq!(Feedback::parse(&goodbye(9)), Some(vec![Feedback::Bye]));
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_panics() {
        for end in 0..COMPOUND.len() {
            let _ = Feedback::parse(&COMPOUND[..end]);
        }
        for i in 0..COMPOUND.len() {
            for bit in 0..8 {
                let mut bytes = COMPOUND;
                bytes[i] ^= 1 << bit;
                let _ = Feedback::parse(&bytes);
            }
        }
    }
}
