//! Tests of access over TCP: what publishers and players must present, and when they are refused.

use headwater_api::documents::{AppDocument, Policy};
use headwater_api::secret::Secret;
use headwater_wire::rtmp::amf0::Value;

use super::test_client::Client;
use super::test_server::start_server;
use crate::access::test_tokens::{KEY, hs256, play_token};

#[tokio::test]
async fn publisher_needs_the_key_of_its_app_in_the_stream_id_or_the_app() {
    let server = start_server(9, None);
    let publish_key = Some(Secret::new("the-publish-key"));
    let app = AppDocument { publish: Policy::Key, publish_key, ..AppDocument::open("live") };
    server.access.set_policies(vec![app], &[]);
    let mut client = Client::connected(server.socket().await).await;
    for (name, sentence) in [("demo", "A key is required"), ("demo?key=wrong", "The key is wrong")] {
        client.request("publish", name).await;
        let description = client.wait_for_status("NetStream.Publish.Unauthorized").await;
        assert!(description.starts_with(sentence), "{description}");
    }
    assert!(server.hub.streams().is_empty());
    client.request("publish", "demo?key=the-publish-key").await;
    client.wait_for_status("NetStream.Publish.Start").await;
    let mut client = Client::handshake(server.socket().await).await;
    client.connect("live?key=the-publish-key").await;
    client.wait_for_status("NetConnection.Connect.Success").await;
    client.command(0, &["createStream".into(), 2.0.into(), Value::Null]).await;
    client.request("publish", "other").await;
    client.wait_for_status("NetStream.Publish.Start").await;
}

#[tokio::test]
async fn player_needs_a_valid_token_and_the_refusal_says_why() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 1, 10).await;
    let app = AppDocument { play: Policy::Jwt, jwt_key: Some(Secret::new(KEY)), ..AppDocument::open("live") };
    server.access.set_policies(vec![app], &[]);
    let mut client = Client::connected(server.socket().await).await;
    let token = |id, exp| format!("demo?token={}", play_token(id, exp));
    for (name, sentence) in [
        ("demo".to_owned(), "A token is required: add ?token=TOKEN to the stream key"),
        (token("demo", 1), "The token has expired."),
        (token("other", 4_000_000_000), "The token is for another stream."),
    ] {
        client.request("play", &name).await;
        let description = client.wait_for_status("NetStream.Play.Failed").await;
        assert!(description.starts_with(sentence), "{description}");
    }
    client.request("play", &token("demo", 4_000_000_000)).await;
    assert_eq!(client.read_marks(1).await, [1]);
}

#[tokio::test]
async fn publisher_and_player_are_closed_when_their_token_is_revoked() {
    let server = start_server(9, None);
    let key = Some(Secret::new(KEY));
    let app = AppDocument { publish: Policy::Jwt, play: Policy::Jwt, jwt_key: key, ..AppDocument::open("live") };
    server.access.set_policies(vec![app.clone()], &[]);
    let publish_token = hs256(r#"{"type":"publish","exp":4000000000}"#);
    let mut publisher = server.publisher(&format!("demo?token={publish_token}")).await;
    publisher.send_video(0, true, 1, 10).await;
    let [revoked, other] = [1, 2].map(|n| play_token("demo", 4_000_000_000 + n));
    let mut player = server.player(&format!("demo?token={revoked}")).await;
    let mut other_player = server.player(&format!("demo?token={other}")).await;
    assert_eq!((player.read_marks(1).await, other_player.read_marks(1).await), (vec![1], vec![1]));
    server.access.set_policies(vec![app.clone()], &[&revoked]);
    let reason = player.wait_for_status("NetConnection.Connect.Closed").await;
    assert_eq!(reason, "The token was revoked.");
    publisher.send_video(40, true, 2, 10).await;
    assert_eq!(other_player.read_marks(1).await, [2], "the others continue");
    // The stream's writer forgets the player with that frame.
    assert!(player.is_closed().await);
    server.access.set_policies(vec![app], &[&revoked, &publish_token]);
    publisher.wait_for_status("NetConnection.Connect.Closed").await;
    assert!(publisher.is_closed().await);
    assert!(server.hub.streams().is_empty());
}
