//! Streams: one owner per name, and takeover when its lease ends.

use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::documents::{BootEpoch, Claim, NodeIncarnation, StreamOffer};

use super::{name, offer, register, until};
use crate::{Registry, RegistryError};

/// Number of races between two claimants.
const ROUNDS: usize = 50;

pub(super) async fn check<R: Registry + Clone + 'static>(registry: &R) {
    let a = register(registry, "a").await;
    let b = register(registry, "b").await;
    stream_is_found_with_its_owner(registry, &a).await;
    second_claimant_is_refused_while_the_first_renews(registry, &a, &b).await;
    released_stream_can_be_claimed_at_once(registry, &a, &b).await;
    silent_owner_loses_its_stream_when_the_lease_expires(registry, &a, &b).await;
    owner_that_lost_a_stream_learns_it_and_cannot_release_it(registry, &a, &b).await;
    one_of_two_concurrent_claimants_wins(registry, &a, &b).await;
    one_of_two_claimants_takes_over_from_a_dead_owner(registry, &a, &b).await;
    second_claim_by_the_owner_gets_a_greater_epoch(registry, &a).await;
    claim_resumes_if_no_other_node_owned_the_name(registry, &a, &b).await;
    claim_that_the_registry_lost_resumes_with_its_epoch(registry, &a).await;
    later_incarnation_takes_over_from_an_earlier_one(registry, &a).await;
    all_streams_of_an_incarnation_are_released_together(registry, &a, &b).await;
    streams_are_listed_by_name(registry, &a).await;
}

async fn stream_is_found_with_its_owner(registry: &impl Registry, a: &NodeIncarnation) {
    assert_eq!(registry.stream(&name("live/s")).await.unwrap(), None);
    let claim = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    assert_eq!((&claim.name, &claim.owner), (&name("live/s"), a));
    let found = registry.stream(&name("live/s")).await.unwrap().unwrap();
    assert_eq!((&found.claim, &found.offer), (&claim, &offer(1)));
    assert!(found.lease_left_ms > 0 && found.lease_left_ms <= 1_500, "{found:?}");
    assert_eq!(registry.stream(&name("other/s")).await.unwrap(), None);
    assert!(registry.release(&claim).await.unwrap());
}

async fn second_claimant_is_refused_while_the_first_renews(
    registry: &impl Registry,
    a: &NodeIncarnation,
    b: &NodeIncarnation,
) {
    let claim = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    // For three leases: without the renewals the second claimant would win.
    let deadline = tokio::time::Instant::now() + super::TIMING.lease * 3;
    let mut refusals = 0;
    while tokio::time::Instant::now() < deadline {
        assert_eq!(registry.renew(a, std::slice::from_ref(&claim)).await.unwrap(), []);
        let error = registry.claim(b, &name("live/s"), &offer(2), None).await.unwrap_err();
        assert!(
            matches!(&error, RegistryError::Taken { name: n, owner } if n.as_str() == "live/s" && owner == "a"),
            "{error:?}"
        );
        assert!(!error.is_retryable());
        refusals += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refusals > 10, "{refusals}");
    let found = registry.stream(&name("live/s")).await.unwrap().unwrap();
    assert_eq!((found.claim.clone(), found.offer), (claim, offer(1)), "a refused claim changed the document");
    assert!(registry.release(&found.claim).await.unwrap());
}

async fn released_stream_can_be_claimed_at_once(registry: &impl Registry, a: &NodeIncarnation, b: &NodeIncarnation) {
    let first = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    assert!(registry.release(&first).await.unwrap());
    assert_eq!(registry.stream(&name("live/s")).await.unwrap(), None);
    assert!(!registry.release(&first).await.unwrap());
    let second = registry.claim(b, &name("live/s"), &offer(2), None).await.unwrap();
    assert!(second.epoch > first.epoch);
    assert!(!registry.release(&first).await.unwrap(), "an old claim released a new one");
    assert_eq!(registry.stream(&name("live/s")).await.unwrap().unwrap().claim, second);
    assert!(registry.release(&second).await.unwrap());
}

