//! Tests of what a relay refuses to its peers, and of the time that it gives them.

use std::time::Duration;

use headwater_wire::relay::{Message, Refusal};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::link::Link;
use super::relay_test::{TEST_TIMEOUT, TestPublisher, name, node, secret, subscribe_reply};

#[tokio::test]
async fn stream_is_relayed_over_at_most_three_connections() {
    let origin = node();
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let chain: [_; 4] = std::array::from_fn(|_| node());
    let mut source = origin.address;
    for (n, edge) in chain.iter().enumerate() {
        edge.resolver.set_through(&[source], &[]);
        assert_eq!(edge.hub.find(&name()).await.is_ok(), n < 3, "edge {n}");
        source = edge.address;
    }
}

#[tokio::test]
async fn edge_does_not_pull_a_stream_for_a_node_that_takes_it_for_the_owner() {
    let (origin, edge) = (node(), node());
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    edge.resolver.set(&[origin.address]);
    assert_eq!(subscribe_reply(edge.address).await, Some(Message::Refused(Refusal::NotFound)));
    assert_eq!(origin.client.metrics().accepted.get(), 0);
}

#[tokio::test]
async fn peers_that_stop_are_closed_after_the_timeout_of_their_state() {
    let origin = node();
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let mut without_handshake = TcpStream::connect(origin.address).await.unwrap();
    let mut without_subscription = Link::connect(origin.address, &secret(), TEST_TIMEOUT).await.unwrap();
    let mut without_pings = Link::connect(origin.address, &secret(), TEST_TIMEOUT).await.unwrap();
    let subscribe =
        Message::Subscribe { app: "live".to_owned(), stream_id: "demo".to_owned(), history: false, max_hops: 1 };
    without_pings.writer.send(&subscribe, TEST_TIMEOUT).await.unwrap();
    while without_pings.reader.next().await.unwrap() != Message::Live {}
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let check = |expected_s: u64| {
        let took = start.elapsed();
        let expected = Duration::from_secs(expected_s);
        assert!((expected - Duration::from_secs(1)..=expected + Duration::from_secs(1)).contains(&took), "{took:?}");
    };
    assert_eq!(without_handshake.read(&mut [0]).await.unwrap_or(0), 0);
    check(2);
    assert!(without_subscription.reader.next().await.is_err());
    check(5);
    while without_pings.reader.next().await.is_ok() {}
    check(10);
}
