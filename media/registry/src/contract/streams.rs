//! Streams: one owner, who is followed at once when it is gone.

use std::time::Duration;

use headwater_api::node::{BootEpoch, Life};
use headwater_api::stream::{Claim, StreamOffer};

use super::{name, offer, register, until};
use crate::{Registry, RegistryError};

/// Races between two claimants.
const ROUNDS: usize = 50;

pub(super) async fn check<R: Registry + Clone + 'static>(registry: &R) {
    let a = register(registry, "a").await;
    let b = register(registry, "b").await;
    a_stream_is_found_with_its_owner(registry, &a).await;
    a_second_claimant_is_refused_while_the_first_renews(registry, &a, &b).await;
    who_lets_go_is_followed_at_once(registry, &a, &b).await;
    who_falls_silent_is_followed_when_its_lease_ends(registry, &a, &b).await;
    an_owner_that_was_followed_is_told_and_cannot_let_go(registry, &a, &b).await;
    of_two_claimants_one_wins_every_time(registry, &a, &b).await;
    of_two_followers_of_a_dead_owner_one_wins(registry, &a, &b).await;
    an_owner_claims_again_with_a_greater_epoch(registry, &a).await;
    a_claim_goes_on_if_nobody_else_had_the_name(registry, &a, &b).await;
    a_claim_that_the_registry_lost_goes_on_under_its_epoch(registry, &a).await;
    a_later_life_takes_what_its_earlier_life_held(registry, &a).await;
    all_streams_of_a_life_are_let_go_at_once(registry, &a, &b).await;
    streams_are_listed_by_name(registry, &a).await;
}

async fn a_stream_is_found_with_its_owner(registry: &impl Registry, a: &Life) {
    assert_eq!(registry.stream(&name("live/s")).await.unwrap(), None);
    let claim = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    assert_eq!((&claim.name, &claim.owner), (&name("live/s"), a));
    let found = registry.stream(&name("live/s")).await.unwrap().unwrap();
    assert_eq!((&found.claim, &found.offer), (&claim, &offer(1)));
    assert!(found.lease_left_ms > 0 && found.lease_left_ms <= 1_500, "{found:?}");
    assert_eq!(registry.stream(&name("other/s")).await.unwrap(), None);
    assert!(registry.release(&claim).await.unwrap());
}

async fn a_second_claimant_is_refused_while_the_first_renews(registry: &impl Registry, a: &Life, b: &Life) {
    let claim = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    // Three leases long: without the renewals the second claimant would win.
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
    assert_eq!((found.claim.clone(), found.offer), (claim, offer(1)), "a refused claim left a trace");
    assert!(registry.release(&found.claim).await.unwrap());
}

async fn who_lets_go_is_followed_at_once(registry: &impl Registry, a: &Life, b: &Life) {
    let first = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    assert!(registry.release(&first).await.unwrap());
    assert_eq!(registry.stream(&name("live/s")).await.unwrap(), None);
    assert!(!registry.release(&first).await.unwrap());
    let second = registry.claim(b, &name("live/s"), &offer(2), None).await.unwrap();
    assert!(second.epoch > first.epoch);
    assert!(!registry.release(&first).await.unwrap(), "an old claim let go of a new one");
    assert_eq!(registry.stream(&name("live/s")).await.unwrap().unwrap().claim, second);
    assert!(registry.release(&second).await.unwrap());
}