async fn silent_owner_loses_its_stream_when_the_lease_expires(
    registry: &impl Registry,
    a: &NodeIncarnation,
    b: &NodeIncarnation,
) {
    let first = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    let second = claim_until_granted(registry, b, "live/s", &offer(2)).await;
    assert!(second.epoch > first.epoch);
    assert!(registry.release(&second).await.unwrap());
    let third = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    until("a stream that is not renewed is not found", async || {
        registry.stream(&name("live/s")).await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(registry.streams().await.unwrap().iter().all(|s| s.claim.name != third.name));
    // Its owner may still renew it, if no other node has claimed it first.
    assert_eq!(registry.renew(a, std::slice::from_ref(&third)).await.unwrap(), []);
    assert_eq!(registry.stream(&name("live/s")).await.unwrap().unwrap().claim, third);
    assert!(registry.release(&third).await.unwrap());
}

async fn owner_that_lost_a_stream_learns_it_and_cannot_release_it(
    registry: &impl Registry,
    a: &NodeIncarnation,
    b: &NodeIncarnation,
) {
    let lost = registry.claim(a, &name("live/lost"), &offer(1), None).await.unwrap();
    let successor = claim_until_granted(registry, b, "live/lost", &offer(2)).await;
    let owned = registry.claim(a, &name("live/owned"), &offer(1), None).await.unwrap();
    assert_eq!(registry.renew(a, &[owned.clone(), lost.clone()]).await.unwrap(), [name("live/lost")]);
    assert_eq!(registry.renew(a, &[]).await.unwrap(), []);
    assert!(!registry.release(&lost).await.unwrap());
    let error = registry.claim(a, &name("live/lost"), &offer(1), Some(lost.epoch)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Taken { .. }), "{error:?}");
    assert_eq!(registry.stream(&name("live/lost")).await.unwrap().unwrap().claim, successor);
    for claim in [owned, successor] {
        assert!(registry.release(&claim).await.unwrap());
    }
}

async fn one_of_two_concurrent_claimants_wins<R: Registry + Clone + 'static>(
    registry: &R,
    a: &NodeIncarnation,
    b: &NodeIncarnation,
) {
    let mut last = 0;
    for round in 0..ROUNDS {
        // Half of the races are for new names, the other half for one that was released.
        let stream = name(&if round % 2 == 0 { format!("live/race{round}") } else { "live/race".to_owned() });
        let claims = race(registry, [a, b], &stream).await;
        assert_eq!(claims.len(), 1, "round {round}: {claims:?}");
        assert_eq!(registry.stream(&stream).await.unwrap().unwrap().claim, claims[0]);
        if round % 2 == 1 {
            assert!(claims[0].epoch > last, "round {round}: {} after {last}", claims[0].epoch);
            last = claims[0].epoch;
        }
        assert!(registry.release(&claims[0]).await.unwrap());
    }
}

async fn one_of_two_claimants_takes_over_from_a_dead_owner<R: Registry + Clone + 'static>(
    registry: &R,
    a: &NodeIncarnation,
    b: &NodeIncarnation,
) {
    let dead = register(registry, "dead").await;
    let stream = name("live/orphan");
    let first = registry.claim(&dead, &stream, &offer(9), None).await.unwrap();
    let claims =
        until("takeover", async || Some(race(registry, [a, b], &stream).await).filter(|c| !c.is_empty())).await;
    assert_eq!(claims.len(), 1, "{claims:?}");
    assert!(claims[0].epoch > first.epoch);
    assert!(registry.release(&claims[0]).await.unwrap());
}

async fn second_claim_by_the_owner_gets_a_greater_epoch(registry: &impl Registry, a: &NodeIncarnation) {
    let first = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    let second = registry.claim(a, &name("live/s"), &offer(3), None).await.unwrap();
    assert!(second.epoch > first.epoch);
    assert_eq!(registry.renew(a, std::slice::from_ref(&first)).await.unwrap(), [name("live/s")]);
    assert_eq!(registry.stream(&name("live/s")).await.unwrap().unwrap().offer, offer(3));
    assert!(registry.release(&second).await.unwrap());
}

async fn claim_resumes_if_no_other_node_owned_the_name(
    registry: &impl Registry,
    a: &NodeIncarnation,
    b: &NodeIncarnation,
) {
    let first = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    let same = registry.claim(a, &name("live/s"), &offer(4), Some(first.epoch)).await.unwrap();
    assert_eq!(same, first);
    assert_eq!(registry.stream(&name("live/s")).await.unwrap().unwrap().offer, offer(4));
    // The lease has expired, but no other node has claimed the name.
    let expiry = async || registry.stream(&name("live/s")).await.unwrap().is_none().then_some(());
    until("expiry of the lease", expiry).await;
    assert_eq!(registry.claim(a, &name("live/s"), &offer(4), Some(first.epoch)).await.unwrap(), first);
    // Another node has owned the name and released it: the epoch must grow.
    let other = claim_until_granted(registry, b, "live/s", &offer(2)).await;
    assert!(registry.release(&other).await.unwrap());
    let later = registry.claim(a, &name("live/s"), &offer(1), Some(first.epoch)).await.unwrap();
    assert!(later.epoch > other.epoch, "{later:?} after {other:?}");
    assert!(registry.release(&later).await.unwrap());
}

