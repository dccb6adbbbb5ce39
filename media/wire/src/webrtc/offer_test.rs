//! Tests with the offers of real clients, and with invalid offers.

use super::super::{Answer, Credentials, SendParameters};
use super::*;

const FINGERPRINT: &str =
    "sha-256 0F:74:31:25:CB:A2:13:EC:28:6F:6D:2C:61:FF:5D:C2:BC:B9:DB:3D:98:14:8D:1A:BB:EA:33:0C:A4:60:A8:8E";

/// Chromium 156, `createOffer` of two recvonly transceivers, reduced to the relevant payload types.
fn chromium() -> String {
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:4ZcD\r\n\
         a=ice-pwd:2/1muCWoOi3uLifh0NuRHlzb\r\na=ice-options:trickle\r\na=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\n\
         a=mid:0\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
         a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 107 108 109 114 115 116\r\nc=IN IP4 0.0.0.0\r\n\
         a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlzb\r\na=ice-options:trickle\r\n\
         a=fingerprint:{FINGERPRINT}\r\na=setup:actpass\r\na=mid:1\r\na=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
         a=rtpmap:103 H264/90000\r\na=rtcp-fb:103 goog-remb\r\na=rtcp-fb:103 transport-cc\r\na=rtcp-fb:103 ccm fir\r\n\
         a=rtcp-fb:103 nack\r\na=rtcp-fb:103 nack pli\r\n\
         a=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
         a=rtpmap:104 rtx/90000\r\na=fmtp:104 apt=103\r\na=rtpmap:107 H264/90000\r\na=rtcp-fb:107 nack\r\n\
         a=fmtp:107 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f\r\n\
         a=rtpmap:108 H264/90000\r\na=rtcp-fb:108 nack\r\na=rtcp-fb:108 nack pli\r\n\
         a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
         a=rtpmap:109 H264/90000\r\na=rtcp-fb:109 nack\r\na=rtcp-fb:109 nack pli\r\n\
         a=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f\r\n\
         a=rtpmap:114 H264/90000\r\na=fmtp:114 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=f4001f\r\n\
         a=rtpmap:115 red/90000\r\na=rtpmap:116 ulpfec/90000\r\n"
    )
}

/// Firefox, with fingerprint and ICE options at session level, and the video section first.
fn firefox() -> String {
    format!(
        "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 5413207383424361410 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
         a=fingerprint:{FINGERPRINT}\r\na=group:BUNDLE 0 1\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 120 126 97\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\na=extmap-allow-mixed\r\n\
         a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1\r\n\
         a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1\r\na=fmtp:120 max-fs=12288;max-fr=60\r\n\
         a=ice-pwd:5a1c0ab5c5d0b8d6e3ea0b6f4e2a53ef\r\na=ice-ufrag:3e1b3f8a\r\na=mid:0\r\na=rtcp-fb:126 nack\r\n\
         a=rtcp-fb:126 nack pli\r\na=rtcp-fb:126 ccm fir\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:120 VP8/90000\r\n\
         a=rtpmap:126 H264/90000\r\na=rtpmap:97 H264/90000\r\na=setup:actpass\r\n\
         m=audio 0 UDP/TLS/RTP/SAVPF 109 9\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=recvonly\r\na=mid:1\r\na=rtcp-mux\r\n\
         a=ice-pwd:5a1c0ab5c5d0b8d6e3ea0b6f4e2a53ef\r\na=ice-ufrag:3e1b3f8a\r\na=rtpmap:109 opus/48000/2\r\n\
         a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\r\na=rtpmap:9 G722/8000/1\r\na=setup:actpass\r\n"
    )
}

fn credentials() -> Credentials {
    Credentials { ufrag: "abcd".to_owned(), password: "0123456789abcdefghijkl".to_owned() }
}

fn answer(offer: &Offer, sending: &[Option<SendParameters>]) -> String {
    let credentials = credentials();
    Answer {
        session_id: 1,
        credentials: &credentials,
        fingerprint: offer.fingerprint,
        candidates: &["192.0.2.1:50000".parse().unwrap(), "[2001:db8::1]:50000".parse().unwrap()],
        cname: "headwater",
    }
    .encode(offer, sending)
}

