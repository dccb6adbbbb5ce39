//! Two nodes and one registry, which is sometimes away.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::node::{BootEpoch, Life};
use headwater_registry::{Embedded, Registry as _, Timing};

use super::{Cluster, Identity};
use crate::gateway::relay::{AskOwner, Asking, Holds, Locate as _, Located};
use crate::hub::{Elsewhere, Fetching, Hub, Limits, PublishError};

/// A folder that lives as long as a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("headwater-cluster-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Nowhere;

impl Elsewhere for Nowhere {
    fn fetch(&self, _: &Hub, _: &StreamName) -> Fetching {
        Box::pin(async { None })
    }
}

/// Says the same of every owner.
#[derive(Debug)]
struct Says(Holds);

impl AskOwner for Says {
    fn ask<'a>(&'a self, _: &'a [std::net::SocketAddr], _: &'a StreamName) -> Asking<'a> {
        Box::pin(std::future::ready(self.0))
    }
}

fn timing() -> Timing {
    Timing { heartbeat: Duration::from_millis(50), lease: Duration::from_millis(400), ..Timing::default() }
}

fn member(registry: &Embedded, id: &str) -> (Hub, Cluster<Embedded>) {
    member_who_hears(registry, id, Holds::Yes)
}

fn member_who_hears(registry: &Embedded, id: &str, holds: Holds) -> (Hub, Cluster<Embedded>) {
    let life = Life { node: id.to_owned(), epoch: BootEpoch(1) };
    let relay = vec![format!("10.0.0.{}:5000", id.len()).parse().unwrap()];
    let cluster = Cluster::new(registry.clone(), Identity { life, relay }, Box::new(Says(holds)), timing());
    let hub = Hub::new(Limits::default());
    hub.join(Box::new(Nowhere), Some(Box::new(cluster.clone())));
    (hub, cluster)
}

fn name() -> StreamName {
    StreamName::new("live", "demo").unwrap()
}

async fn until_free(hub: &Hub) -> crate::hub::Producer {
    tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            match hub.publish_owned(&name(), "test").await {
                Ok(producer) => return producer,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("free in time")
}

#[tokio::test]
async fn a_name_has_one_publisher_in_the_whole_cluster_until_it_lets_go() {
    let folder = Folder::new("one");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, _) = member(&registry, "a");
    let (two, elsewhere) = member(&registry, "bb");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    let refused = two.publish_owned(&name(), "rtmp").await.unwrap_err();
    assert_eq!(refused, PublishError::LiveElsewhere { name: name(), node: "a".to_owned() });
    assert!(two.stream(&name()).is_none());
    let located = elsewhere.locate(&name()).await.unwrap();
    assert_eq!(located, Located { relays: vec!["10.0.0.1:5000".parse().unwrap()], through: false });
    drop(first);
    drop(until_free(&two).await);
}

#[tokio::test]
async fn a_name_whose_owner_is_dead_is_free_after_its_lease() {
    let folder = Folder::new("dead");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, _) = member(&registry, "a");
    let (two, _) = member(&registry, "bb");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    // Nobody renews: the node hangs.
    let _second = until_free(&two).await;
    assert!(!first.is_revoked(), "it does not know yet");
}

#[tokio::test]
async fn a_node_that_comes_back_after_another_took_over_ends_its_stream() {
    let folder = Folder::new("fenced");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, hung) = member(&registry, "a");
    let (two, _) = member(&registry, "bb");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    let second = until_free(&two).await;
    hung.renew_all().await.unwrap();
    assert!(first.is_revoked() && first.stream().is_ended());
    assert!(!second.is_revoked());
}

#[tokio::test]
async fn a_renewed_stream_stays_with_its_owner() {
    let folder = Folder::new("renewed");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, cluster) = member(&registry, "a");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(timing().lease / 4).await;
        cluster.renew_all().await.unwrap();
    }
    assert!(registry.stream(&name()).await.unwrap().is_some());
    assert!(!first.is_revoked());
}

#[tokio::test]
async fn a_stream_published_here_is_located_here() {
    let folder = Folder::new("here");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, cluster) = member(&registry, "a");
    let producer = one.publish_owned(&name(), "rtmp").await.unwrap();
    assert_eq!(
        cluster.locate(&name()).await.unwrap().relays,
        ["10.0.0.1:5000".parse::<std::net::SocketAddr>().unwrap()]
    );
    let stream = Arc::clone(producer.stream());
    drop(producer);
    stream.ended().await;
    assert_eq!(cluster.locate(&name()).await, None);
}

#[tokio::test]
async fn a_name_whose_owner_was_killed_is_free_at_once_and_only_then() {
    let folder = Folder::new("killed");
    let patient = Timing { lease: Duration::from_secs(600), ..timing() };
    let registry = Embedded::open_with(&folder.0, patient).unwrap();
    let (one, killed) = member(&registry, "a");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    for (id, holds) in [("bb", Holds::Yes), ("ccc", Holds::Unknown)] {
        let refused = member_who_hears(&registry, id, holds).0.publish_owned(&name(), "rtmp").await.unwrap_err();
        assert_eq!(refused, PublishError::LiveElsewhere { name: name(), node: "a".to_owned() }, "{holds:?}");
    }
    let (four, _) = member_who_hears(&registry, "dddd", Holds::No);
    let second = four.publish_owned(&name(), "rtmp").await.unwrap();
    assert_eq!(registry.stream(&name()).await.unwrap().unwrap().claim.owner.node, "dddd");
    // Had the first one been alive after all, it would be fenced.
    killed.renew_all().await.unwrap();
    assert!(first.is_revoked() && !second.is_revoked());
}

#[tokio::test]
async fn a_stream_that_has_ended_is_let_go_of_before_the_engine_ends() {
    let folder = Folder::new("settled");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, cluster) = member(&registry, "a");
    drop(one.publish_owned(&name(), "rtmp").await.unwrap());
    cluster.settle().await;
    assert_eq!(registry.stream(&name()).await.unwrap(), None);
}

#[tokio::test]
async fn a_node_that_drains_lets_go_of_what_is_still_published() {
    let folder = Folder::new("drained");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, cluster) = member(&registry, "a");
    let still = one.publish_owned(&name(), "rtmp").await.unwrap();
    let drain = tokio_util::sync::CancellationToken::new();
    drain.cancel();
    cluster.clone().run(drain).await;
    assert_eq!(registry.stream(&name()).await.unwrap(), None);
    // It has nothing left to let go of, and cannot take the name from who has it next.
    let (two, _) = member(&registry, "bb");
    let _next = two.publish_owned(&name(), "rtmp").await.unwrap();
    drop(still);
    cluster.settle().await;
    assert_eq!(registry.stream(&name()).await.unwrap().unwrap().claim.owner.node, "bb");
}
