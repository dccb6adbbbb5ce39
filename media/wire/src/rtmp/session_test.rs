//! Tests of the server session.

use super::*;
use crate::rtmp::chunk::ChunkReader;

fn command(stream: u32, values: &[Value]) -> Message {
    Message { kind: kind::COMMAND_AMF0, stream, timestamp_ms: 0, payload: amf0::encode(values).into() }
}

fn connect(fields: &[(&str, Value)]) -> Message {
    let object = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    command(0, &["connect".into(), 1.0.into(), Value::Object(object)])
}

fn connected() -> (Session, ChunkReader) {
    let (mut session, mut reader) = (Session::default(), ChunkReader::default());
    session.on_message(connect(&[("app", "live".into())])).unwrap();
    session.accept_connect();
    session.on_message(command(0, &["createStream".into(), 2.0.into(), Value::Null])).unwrap();
    read(&mut session, &mut reader);
    (session, reader)
}

fn request(session: &mut Session, what: &str, name: &str) -> Option<Event> {
    session.on_message(command(1, &[what.into(), 3.0.into(), Value::Null, name.into()])).unwrap()
}

/// Returns the command replies; control messages are skipped.
fn read(session: &mut Session, reader: &mut ChunkReader) -> Vec<(u32, Vec<Value>)> {
    let bytes = session.take_replies();
    let mut input = &bytes[..];
    let mut out = Vec::new();
    while let Some(message) = reader.next(&mut input).unwrap() {
        if message.kind == kind::COMMAND_AMF0 {
            out.push((message.stream, amf0::decode(&message.payload).unwrap()));
        }
    }
    out
}

fn codes(session: &mut Session, reader: &mut ChunkReader) -> Vec<String> {
    let info = |values: Vec<Value>| values.last()?.get("code")?.as_str().map(str::to_owned);
    read(session, reader).into_iter().filter_map(|(_, values)| info(values)).collect()
}

#[test]
fn app_name_is_split_from_its_query_and_has_no_outer_slashes() {
    let check = |fields: &[(&str, Value)], expected: &str, expected_query: Option<&str>| {
        let event = Session::default().on_message(connect(fields)).unwrap();
        let Some(Event::Connect { app, query }) = event else { panic!("{event:?}") };
        assert_eq!((app.as_str(), query.as_ref().map(Query::as_str)), (expected, expected_query));
    };
    check(&[("app", "live".into()), ("tcUrl", "rtmp://h/other".into())], "live", None);
    check(&[("app", "live/?token=secret".into())], "live", Some("token=secret"));
    check(&[("tcUrl", "rtmp://h:1935/LiveApp?x=1".into())], "LiveApp", Some("x=1"));
    check(&[], "", None);
}

#[test]
fn enhanced_rtmp_is_offered_only_to_clients_that_support_it() {
    let list = || Value::StrictArray(vec!["hvc1".into(), "vp09".into()]);
    for (more, answered) in [
        (vec![], false),
        (vec![("capsEx", 15.0.into())], true),
        (vec![("fourCcList", list())], true),
        (vec![("fourCcList", list()), ("capsEx", 15.0.into())], true),
    ] {
        let fields = [vec![("app", "live".into())], more].concat();
        let (mut session, mut reader) = (Session::default(), ChunkReader::default());
        session.on_message(connect(&fields)).unwrap();
        session.accept_connect();
        let replies = read(&mut session, &mut reader);
        let (_, values) = &replies[0];
        assert_eq!(values[0].as_str(), Some("_result"));
        let list =
            answered.then(|| Value::StrictArray(["avc1", "hvc1", "av01", "mp4a", "Opus"].map(Value::from).to_vec()));
        assert_eq!(values[2].get("fourCcList"), list.as_ref(), "{fields:?}");
        assert_eq!(values[2].get("capsEx"), answered.then_some(&Value::from(5.0)), "{fields:?}");
        assert_eq!(values[3].get("code").unwrap().as_str(), Some("NetConnection.Connect.Success"));
    }
}

#[test]
fn unknown_app_is_rejected_with_a_reason() {
    let (mut session, mut reader) = (Session::default(), ChunkReader::default());
    session.on_message(connect(&[("app", "nope".into())])).unwrap();
    session.reject_connect("There is no app \"nope\".");
    assert_eq!(codes(&mut session, &mut reader), ["NetConnection.Connect.Rejected"]);
}

