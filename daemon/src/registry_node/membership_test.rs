//! Every decision about the members of a replica set, as tables.

use super::*;

fn hello(state: MemberState) -> Hello {
    let set =
        (!matches!(state, MemberState::Uninitialized | MemberState::Standalone)).then(|| "headwater-demo".to_owned());
    Hello { state, set, hosts: Vec::new() }
}

/// `i-N` at `hN`; running and without a set.
fn peer(n: u32) -> Peer {
    Peer { id: format!("i-{n}"), host: format!("h{n}"), running: true, hello: Some(hello(MemberState::Uninitialized)) }
}

fn silent(n: u32) -> Peer {
    Peer { hello: None, ..peer(n) }
}

fn in_set(n: u32, state: MemberState) -> Peer {
    Peer { hello: Some(hello(state)), ..peer(n) }
}

/// `hN`; healthy and listed.
fn member(n: u32) -> Member {
    Member { host: format!("h{n}"), votes: true, reachable: true, serving: true, missing: false }
}

fn unreachable(n: u32) -> Member {
    Member { reachable: false, serving: false, ..member(n) }
}

fn missing(n: u32) -> Member {
    Member { missing: true, ..unreachable(n) }
}

/// The step of `i-1`, whose database has no set.
fn uninitialized(peers: &[Peer]) -> Step {
    next_step(&SetView {
        own_id: "i-1".to_owned(),
        state: MemberState::Uninitialized,
        peers: peers.to_vec(),
        members: Vec::new(),
    })
}

/// The step of `i-1` at `h1` as the primary.
fn primary(peers: &[Peer], members: &[Member]) -> Step {
    let mut peers = peers.to_vec();
    peers.insert(0, in_set(1, MemberState::Primary));
    next_step(&SetView { own_id: "i-1".to_owned(), state: MemberState::Primary, peers, members: members.to_vec() })
}

fn secondary(n: u32) -> Peer {
    in_set(n, MemberState::Secondary)
}

fn assert_waits(step: &Step, part: &str) {
    assert!(matches!(step, Step::Wait(reason) if reason.contains(part)), "{step:?}: {part}");
}

#[test]
fn single_node_initiates_its_set_at_once() {
    assert_eq!(uninitialized(&[peer(1)]), Step::Initiate);
}

#[test]
fn first_of_several_new_nodes_by_id_initiates_the_set() {
    assert_eq!(uninitialized(&[peer(1), peer(2), peer(3)]), Step::Initiate);
    assert_eq!(uninitialized(&[peer(3), peer(2), peer(1)]), Step::Initiate);
    assert_waits(&uninitialized(&[peer(0), peer(1), peer(2)]), "registry node i-0 initiates");
}

#[test]
fn no_set_is_initiated_while_a_peer_does_not_answer_or_is_misconfigured() {
    assert_waits(&uninitialized(&[peer(1), silent(2)]), "before registry node i-2 (h2) answers");
    assert_waits(&uninitialized(&[peer(1), peer(2), silent(3)]), "i-3");
    // It will start its database in a moment; or it is stopped and may hold the data.
    let not_running = Peer { running: false, ..silent(2) };
    assert_waits(&uninitialized(&[peer(1), not_running]), "i-2");
    assert_waits(&uninitialized(&[peer(1), in_set(2, MemberState::Standalone)]), "i-2");
}

#[test]
fn no_second_set_is_initiated_whatever_the_state_of_the_first() {
    for state in [MemberState::Primary, MemberState::Secondary, MemberState::NotReady] {
        assert_waits(&uninitialized(&[peer(1), in_set(2, state)]), "i-2's replica set to add this node");
        assert_waits(&uninitialized(&[peer(1), silent(3), in_set(2, state)]), "add this node");
    }
}

#[test]
fn node_not_listed_as_running_takes_no_step() {
    assert_waits(&uninitialized(&[]), "EC2 does not list");
    assert_waits(&uninitialized(&[peer(2)]), "EC2 does not list");
    assert_waits(&uninitialized(&[Peer { running: false, ..peer(1) }]), "EC2 does not list");
    let view = SetView {
        own_id: "i-9".to_owned(),
        state: MemberState::Primary,
        peers: vec![peer(2)],
        members: vec![member(9), missing(1)],
    };
    assert_waits(&next_step(&view), "EC2 does not list");
}

#[test]
fn only_the_primary_changes_the_set() {
    for state in [MemberState::Secondary, MemberState::NotReady] {
        let view = SetView { own_id: "i-1".to_owned(), state, peers: vec![peer(1), peer(2)], members: Vec::new() };
        assert_eq!(next_step(&view), Step::Idle);
    }
    let view =
        SetView { own_id: "i-1".to_owned(), state: MemberState::Standalone, peers: vec![peer(1)], members: Vec::new() };
    assert_waits(&next_step(&view), "without a replica set");
}

#[test]
fn primary_adds_new_nodes_one_at_a_time() {
    assert_eq!(primary(&[peer(2), peer(3)], &[member(1)]), Step::Add("h2".to_owned()));
    // The first one is still copying: the second must wait.
    let copying = Member { serving: false, ..member(2) };
    assert_waits(&primary(&[in_set(2, MemberState::NotReady), peer(3)], &[member(1), copying]), "h2 has not caught up");
    assert_eq!(primary(&[secondary(2), peer(3)], &[member(1), member(2)]), Step::Add("h3".to_owned()));
    assert_eq!(primary(&[secondary(2), secondary(3)], &[member(1), member(2), member(3)]), Step::Idle);
}

