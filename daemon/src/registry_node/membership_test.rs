//! Every decision about the members of a replica set, as tables.

use super::*;

fn hello(state: MemberState) -> Hello {
    let set = (!matches!(state, MemberState::Setless | MemberState::Alone)).then(|| "headwater-demo".to_owned());
    Hello { state, set, hosts: Vec::new() }
}

/// `i-N` at `hN`; running and without a set.
fn peer(n: u32) -> Peer {
    Peer { id: format!("i-{n}"), host: format!("h{n}"), running: true, hello: Some(hello(MemberState::Setless)) }
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

fn lost(n: u32) -> Member {
    Member { reachable: false, serving: false, ..member(n) }
}

fn gone(n: u32) -> Member {
    Member { missing: true, ..lost(n) }
}

/// The step of `i-1`, whose database has no set.
fn new(peers: &[Peer]) -> Step {
    next_step(&SetView { own_id: "i-1".to_owned(), state: MemberState::Setless, peers: peers.to_vec(), members: Vec::new() })
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

fn waits(step: &Step, part: &str) {
    assert!(matches!(step, Step::Wait(why) if why.contains(part)), "{step:?}: {part}");
}

#[test]
fn a_lone_node_begins_its_set_at_once() {
    assert_eq!(new(&[peer(1)]), Step::Initiate);
}

#[test]
fn of_several_new_nodes_the_first_by_id_begins_the_set() {
    assert_eq!(new(&[peer(1), peer(2), peer(3)]), Step::Initiate);
    assert_eq!(new(&[peer(3), peer(2), peer(1)]), Step::Initiate);
    waits(&new(&[peer(0), peer(1), peer(2)]), "registry node i-0 begins");
}

#[test]
fn no_set_is_begun_while_a_peer_does_not_answer_or_is_not_what_it_should_be() {
    waits(&new(&[peer(1), silent(2)]), "before registry node i-2 (h2) answers");
    waits(&new(&[peer(1), peer(2), silent(3)]), "i-3");
    // It will start its database in a moment; or it is stopped and may hold the data.
    let not_running = Peer { running: false, ..silent(2) };
    waits(&new(&[peer(1), not_running]), "i-2");
    waits(&new(&[peer(1), in_set(2, MemberState::Alone)]), "i-2");
}

#[test]
fn no_set_is_begun_beside_another_whatever_its_state_and_whoever_else_is_silent() {
    for state in [MemberState::Primary, MemberState::Secondary, MemberState::Busy] {
        waits(&new(&[peer(1), in_set(2, state)]), "i-2's replica set to take this node in");
        waits(&new(&[peer(1), silent(3), in_set(2, state)]), "take this node in");
    }
}

#[test]
fn nothing_is_done_by_a_node_that_ec2_does_not_list_as_running() {
    waits(&new(&[]), "EC2 does not list");
    waits(&new(&[peer(2)]), "EC2 does not list");
    waits(&new(&[Peer { running: false, ..peer(1) }]), "EC2 does not list");
    let view = SetView {
        own_id: "i-9".to_owned(),
        state: MemberState::Primary,
        peers: vec![peer(2)],
        members: vec![member(9), gone(1)],
    };
    waits(&next_step(&view), "EC2 does not list");
}

#[test]
fn who_is_not_the_primary_changes_nothing() {
    for state in [MemberState::Secondary, MemberState::Busy] {
        let view = SetView { own_id: "i-1".to_owned(), state, peers: vec![peer(1), peer(2)], members: Vec::new() };
        assert_eq!(next_step(&view), Step::Idle);
    }
    let view = SetView { own_id: "i-1".to_owned(), state: MemberState::Alone, peers: vec![peer(1)], members: Vec::new() };
    waits(&next_step(&view), "without a replica set");
}

#[test]
fn the_primary_takes_in_new_nodes_one_at_a_time() {
    assert_eq!(primary(&[peer(2), peer(3)], &[member(1)]), Step::Add("h2".to_owned()));
    // The first one is still copying: the second must wait.
    let copying = Member { serving: false, ..member(2) };
    waits(&primary(&[in_set(2, MemberState::Busy), peer(3)], &[member(1), copying]), "h2 has not caught up");
    assert_eq!(primary(&[secondary(2), peer(3)], &[member(1), member(2)]), Step::Add("h3".to_owned()));
    assert_eq!(primary(&[secondary(2), secondary(3)], &[member(1), member(2), member(3)]), Step::Idle);
}

#[test]
fn a_node_that_does_not_run_or_answer_yet_is_not_taken_in() {
    assert_eq!(primary(&[silent(2)], &[member(1)]), Step::Idle);
    assert_eq!(primary(&[Peer { running: false, ..peer(2) }], &[member(1)]), Step::Idle);
    assert_eq!(primary(&[in_set(2, MemberState::Alone)], &[member(1)]), Step::Idle);
}

#[test]
fn a_replaced_node_is_taken_in_at_a_new_address_and_needs_nothing_at_the_old_one() {
    // h4 replaces h3, which has not been missing for long enough yet.
    let three = [member(1), member(2), lost(3)];
    assert_eq!(primary(&[secondary(2), peer(4)], &three), Step::Add("h4".to_owned()));
    // At the same address it already is a member, and its empty database learns so from the others.
    assert_eq!(primary(&[secondary(2), Peer { id: "i-4".to_owned(), ..peer(3) }], &three), Step::Idle);
}

#[test]
fn who_is_gone_for_long_is_let_go_of_before_others_are_taken_in() {
    let members = [member(1), member(2), gone(3)];
    assert_eq!(primary(&[secondary(2), peer(4)], &members), Step::Remove("h3".to_owned()));
    assert_eq!(primary(&[secondary(2)], &members), Step::Remove("h3".to_owned()));
    // One at a time.
    let five = [member(1), member(2), member(3), gone(4), gone(5)];
    assert_eq!(primary(&[secondary(2), secondary(3)], &five), Step::Remove("h4".to_owned()));
}

#[test]
fn who_is_silent_for_a_moment_or_still_answers_is_kept() {
    assert_eq!(primary(&[secondary(2)], &[member(1), member(2), lost(3)]), Step::Idle);
    // Its tags were changed, or EC2's list is wrong.
    let untagged = Member { missing: true, ..member(3) };
    assert_eq!(primary(&[secondary(2)], &[member(1), member(2), untagged]), Step::Idle);
    let ourselves = Member { missing: true, ..lost(1) };
    assert_eq!(primary(&[secondary(2)], &[ourselves, member(2)]), Step::Idle);
}

#[test]
fn nobody_is_let_go_of_if_that_would_cost_the_majority() {
    // Two of five answer: not a primary for long; a smaller set would not have a majority either.
    let members = [member(1), member(2), lost(3), lost(4), gone(5)];
    waits(&primary(&[secondary(2), silent(3), silent(4)], &members), "no majority");
    // Without h3 two of two answer.
    assert_eq!(primary(&[secondary(2)], &[member(1), member(2), gone(3)]), Step::Remove("h3".to_owned()));
    // A member without a vote costs none.
    let mute = Member { votes: false, ..gone(3) };
    assert_eq!(primary(&[secondary(2)], &[member(1), member(2), mute]), Step::Remove("h3".to_owned()));
}

#[test]
fn nobody_is_taken_in_if_that_would_cost_the_majority() {
    waits(&primary(&[silent(2), silent(3), peer(4)], &[member(1), lost(2), lost(3)]), "too few members answer");
    assert_eq!(primary(&[secondary(2), peer(4)], &[member(1), member(2), lost(3)]), Step::Add("h4".to_owned()));
}

#[test]
fn more_than_can_vote_are_not_taken_in() {
    let peers: Vec<_> = (2..=7).map(secondary).chain([peer(8)]).collect();
    let members: Vec<_> = (1..=7).map(member).collect();
    waits(&primary(&peers, &members), "one too many");
}

#[test]
fn a_second_set_in_the_cluster_is_said_and_not_touched() {
    waits(&primary(&[in_set(2, MemberState::Primary)], &[member(1)]), "i-2 is in another replica set");
    // A new node is still added.
    assert_eq!(primary(&[in_set(2, MemberState::Primary), peer(3)], &[member(1)]), Step::Add("h3".to_owned()));
}

#[test]
fn a_member_is_gone_once_it_was_not_listed_for_the_whole_grace() {
    let start = Instant::now();
    let members = ["h1".to_owned(), "h2".to_owned()];
    let mut absences = MissingMembers::default();
    absences.observe(&members, &[peer(1)], start);
    assert!(!absences.is_missing("h2", start + MISSING_GRACE_PERIOD) && absences.is_missing("h2", start + 2 * MISSING_GRACE_PERIOD));
    assert!(!absences.is_missing("h1", start + 2 * MISSING_GRACE_PERIOD));
    // Listed again in between: the period starts again.
    absences.observe(&members, &[peer(1), peer(2)], start + MISSING_GRACE_PERIOD);
    absences.observe(&members, &[peer(1)], start + 2 * MISSING_GRACE_PERIOD);
    assert!(!absences.is_missing("h2", start + 3 * MISSING_GRACE_PERIOD));
    // No longer a member: its record is dropped.
    absences.observe(&members[..1], &[peer(1)], start + 4 * MISSING_GRACE_PERIOD);
    assert!(!absences.is_missing("h2", start + 9 * MISSING_GRACE_PERIOD));
}

#[test]
fn a_set_is_begun_once_nothing_has_spoken_against_it_for_a_while() {
    let start = Instant::now();
    let mut calm = StablePeriod::default();
    assert!(!calm.observe(&Step::Initiate, start));
    assert!(!calm.observe(&Step::Initiate, start + MIN_STABLE_PERIOD / 2));
    assert!(calm.observe(&Step::Initiate, start + MIN_STABLE_PERIOD));
    // Another decision in between: the period starts again.
    assert!(!calm.observe(&Step::Wait(String::new()), start + MIN_STABLE_PERIOD));
    assert!(!calm.observe(&Step::Initiate, start + MIN_STABLE_PERIOD));
    assert!(calm.observe(&Step::Initiate, start + 2 * MIN_STABLE_PERIOD));
}