async fn claim_that_the_registry_lost_resumes_with_its_epoch(registry: &impl Registry, a: &NodeIncarnation) {
    let epoch = 1_700_000_000_123;
    let claim = registry.claim(a, &name("live/unknown"), &offer(1), Some(epoch)).await.unwrap();
    assert_eq!(claim.epoch, epoch);
    assert_eq!(registry.renew(a, std::slice::from_ref(&claim)).await.unwrap(), []);
    assert!(registry.release(&claim).await.unwrap());
}

async fn later_incarnation_takes_over_from_an_earlier_one(registry: &impl Registry, a: &NodeIncarnation) {
    let old = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    let later = NodeIncarnation { epoch: BootEpoch(a.epoch.0 + 1), ..a.clone() };
    let new = registry.claim(&later, &name("live/s"), &offer(1), None).await.unwrap();
    assert!(new.epoch > old.epoch);
    let error = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Taken { .. }), "an earlier incarnation took over: {error:?}");
    assert_eq!(registry.renew(a, std::slice::from_ref(&old)).await.unwrap(), [name("live/s")]);
    assert!(!registry.release(&old).await.unwrap());
    assert!(registry.release(&new).await.unwrap());
}

async fn all_streams_of_an_incarnation_are_released_together(
    registry: &impl Registry,
    a: &NodeIncarnation,
    b: &NodeIncarnation,
) {
    for n in 0..5 {
        registry.claim(a, &name(&format!("live/all{n}")), &offer(1), None).await.unwrap();
    }
    let other = registry.claim(b, &name("live/all9"), &offer(2), None).await.unwrap();
    assert_eq!(registry.release_all(a).await.unwrap(), 5);
    assert_eq!(registry.release_all(a).await.unwrap(), 0);
    let left: Vec<Claim> = registry.streams().await.unwrap().into_iter().map(|s| s.claim).collect();
    assert_eq!(left, [other]);
    registry.claim(b, &name("live/all0"), &offer(2), None).await.unwrap();
    assert_eq!(registry.release_all(b).await.unwrap(), 2);
}

async fn streams_are_listed_by_name(registry: &impl Registry, a: &NodeIncarnation) {
    for s in ["live/b", "live/a", "LiveApp/z"] {
        registry.claim(a, &name(s), &offer(1), None).await.unwrap();
    }
    let listed: Vec<String> = registry.streams().await.unwrap().into_iter().map(|s| s.claim.name.to_string()).collect();
    assert_eq!(listed, ["LiveApp/z", "live/a", "live/b"]);
    assert_eq!(registry.release_all(a).await.unwrap(), 3);
}

pub(super) async fn epochs_grow_after_a_stream_has_expired(registry: &impl Registry) {
    let a = register(registry, "a").await;
    let mut last = 0;
    for _ in 0..5 {
        let claim = registry.claim(&a, &name("live/brief"), &offer(1), None).await.unwrap();
        assert!(claim.epoch > last, "{} after {last}", claim.epoch);
        last = claim.epoch;
        let expired = async || registry.stream(&name("live/brief")).await.unwrap().is_none().then_some(());
        until("expiry of the lease", expired).await;
    }
}

/// Claims until the claim is granted, which takes one lease at most.
async fn claim_until_granted(
    registry: &impl Registry,
    claimant: &NodeIncarnation,
    stream: &str,
    offer: &StreamOffer,
) -> Claim {
    until("takeover", async || match registry.claim(claimant, &name(stream), offer, None).await {
        Ok(claim) => Some(claim),
        Err(RegistryError::Taken { .. }) => None,
        Err(e) => panic!("{e:?}"),
    })
    .await
}

/// Lets two nodes claim the stream concurrently. Returns the claims that were granted.
async fn race<R: Registry + Clone + 'static>(
    registry: &R,
    claimants: [&NodeIncarnation; 2],
    stream: &StreamName,
) -> Vec<Claim> {
    let mut tasks = tokio::task::JoinSet::new();
    for claimant in claimants {
        let (registry, claimant, stream) = (registry.clone(), claimant.clone(), stream.clone());
        tasks.spawn(async move { registry.claim(&claimant, &stream, &offer(1), None).await });
    }
    let mut claims = Vec::new();
    for outcome in tasks.join_all().await {
        match outcome {
            Ok(claim) => claims.push(claim),
            Err(RegistryError::Taken { .. }) => {}
            Err(e) => panic!("{e:?}"),
        }
    }
    claims
}