#[test]
fn chromium_offer_is_parsed_and_payload_type_matches_the_stream_profile() {
    let offer = Offer::parse(&chromium()).unwrap();
    assert_eq!((&*offer.credentials.ufrag, &*offer.credentials.password), ("4ZcD", "2/1muCWoOi3uLifh0NuRHlzb"));
    assert_eq!(offer.fingerprint.to_string(), FINGERPRINT);
    let [audio, video] = &offer.sections[..] else { panic!("two sections") };
    assert_eq!((audio.kind, audio.opus(), audio.mid.as_str()), (SectionKind::Audio, Some(111), "0"));
    assert_eq!((video.kind, video.receives, video.opus()), (SectionKind::Video, true, None));
    for (profile_idc, payload_type) in [(66, 108), (77, 109), (0xf4, 114), (100, 108)] {
        assert_eq!(video.h264(profile_idc), Some(payload_type), "profile {profile_idc}");
    }
}

#[test]
fn firefox_offer_is_parsed_with_its_bundle_only_section() {
    let offer = Offer::parse(&firefox()).unwrap();
    assert_eq!(offer.credentials.ufrag, "3e1b3f8a");
    assert_eq!(offer.sections[0].h264(100), Some(126));
    assert_eq!((offer.sections[1].opus(), offer.sections[1].receives), (Some(109), true));
}

#[test]
fn answer_keeps_order_and_mids() {
    let offer = Offer::parse(&chromium()).unwrap();
    let video = Some(SendParameters { payload_type: 108, ssrc: 7 });
    let both = answer(&offer, &[Some(SendParameters { payload_type: 111, ssrc: 8 }), video]);
    assert!(both.contains("a=group:BUNDLE 0 1\r\na=ice-lite\r\n"));
    assert!(both.find("m=audio 9 UDP/TLS/RTP/SAVPF 111") < both.find("m=video 9 UDP/TLS/RTP/SAVPF 108"));
    assert!(both.contains("a=rtcp-fb:108 nack\r\n") && both.contains("a=rtcp-fb:108 nack pli\r\n"));
    assert!(!both.contains("transport-cc") && !both.contains("goog-remb"));
    assert!(both.contains("profile-level-id=42e01f") && both.contains("a=setup:passive"));
    assert_eq!(both.matches("a=candidate:").count(), 4, "both candidates in both sections");
    assert!(SessionDescription::unmarshal(&mut Cursor::new(both.as_str())).is_ok());
}

/// RFC 8843 §7.3: a client that bundles everything sets up the transport with the first section.
#[test]
fn section_without_media_stays_on_the_common_transport_as_inactive() {
    let offer = Offer::parse(&chromium()).unwrap();
    let video = Some(SendParameters { payload_type: 108, ssrc: 7 });
    let sdp = answer(&offer, &[None, video]);
    assert!(sdp.contains("a=group:BUNDLE 0 1\r\n"));
    let (audio, video) = sdp.split_at(sdp.find("m=video").unwrap());
    let audio = &audio[audio.find("m=audio").unwrap()..];
    for line in [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=mid:0",
        "a=inactive",
        "a=rtcp-mux",
        "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789abcdefghijkl",
        "a=setup:passive",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=end-of-candidates",
    ] {
        assert!(audio.lines().any(|l| l == line), "{line} is missing in {audio}");
    }
    assert!(audio.contains("a=fingerprint:sha-256 ") && !audio.contains("a=ssrc"));
    assert_eq!((audio.matches("a=candidate:").count(), video.matches("a=candidate:").count()), (2, 2));
    assert!(SessionDescription::unmarshal(&mut Cursor::new(sdp.as_str())).is_ok());
}