#[test]
fn media_events_follow_only_after_the_publisher_is_accepted() {
    let (mut session, mut reader) = connected();
    let event = request(&mut session, "publish", "demo?token=secret");
    let Some(Event::Publish { stream_id, query: Some(query) }) = event else { panic!("{event:?}") };
    assert_eq!((stream_id.as_str(), query.as_str()), ("demo", "token=secret"));
    assert_eq!(format!("{query:?}"), "Query(…)", "a token must not appear in logs");
    let media = Message { kind: kind::VIDEO, stream: 1, timestamp_ms: 5, payload: vec![1].into() };
    assert_eq!(session.on_message(media.clone()).unwrap(), None, "before it was accepted");
    session.accept();
    assert_eq!(codes(&mut session, &mut reader), ["NetStream.Publish.Start"]);
    assert_eq!(session.on_message(media.clone()).unwrap(), Some(Event::Media(media.clone())));
    assert_eq!(session.on_message(Message { stream: 2, ..media }).unwrap(), None);
    let end = command(0, &["deleteStream".into(), 4.0.into(), Value::Null, 1.0.into()]);
    assert_eq!(session.on_message(end).unwrap(), Some(Event::Ended));
    assert_eq!(codes(&mut session, &mut reader), ["NetStream.Unpublish.Success"]);
}

#[test]
fn answer_to_a_request_on_a_deleted_or_closed_stream_is_ignored() {
    let delete = command(0, &["deleteStream".into(), 4.0.into(), Value::Null, 1.0.into()]);
    let close = command(1, &["closeStream".into(), 4.0.into(), Value::Null]);
    let other = command(0, &["deleteStream".into(), 4.0.into(), Value::Null, 2.0.into()]);
    for what in ["publish", "play"] {
        for (end, may_ask_again) in [(&delete, false), (&close, true)] {
            let (mut session, mut reader) = connected();
            request(&mut session, what, "demo");
            assert_eq!(session.on_message(other.clone()).unwrap(), None, "another message stream");
            assert_eq!(session.on_message(end.clone()).unwrap(), Some(Event::Ended), "{what}");
            session.accept();
            session.refuse(code::BAD_NAME, "demo is already live.");
            assert_eq!(codes(&mut session, &mut reader), [""; 0], "{what}");
            let again = session.on_message(command(1, &[what.into(), 5.0.into(), Value::Null, "demo".into()]));
            assert_eq!(again.is_ok(), may_ask_again, "{what}");
        }
    }
}

#[test]
fn eleventh_request_after_ten_refusals_is_an_error_and_success_resets_the_count() {
    let (mut session, mut reader) = connected();
    let refuse = |session: &mut Session, reader: &mut ChunkReader| {
        for _ in 0..MAX_REFUSALS {
            assert!(request(session, "publish", "demo").is_some());
            session.refuse(code::BAD_NAME, "demo is already live.");
            read(session, reader);
        }
    };
    for _ in 0..MAX_REFUSALS - 1 {
        request(&mut session, "play", "demo");
        session.refuse(code::STREAM_NOT_FOUND, "No stream.");
        read(&mut session, &mut reader);
    }
    request(&mut session, "play", "demo");
    session.accept();
    session.end_of_stream();
    read(&mut session, &mut reader);
    refuse(&mut session, &mut reader);
    let another = command(1, &["play".into(), 3.0.into(), Value::Null, "demo".into()]);
    assert_eq!(session.on_message(another), Err(SessionError::TooManyRefusals));
}

#[test]
fn second_publisher_is_refused_with_bad_name_and_may_retry() {
    let (mut session, mut reader) = connected();
    request(&mut session, "publish", "demo");
    session.refuse(code::BAD_NAME, "demo is already live.");
    assert_eq!(codes(&mut session, &mut reader), [code::BAD_NAME]);
    assert!(request(&mut session, "publish", "demo2").is_some());
}

#[test]
fn player_is_notified_of_the_end_and_may_play_again() {
    let (mut session, mut reader) = connected();
    request(&mut session, "play", "demo");
    session.accept();
    assert_eq!(codes(&mut session, &mut reader), ["NetStream.Play.Reset", "NetStream.Play.Start"]);
    session.end_of_stream();
    assert_eq!(codes(&mut session, &mut reader), ["NetStream.Play.UnpublishNotify"]);
    assert!(request(&mut session, "play", "demo").is_some());
}

