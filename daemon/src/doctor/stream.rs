//! Checks that a stream is being published.

use headwater_api::StreamName;
use headwater_api::control::Endpoints;
use headwater_api::error::Chain;
use headwater_api::rest::StreamStatus;
use headwater_registry::{Store, Streams as _};

use super::{Finding, REQUEST_TIMEOUT};
use crate::process::engine_rest;

const CHECK: &str = "stream";

/// Queries this node, then the registry.
pub(super) async fn check(name: Option<&StreamName>, engine: Option<&Endpoints>, store: Option<&Store>) -> Finding {
    let Some(name) = name else { return Finding::skip(CHECK, "no stream given: --stream live/demo") };
    let mut live = Vec::new();
    if let Some(engine) = engine
        && let Ok(answer) = engine_rest::get(engine, "/rest/v2/streams", REQUEST_TIMEOUT).await
        && let Ok(streams) = serde_json::from_slice::<Vec<StreamStatus>>(answer.body())
    {
        if let Some(status) = streams.iter().find(|status| status.name == *name) {
            return judge(name, status);
        }
        live.extend(streams.into_iter().map(|status| status.name));
    }
    match store {
        Some(store) => match store.stream(name).await {
            Ok(Some(record)) => {
                return Finding::ok(CHECK, format!("{name} is published to node {}", record.claim.owner.node));
            }
            Ok(None) => live.extend(store.streams().await.unwrap_or_default().into_iter().map(|r| r.claim.name)),
            Err(e) => return Finding::fail(CHECK, Chain(&e).to_string(), "repair the registry first"),
        },
        None if engine.is_none() => {
            return Finding::fail(CHECK, "the stream cannot be looked up: no engine runs", "start the node");
        }
        None => {}
    }
    live.sort_unstable();
    live.dedup();
    let others: Vec<_> = live.iter().take(5).map(StreamName::as_str).collect();
    let others =
        if others.is_empty() { "nothing is live".to_owned() } else { format!("live now: {}", others.join(", ")) };
    let remedy = "compare the publisher's server and stream key (docs/publish.md); names are case-sensitive";
    Finding::fail(CHECK, format!("{name} is not being published; {others}"), remedy)
}

fn judge(name: &StreamName, status: &StreamStatus) -> Finding {
    if let Some(notice) = status.notices.first() {
        return Finding::warn(CHECK, format!("{name} is live: {}", notice.message), "change the publisher's setting");
    }
    if status.video.is_none() && status.audio.is_none() {
        let remedy = "check the publisher: it is connected but sends neither video nor audio";
        return Finding::warn(CHECK, format!("{name} is live, but empty"), remedy);
    }
    Finding::ok(CHECK, format!("{name} is live over {}, {} kbit/s", status.protocol, status.bitrate_bps / 1_000))
}

#[cfg(test)]
mod tests {
    use headwater_api::documents::StreamOffer;
    use headwater_registry::Embedded;

    use super::super::CheckStatus;
    use super::*;

    #[tokio::test]
    async fn stream_without_publisher_fails_and_lists_the_live_streams() {
        let folder = std::env::temp_dir().join(format!("headwaterd-doctor-stream-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::Embedded(Embedded::open(&folder).unwrap());
        let name = StreamName::new("live", "demo").unwrap();
        let incarnation = headwater_api::documents::NodeIncarnation {
            node: "i-1".to_owned(),
            epoch: headwater_api::documents::BootEpoch(1),
        };
        let offer = StreamOffer { relay: Vec::new(), protocol: "rtmp".to_owned(), started_at_ms: 0 };
        let other = StreamName::new("live", "Demo").unwrap();
        store.claim(&incarnation, &other, &offer, None).await.unwrap();
        let found = check(Some(&name), None, Some(&store)).await;
        assert_eq!(found.status, CheckStatus::Fail);
        assert!(found.message.contains("live now: live/Demo"), "{}", found.message);
        store.claim(&incarnation, &name, &offer, None).await.unwrap();
        let found = check(Some(&name), None, Some(&store)).await;
        assert_eq!(found, Finding::ok("stream", "live/demo is published to node i-1"));
        assert_eq!(check(None, None, Some(&store)).await.status, CheckStatus::Skip);
        assert_eq!(check(Some(&name), None, None).await.status, CheckStatus::Fail);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