#[test]
fn section_outside_the_common_transport_is_rejected() {
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\n";
    let offer = Offer::parse(&format!("{}{data}", chromium().replace("BUNDLE 0 1", "BUNDLE 0 1 2"))).unwrap();
    let sdp = answer(&offer, &[Some(SendParameters { payload_type: 111, ssrc: 8 }), None, None]);
    assert!(sdp.contains("a=group:BUNDLE 0 1\r\n"), "{sdp}");
    assert!(sdp.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{sdp}");
    // A disabled section has no transport (RFC 8843 §6).
    let offer = Offer::parse(&chromium().replace("m=audio 9", "m=audio 0")).unwrap();
    let sdp = answer(&offer, &[None, Some(SendParameters { payload_type: 108, ssrc: 7 })]);
    assert!(sdp.contains("a=group:BUNDLE 1\r\n") && sdp.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n"), "{sdp}");
}

#[test]
fn invalid_offer_is_rejected_with_the_violated_rule() {
    let good = chromium();
    let check = |sdp: &str, expect: OfferError| assert_eq!(Offer::parse(sdp), Err(expect));
    check(&good.replace("a=group:BUNDLE 0 1\r\n", ""), OfferError::NoBundle);
    check(&good.replace("a=rtcp-mux\r\n", ""), OfferError::NoRtcpMux);
    check(&good.replace("a=ice-ufrag:4ZcD\r\n", ""), OfferError::NoIceCredentials);
    check(&good.replace("a=ice-pwd:2/1muCWoOi3uLifh0NuRHlzb\r\n", ""), OfferError::NoIceCredentials);
    check(&good.replace("sha-256", "sha-384"), OfferError::NoFingerprint);
    check(&good.replace("setup:actpass", "setup:passive"), OfferError::PassiveDtls);
    check("hello", OfferError::Malformed);
    check("", OfferError::Malformed);
    let head = &good[..good.find("m=").unwrap()];
    check(head, OfferError::SectionCount { count: 0 });
    check(
        &format!("{head}{}", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".repeat(33)),
        OfferError::SectionCount { count: 33 },
    );
    check(&" ".repeat(MAX_OFFER_BYTES + 1), OfferError::TooLong { bytes: MAX_OFFER_BYTES + 1 });
}

/// An offer whose video section has these numbers of payload types and attributes.
fn large_offer(formats: usize, attributes: usize) -> String {
    let own_attributes = chromium().split("m=video").nth(1).unwrap().matches("\r\na=").count();
    let own_formats = 10;
    let sdp = chromium().replace("107 108 109", &format!("107 108 109{}", " 108".repeat(formats - own_formats)));
    format!("{sdp}{}", "a=rtcp-fb:108 nack\r\n".repeat(attributes - own_attributes))
}

#[test]
fn offer_with_too_many_formats_or_attributes_in_a_section_is_rejected() {
    let offer = Offer::parse(&large_offer(128, 1_024)).unwrap();
    // A repeated payload type counts once.
    assert_eq!(offer.sections[1].h264.iter().filter(|f| f.payload_type == 108).count(), 1);
    assert_eq!(Offer::parse(&large_offer(129, 1_024)), Err(OfferError::FormatCount { count: 129 }));
    assert_eq!(Offer::parse(&large_offer(128, 1_025)), Err(OfferError::AttributeCount));
    // The session is limited as a section is.
    let session = chromium().replacen("m=audio", &format!("{}m=audio", "a=x\r\n".repeat(1_025)), 1);
    assert_eq!(Offer::parse(&session), Err(OfferError::AttributeCount));
}

#[test]
fn no_prefix_and_no_flipped_bit_panics() {
    for whole in [chromium(), firefox()] {
        for end in (0..whole.len()).filter(|&i| whole.is_char_boundary(i)) {
            let _ = Offer::parse(&whole[..end]);
        }
        // The offers are ASCII: a flipped eighth bit makes the text invalid UTF-8 and is skipped.
        for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes)
                && let Ok(offer) = Offer::parse(&text)
            {
                let _ = answer(&offer, &[Some(SendParameters { payload_type: 111, ssrc: 8 })]);
            }
        }
    }
}