#[test]
fn metadata_is_parsed_in_all_its_forms() {
    let (mut session, _) = connected();
    request(&mut session, "publish", "demo");
    session.accept();
    let object = Value::EcmaArray(vec![("encoder".to_owned(), "obs".into())]);
    let data = |kind, format: &[u8], values: &[Value]| Message {
        kind,
        stream: 1,
        timestamp_ms: 0,
        payload: [format, &amf0::encode(values)].concat().into(),
    };
    let expect = Some(Event::Metadata(object.clone()));
    let long = ["@setDataFrame".into(), "onMetaData".into(), object.clone()];
    assert_eq!(session.on_message(data(kind::DATA_AMF0, &[], &long)).unwrap(), expect);
    assert_eq!(session.on_message(data(kind::DATA_AMF0, &[], &long[1..])).unwrap(), expect);
    assert_eq!(session.on_message(data(kind::DATA_AMF3, &[0], &long)).unwrap(), expect);
    for short in [&long[..0], &long[..1], &long[..2]] {
        assert_eq!(session.on_message(data(kind::DATA_AMF0, &[], short)).unwrap(), None);
    }
}

#[test]
fn malformed_and_unexpected_commands_are_errors() {
    let fails =
        |session: &mut Session, stream, values: &[Value]| session.on_message(command(stream, values)).unwrap_err();
    assert_eq!(fails(&mut Session::default(), 0, &[]), SessionError::MissingNameOrTransaction);
    assert_eq!(fails(&mut Session::default(), 0, &["connect".into()]), SessionError::MissingNameOrTransaction);
    let create = ["createStream".into(), 2.0.into(), Value::Null];
    assert_eq!(fails(&mut Session::default(), 0, &create), SessionError::UnexpectedCommand("createStream"));
    let publish = ["publish".into(), 3.0.into()];
    assert_eq!(fails(&mut connected().0, 2, &publish), SessionError::UnexpectedCommand("publish"));
    let mut session = connected().0;
    for _ in 1..MAX_STREAMS {
        session.on_message(command(0, &create)).unwrap();
    }
    assert_eq!(fails(&mut session, 0, &create), SessionError::TooManyStreams);
    let nested: Vec<u8> = std::iter::repeat_n([3, 0, 1, b'a'], 5_000).flatten().collect();
    let message = Message { kind: kind::COMMAND_AMF0, stream: 0, timestamp_ms: 0, payload: nested.into() };
    assert!(matches!(Session::default().on_message(message), Err(SessionError::InvalidCommand(Amf0Error::TooDeep))));
}

#[test]
fn client_that_reads_no_replies_is_an_error() {
    let (mut session, _) = connected();
    let release = command(0, &["releaseStream".into(), 2.0.into(), Value::Null, "a".into()]);
    let error = (0..10_000).find_map(|_| session.on_message(release.clone()).err());
    assert_eq!(error, Some(SessionError::TooManyReplies));
}

#[test]
fn acknowledgements_carry_the_running_total() {
    let (mut session, mut reader) = connected();
    let mut totals = Vec::new();
    for _ in 0..6 {
        session.on_received(1_000_000);
        let bytes = session.take_replies();
        let mut input = &bytes[..];
        while let Some(message) = reader.next(&mut input).unwrap() {
            assert_eq!(message.kind, kind::ACKNOWLEDGEMENT);
            totals.push(u32::from_be_bytes(message.payload[..].try_into().unwrap()));
        }
    }
    assert_eq!(totals, [3_000_000, 6_000_000]);
}

#[test]
fn ping_is_answered() {
    let (mut session, mut reader) = connected();
    let ping = Message { kind: kind::USER_CONTROL, stream: 0, timestamp_ms: 0, payload: vec![0, 6, 0, 0, 1, 2].into() };
    session.on_message(ping).unwrap();
    let bytes = session.take_replies();
    let pong = reader.next(&mut &bytes[..]).unwrap().unwrap();
    assert_eq!(pong.payload[..], [0, 7, 0, 0, 1, 2]);
}

#[test]
fn no_prefix_and_no_flipped_bit_of_a_command_panics() {
    let golden = [
        connect(&[("app", "live".into()), ("fourCcList", Value::StrictArray(vec!["hvc1".into()]))]),
        command(1, &["publish".into(), 3.0.into(), Value::Null, "demo".into(), "live".into()]),
        command(0, &["deleteStream".into(), 4.0.into(), Value::Null, f64::NAN.into()]),
    ];
    for message in golden {
        for end in 0..message.payload.len() {
            let payload = message.payload.slice(..end);
            let _ = connected().0.on_message(Message { payload, ..message.clone() });
        }
        for at in 0..message.payload.len() {
            for flip in [1, 2, 8, 64, 128, 255] {
                let mut payload = message.payload.to_vec();
                payload[at] ^= flip;
                let _ = connected().0.on_message(Message { payload: payload.into(), ..message.clone() });
            }
        }
    }
}
