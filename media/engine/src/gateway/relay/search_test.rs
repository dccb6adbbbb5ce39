//! Tests of the error that a viewer receives if no node is found that has the stream.

use std::sync::atomic::Ordering;

use super::relay_test::{TestPublisher, name, node};
use crate::hub::FindError;

#[tokio::test]
async fn unreachable_node_among_several_outranks_another_one_without_the_stream() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unreachable = closed.local_addr().unwrap();
    drop(closed);
    let origin = node();
    for nodes in [[unreachable, origin.address], [origin.address, unreachable]] {
        let edge = node();
        edge.resolver.set_any_of(&nodes);
        assert_eq!(edge.hub.find(&name()).await.unwrap_err(), FindError::Unreachable, "{nodes:?}");
    }
    // Two addresses of one node: it has answered.
    let edge = node();
    edge.resolver.set(&[unreachable, origin.address]);
    assert_eq!(edge.hub.find(&name()).await.unwrap_err(), FindError::NotPublished);
}

#[tokio::test]
async fn stream_is_found_at_the_last_of_many_fixed_origins() {
    let (without, last, edge) = (node(), node(), node());
    let mut publisher = TestPublisher::on_node(&last, 50);
    publisher.send_frames(1);
    edge.resolver.set_any_of(&[[without.address; 6].as_slice(), &[last.address]].concat());
    edge.hub.find(&name()).await.unwrap();
}

#[tokio::test]
async fn stream_is_not_reported_as_unpublished_while_the_registry_is_unreachable() {
    let edge = node();
    edge.resolver.registry_is_unreachable.store(true, Ordering::Relaxed);
    assert_eq!(edge.hub.find(&name()).await.unwrap_err(), FindError::RegistryUnreachable);
}