#[test]
fn node_that_does_not_run_or_answer_is_not_added() {
    assert_eq!(primary(&[silent(2)], &[member(1)]), Step::Idle);
    assert_eq!(primary(&[Peer { running: false, ..peer(2) }], &[member(1)]), Step::Idle);
    assert_eq!(primary(&[in_set(2, MemberState::Standalone)], &[member(1)]), Step::Idle);
}

#[test]
fn replacement_is_added_at_a_new_address_and_not_at_the_old_one() {
    // h4 replaces h3, which has not been missing for long enough yet.
    let three = [member(1), member(2), unreachable(3)];
    assert_eq!(primary(&[secondary(2), peer(4)], &three), Step::Add("h4".to_owned()));
    // At the same address it already is a member, and its empty database learns so from the others.
    assert_eq!(primary(&[secondary(2), Peer { id: "i-4".to_owned(), ..peer(3) }], &three), Step::Idle);
}

#[test]
fn missing_member_is_removed_before_others_are_added() {
    let members = [member(1), member(2), missing(3)];
    assert_eq!(primary(&[secondary(2), peer(4)], &members), Step::Remove("h3".to_owned()));
    assert_eq!(primary(&[secondary(2)], &members), Step::Remove("h3".to_owned()));
    // One at a time.
    let five = [member(1), member(2), member(3), missing(4), missing(5)];
    assert_eq!(primary(&[secondary(2), secondary(3)], &five), Step::Remove("h4".to_owned()));
}

#[test]
fn member_that_is_briefly_silent_or_still_answers_is_kept() {
    assert_eq!(primary(&[secondary(2)], &[member(1), member(2), unreachable(3)]), Step::Idle);
    // Its tags were changed, or EC2's list is wrong.
    let untagged = Member { missing: true, ..member(3) };
    assert_eq!(primary(&[secondary(2)], &[member(1), member(2), untagged]), Step::Idle);
    let own = Member { missing: true, ..unreachable(1) };
    assert_eq!(primary(&[secondary(2)], &[own, member(2)]), Step::Idle);
}

#[test]
fn no_member_is_removed_if_that_would_lose_the_majority() {
    // Two of five answer: not a primary for long; a smaller set would not have a majority either.
    let members = [member(1), member(2), unreachable(3), unreachable(4), missing(5)];
    assert_waits(&primary(&[secondary(2), silent(3), silent(4)], &members), "no majority");
    // Without h3 two of two answer.
    assert_eq!(primary(&[secondary(2)], &[member(1), member(2), missing(3)]), Step::Remove("h3".to_owned()));
    // A member without a vote costs none.
    let non_voter = Member { votes: false, ..missing(3) };
    assert_eq!(primary(&[secondary(2)], &[member(1), member(2), non_voter]), Step::Remove("h3".to_owned()));
}

#[test]
fn no_member_is_added_if_that_would_lose_the_majority() {
    assert_waits(
        &primary(&[silent(2), silent(3), peer(4)], &[member(1), unreachable(2), unreachable(3)]),
        "too few members answer",
    );
    assert_eq!(primary(&[secondary(2), peer(4)], &[member(1), member(2), unreachable(3)]), Step::Add("h4".to_owned()));
}

#[test]
fn no_member_is_added_beyond_the_voter_limit() {
    let peers: Vec<_> = (2..=7).map(secondary).chain([peer(8)]).collect();
    let members: Vec<_> = (1..=7).map(member).collect();
    assert_waits(&primary(&peers, &members), "one too many");
}

#[test]
fn second_set_in_the_cluster_is_reported_and_not_changed() {
    assert_waits(&primary(&[in_set(2, MemberState::Primary)], &[member(1)]), "i-2 is in another replica set");
    // A new node is still added.
    assert_eq!(primary(&[in_set(2, MemberState::Primary), peer(3)], &[member(1)]), Step::Add("h3".to_owned()));
}

#[test]
fn member_is_missing_once_it_was_not_listed_for_the_grace_period() {
    let start = Instant::now();
    let members = ["h1".to_owned(), "h2".to_owned()];
    let mut missing_members = MissingMembers::default();
    missing_members.observe(&members, &[peer(1)], start);
    assert!(
        !missing_members.is_missing("h2", start + MISSING_GRACE_PERIOD)
            && missing_members.is_missing("h2", start + 2 * MISSING_GRACE_PERIOD)
    );
    assert!(!missing_members.is_missing("h1", start + 2 * MISSING_GRACE_PERIOD));
    // Listed again in between: the period starts again.
    missing_members.observe(&members, &[peer(1), peer(2)], start + MISSING_GRACE_PERIOD);
    missing_members.observe(&members, &[peer(1)], start + 2 * MISSING_GRACE_PERIOD);
    assert!(!missing_members.is_missing("h2", start + 3 * MISSING_GRACE_PERIOD));
    // No longer a member: its record is dropped.
    missing_members.observe(&members[..1], &[peer(1)], start + 4 * MISSING_GRACE_PERIOD);
    assert!(!missing_members.is_missing("h2", start + 9 * MISSING_GRACE_PERIOD));
}

#[test]
fn set_is_initiated_once_the_decision_was_stable() {
    let start = Instant::now();
    let mut stable_period = StablePeriod::default();
    assert!(!stable_period.observe(&Step::Initiate, start));
    assert!(!stable_period.observe(&Step::Initiate, start + MIN_STABLE_PERIOD / 2));
    assert!(stable_period.observe(&Step::Initiate, start + MIN_STABLE_PERIOD));
    // Another decision in between: the period starts again.
    assert!(!stable_period.observe(&Step::Wait(String::new()), start + MIN_STABLE_PERIOD));
    assert!(!stable_period.observe(&Step::Initiate, start + MIN_STABLE_PERIOD));
    assert!(stable_period.observe(&Step::Initiate, start + 2 * MIN_STABLE_PERIOD));
}