async fn who_falls_silent_is_followed_when_its_lease_ends(registry: &impl Registry, a: &Life, b: &Life) {
    let first = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    let second = claimed(registry, b, "live/s", &offer(2)).await;
    assert!(second.epoch > first.epoch);
    assert!(registry.release(&second).await.unwrap());
    let third = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    until("a stream that is not renewed is not found", async || {
        registry.stream(&name("live/s")).await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(registry.streams().await.unwrap().iter().all(|s| s.claim.name != third.name));
    // Its owner may still go on, if it is the first to say so.
    assert_eq!(registry.renew(a, std::slice::from_ref(&third)).await.unwrap(), []);
    assert_eq!(registry.stream(&name("live/s")).await.unwrap().unwrap().claim, third);
    assert!(registry.release(&third).await.unwrap());
}

async fn an_owner_that_was_followed_is_told_and_cannot_let_go(registry: &impl Registry, a: &Life, b: &Life) {
    let lost = registry.claim(a, &name("live/lost"), &offer(1), None).await.unwrap();
    let follower = claimed(registry, b, "live/lost", &offer(2)).await;
    let kept = registry.claim(a, &name("live/kept"), &offer(1), None).await.unwrap();
    assert_eq!(registry.renew(a, &[kept.clone(), lost.clone()]).await.unwrap(), [name("live/lost")]);
    assert_eq!(registry.renew(a, &[]).await.unwrap(), []);
    assert!(!registry.release(&lost).await.unwrap());
    let error = registry.claim(a, &name("live/lost"), &offer(1), Some(lost.epoch)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Taken { .. }), "{error:?}");
    assert_eq!(registry.stream(&name("live/lost")).await.unwrap().unwrap().claim, follower);
    for claim in [kept, follower] {
        assert!(registry.release(&claim).await.unwrap());
    }
}

async fn of_two_claimants_one_wins_every_time<R: Registry + Clone + 'static>(registry: &R, a: &Life, b: &Life) {
    let mut last = 0;
    for round in 0..ROUNDS {
        // Half of the races are for names that were never claimed, the other half for one that was let go.
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

async fn of_two_followers_of_a_dead_owner_one_wins<R: Registry + Clone + 'static>(registry: &R, a: &Life, b: &Life) {
    let dead = register(registry, "dead").await;
    let stream = name("live/orphan");
    let first = registry.claim(&dead, &stream, &offer(9), None).await.unwrap();
    let claims =
        until("takeover", async || Some(race(registry, [a, b], &stream).await).filter(|c| !c.is_empty())).await;
    assert_eq!(claims.len(), 1, "{claims:?}");
    assert!(claims[0].epoch > first.epoch);
    assert!(registry.release(&claims[0]).await.unwrap());
}

async fn an_owner_claims_again_with_a_greater_epoch(registry: &impl Registry, a: &Life) {
    let first = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    let second = registry.claim(a, &name("live/s"), &offer(3), None).await.unwrap();
    assert!(second.epoch > first.epoch);
    assert_eq!(registry.renew(a, std::slice::from_ref(&first)).await.unwrap(), [name("live/s")]);
    assert_eq!(registry.stream(&name("live/s")).await.unwrap().unwrap().offer, offer(3));
    assert!(registry.release(&second).await.unwrap());
}

async fn a_claim_goes_on_if_nobody_else_had_the_name(registry: &impl Registry, a: &Life, b: &Life) {
    let first = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    let same = registry.claim(a, &name("live/s"), &offer(4), Some(first.epoch)).await.unwrap();
    assert_eq!(same, first);
    assert_eq!(registry.stream(&name("live/s")).await.unwrap().unwrap().offer, offer(4));
    // Lease over, but nobody came.
    until("end of the lease", async || registry.stream(&name("live/s")).await.unwrap().is_none().then_some(())).await;
    assert_eq!(registry.claim(a, &name("live/s"), &offer(4), Some(first.epoch)).await.unwrap(), first);
    // Somebody came and went: the name is free, but it is another epoch now.
    let other = claimed(registry, b, "live/s", &offer(2)).await;
    assert!(registry.release(&other).await.unwrap());
    let later = registry.claim(a, &name("live/s"), &offer(1), Some(first.epoch)).await.unwrap();
    assert!(later.epoch > other.epoch, "{later:?} after {other:?}");
    assert!(registry.release(&later).await.unwrap());
}

async fn a_claim_that_the_registry_lost_goes_on_under_its_epoch(registry: &impl Registry, a: &Life) {
    let epoch = 1_700_000_000_123;
    let claim = registry.claim(a, &name("live/unknown"), &offer(1), Some(epoch)).await.unwrap();
    assert_eq!(claim.epoch, epoch);
    assert_eq!(registry.renew(a, std::slice::from_ref(&claim)).await.unwrap(), []);
    assert!(registry.release(&claim).await.unwrap());
}

async fn a_later_life_takes_what_its_earlier_life_held(registry: &impl Registry, a: &Life) {
    let old = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap();
    let later = Life { epoch: BootEpoch(a.epoch.0 + 1), ..a.clone() };
    let new = registry.claim(&later, &name("live/s"), &offer(1), None).await.unwrap();
    assert!(new.epoch > old.epoch);
    let error = registry.claim(a, &name("live/s"), &offer(1), None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Taken { .. }), "an earlier life came back: {error:?}");
    assert_eq!(registry.renew(a, std::slice::from_ref(&old)).await.unwrap(), [name("live/s")]);
    assert!(!registry.release(&old).await.unwrap());
    assert!(registry.release(&new).await.unwrap());
}

async fn all_streams_of_a_life_are_let_go_at_once(registry: &impl Registry, a: &Life, b: &Life) {
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

async fn streams_are_listed_by_name(registry: &impl Registry, a: &Life) {
    for s in ["live/b", "live/a", "LiveApp/z"] {
        registry.claim(a, &name(s), &offer(1), None).await.unwrap();
    }
    let listed: Vec<String> = registry.streams().await.unwrap().into_iter().map(|s| s.claim.name.to_string()).collect();
    assert_eq!(listed, ["LiveApp/z", "live/a", "live/b"]);
    assert_eq!(registry.release_all(a).await.unwrap(), 3);
}

pub(super) async fn epochs_grow_even_past_oblivion(registry: &impl Registry) {
    let a = register(registry, "a").await;
    let mut last = 0;
    for _ in 0..5 {
        let claim = registry.claim(&a, &name("live/brief"), &offer(1), None).await.unwrap();
        assert!(claim.epoch > last, "{} after {last}", claim.epoch);
        last = claim.epoch;
        let gone = async || registry.stream(&name("live/brief")).await.unwrap().is_none().then_some(());
        until("end of the lease", gone).await;
    }
}

/// Claims until it is granted, which must be after a lease at the longest.
async fn claimed(registry: &impl Registry, by: &Life, stream: &str, offer: &StreamOffer) -> Claim {
    until("takeover", async || match registry.claim(by, &name(stream), offer, None).await {
        Ok(claim) => Some(claim),
        Err(RegistryError::Taken { .. }) => None,
        Err(e) => panic!("{e:?}"),
    })
    .await
}

/// Lets both claim at the same time, and gives the claims that were granted.
async fn race<R: Registry + Clone + 'static>(
    registry: &R,
    both: [&Life; 2],
    stream: &headwater_api::StreamName,
) -> Vec<Claim> {
    let mut tasks = tokio::task::JoinSet::new();
    for life in both {
        let (registry, life, stream) = (registry.clone(), life.clone(), stream.clone());
        tasks.spawn(async move { registry.claim(&life, &stream, &offer(1), None).await });
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
