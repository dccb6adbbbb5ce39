//! The metadata client against a scripted service with faults. The vendor's own mock is in
//! `tests/e2e/metadata.rs`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use headwater_api::error::Chain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// One answer: status, extra headers, body. `None`: accepts the request and never answers.
type Answer = Option<(u16, &'static str, &'static str)>;

/// Starts a service that gives these answers in turn; returns its address and the requests it
/// received (request line and token).
async fn service(answers: impl IntoIterator<Item = Answer>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let mut answers: VecDeque<_> = answers.into_iter().collect();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Some(answer) = answers.pop_front() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let text = String::from_utf8(request).unwrap();
            let token = text.lines().find_map(|l| l.strip_prefix("x-aws-ec2-metadata-token: ")).unwrap_or("-");
            let line = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
            log.lock().unwrap().push(format!("{line} {token}"));
            match answer {
                Some((status, headers, body)) => {
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n{body}");
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
                None => silent.push(stream),
            }
        }
        std::future::pending::<()>().await;
    });
    (address, seen)
}

const fn ok(body: &'static str) -> Answer {
    Some((200, "", body))
}

const fn status(code: u16) -> Answer {
    Some((code, "", ""))
}

fn requests(seen: &Mutex<Vec<String>>) -> Vec<String> {
    seen.lock().unwrap().clone()
}

#[tokio::test]
async fn every_request_carries_the_token() {
    let (address, seen) = service([ok("T1"), ok("i-1\n"), status(404)]).await;
    let mut imds = Imds::connect_once(address).await.unwrap();
    assert_eq!(imds.get("meta-data/instance-id").await.unwrap().as_deref(), Some("i-1"));
    assert_eq!(imds.get("meta-data/public-ipv4").await.unwrap(), None);
    assert_eq!(
        requests(&seen),
        ["PUT /latest/api/token -", "GET /latest/meta-data/instance-id T1", "GET /latest/meta-data/public-ipv4 T1"]
    );
}

#[tokio::test]
async fn revoked_token_is_replaced_once() {
    let (address, seen) = service([ok("T1"), status(401), ok("T2"), ok("i-1")]).await;
    let mut imds = Imds::connect_once(address).await.unwrap();
    assert_eq!(imds.get("meta-data/instance-id").await.unwrap().as_deref(), Some("i-1"));
    assert_eq!(requests(&seen)[3], "GET /latest/meta-data/instance-id T2");

    let (address, _) = service([ok("T1"), status(401), ok("T2"), status(401)]).await;
    let mut imds = Imds::connect_once(address).await.unwrap();
    let error = imds.get("meta-data/instance-id").await.unwrap_err();
    assert_eq!(error.to_string(), "instance metadata meta-data/instance-id answers 401 Unauthorized");
}

#[tokio::test]
async fn token_is_renewed_before_it_expires() {
    let short = Some((200, "x-aws-ec2-metadata-token-ttl-seconds: 0\r\n", "T1"));
    let (address, seen) = service([short, ok("T2"), ok("a"), ok("b")]).await;
    let mut imds = Imds::connect_once(address).await.unwrap();
    imds.get("x").await.unwrap();
    imds.get("y").await.unwrap();
    assert_eq!(requests(&seen)[1..], ["PUT /latest/api/token -", "GET /latest/x T2", "GET /latest/y T2"]);
}

#[tokio::test(start_paused = true)]
async fn temporary_failure_is_retried() {
    let (address, _) = service([ok("T"), status(503), status(429), status(500), ok("i-1")]).await;
    let mut imds = Imds::connect_once(address).await.unwrap();
    assert_eq!(imds.get("x").await.unwrap().as_deref(), Some("i-1"));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_the_last_error_is_returned() {
    let (address, seen) = service([ok("T"), status(500), status(500), status(500), status(500), status(503)]).await;
    let mut imds = Imds::connect_once(address).await.unwrap();
    let error = imds.get("x").await.unwrap_err();
    assert_eq!(error.to_string(), "instance metadata x answers 503 Service Unavailable");
    assert_eq!(requests(&seen).len(), 6);
}

#[tokio::test]
async fn refused_request_is_not_retried() {
    let (address, seen) = service([ok("T"), status(403)]).await;
    let mut imds = Imds::connect_once(address).await.unwrap();
    assert!(matches!(imds.get("x").await, Err(ImdsError::Status { status: StatusCode::FORBIDDEN, .. })));
    assert_eq!(requests(&seen).len(), 2);
}

#[tokio::test]
async fn service_without_tokens_counts_as_absent() {
    for refusal in [404, 405, 403, 500] {
        let (address, seen) = service([status(refusal), ok("i-1")]).await;
        assert!(matches!(Imds::connect_once(address).await, Err(ImdsError::Status { .. })), "{refusal}");
        assert_eq!(requests(&seen), ["PUT /latest/api/token -"]);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_service_delays_the_start_by_less_than_a_second() {
    let (address, _) = service([None]).await;
    let start = Instant::now();
    assert!(matches!(Imds::connect_once(address).await, Err(ImdsError::Fetch { .. })));
    assert_eq!(start.elapsed(), DETECT_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn required_service_is_retried_and_then_given_up_with_the_reason() {
    let (address, _) = service([status(503), status(503), ok("T")]).await;
    assert!(Imds::connect(address, Duration::from_secs(60)).await.is_ok());

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let start = Instant::now();
    let error = Imds::connect(closed, Duration::from_secs(60)).await.unwrap_err();
    assert!(start.elapsed() <= Duration::from_secs(60) && start.elapsed() > Duration::from_secs(50));
    let message = Chain(&error).to_string();
    assert!(message.contains("api/token could not be fetched") && message.contains("Connection refused"), "{message}");
}

#[tokio::test]
async fn token_cannot_be_printed() {
    let (address, _) = service([ok("VERYSECRET")]).await;
    let imds = Imds::connect_once(address).await.unwrap();
    assert!(!format!("{imds:?}").contains("VERYSECRET"));
    let (address, _) = service([Some((200, "", "VERY\nSECRET"))]).await;
    let error = Imds::connect_once(address).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("SECRET"));
}

#[tokio::test]
async fn instance_profile_is_distinguished_from_its_absence_and_from_a_failure() {
    let answered = |answers: Vec<Answer>| async move {
        let (address, seen) = service(std::iter::once(ok("T")).chain(answers)).await;
        let mut imds = Imds::connect_once(address).await.unwrap();
        let found = crate::boot::facts::fetch_has_profile(&mut imds).await;
        (found.map_err(|e| e.to_string()), requests(&seen).len() - 1)
    };
    assert_eq!(answered(vec![ok("{\"Code\": \"Success\"}")]).await, (Ok(true), 1));
    assert_eq!(answered(vec![status(404), ok("node")]).await, (Ok(true), 2));
    assert_eq!(answered(vec![status(404), status(404)]).await, (Ok(false), 2));
    assert_eq!(answered(vec![ok(""), ok("")]).await, (Ok(false), 2));
    let refused = Err("instance metadata meta-data/iam/info answers 403 Forbidden".to_owned());
    assert_eq!(answered(vec![status(403)]).await, (refused, 1));
}
