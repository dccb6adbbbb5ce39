//! Tests of the selection of addresses, with real datagrams from and to sockets on loopback.

use std::net::UdpSocket;
use std::sync::Arc;

use headwater_wire::webrtc::BindingRequest;
use rtc_crypto::RTCCryptoProvider;

use super::*;
use crate::gateway::webrtc::transport::test_peer::{self, TestPeer};

const TAG: u32 = 7;

/// An agent and its socket. Addresses of the peer are real sockets, so that what arrives there can
/// be counted.
struct Agent {
    ice: IceAgent,
    socket: Socket,
    peer: TestPeer,
    provider: Arc<dyn RTCCryptoProvider>,
    now: Instant,
}

impl Agent {
    fn new() -> Self {
        let (local, peer, now) = (generate_credentials(), generate_credentials(), Instant::now());
        let ice = IceAgent::new(local.clone(), peer.clone(), TAG, now);
        let provider = rtc_crypto::default_provider().unwrap();
        Self { ice, socket: Socket::bind(0).unwrap(), peer: TestPeer::new(peer, local), provider, now }
    }

    /// Delivers a check that claims to come from `from`.
    fn check(&mut self, from: &UdpSocket, nominated: bool) -> CheckOutcome {
        let check = self.peer.check(nominated);
        let mut request = BindingRequest::parse(&check).unwrap();
        let pair = test_peer::pair(from);
        let crypto = self.provider.crypto();
        let outcome = self.ice.on_check(self.now, &mut request, &pair, check.len(), &mut self.socket, crypto).unwrap();
        self.socket.flush();
        outcome
    }

    /// Delivers the answers of the peer at `at` to the own checks that arrived there. Returns the
    /// number of accepted answers.
    fn answer(&mut self, at: &UdpSocket) -> usize {
        let answers: Vec<_> = test_peer::received(at).iter().filter_map(|d| self.peer.answer(d, at)).collect();
        answers.iter().filter(|answer| self.deliver(answer, at)).count()
    }

    fn deliver(&mut self, answer: &[u8], from: &UdpSocket) -> bool {
        let mut response = BindingResponse::parse(answer).unwrap();
        assert_eq!(IceAgent::tag_of(&response), TAG);
        self.ice.on_answer(self.now, &mut response, &test_peer::pair(from), self.provider.crypto())
    }

    fn tick(&mut self) {
        self.ice.on_timeout(self.now, &mut self.socket, self.provider.crypto());
        self.socket.flush();
    }

    fn media_address(&self) -> Option<SocketAddr> {
        self.ice.media_pair(self.now).map(|pair| pair.remote)
    }
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

#[test]
fn address_gets_media_only_after_it_has_answered_a_check() {
    let (mut agent, a) = (Agent::new(), test_peer::bind());
    agent.check(&a, true);
    assert_eq!(agent.media_address(), None);
    assert_eq!(agent.answer(&a), 1);
    assert_eq!(agent.media_address(), Some(address(&a)));
}

#[test]
fn nominated_address_is_selected_only_after_it_has_answered() {
    let (mut agent, a, b) = (Agent::new(), test_peer::bind(), test_peer::bind());
    agent.check(&a, true);
    agent.answer(&a);
    for _ in 0..3 {
        agent.check(&b, true);
        assert_eq!(agent.media_address(), Some(address(&a)), "a forged check moved the media");
    }
    assert!(agent.answer(&b) > 0);
    assert_eq!(agent.media_address(), Some(address(&b)));
    // Without a nomination, an address that answers is not selected while the other one answers.
    agent.check(&a, false);
    agent.answer(&a);
    assert_eq!(agent.media_address(), Some(address(&b)));
}

#[test]
fn answer_proves_only_the_address_to_which_the_check_was_sent() {
    let (mut agent, a, b) = (Agent::new(), test_peer::bind(), test_peer::bind());
    agent.check(&a, true);
    agent.check(&b, true);
    let own_checks = test_peer::received(&a);
    let answer = own_checks.iter().find_map(|check| agent.peer.answer(check, &a)).unwrap();
    assert!(!agent.deliver(&answer, &b), "an answer with a forged source was accepted");
    assert!(agent.deliver(&answer, &a));
    assert!(!agent.deliver(&answer, &a), "a replayed answer was accepted");
    assert_eq!(agent.media_address(), Some(address(&a)));
}

#[test]
fn unproven_address_gets_at_most_three_times_what_came_from_it() {
    let (mut agent, victim) = (Agent::new(), test_peer::bind());
    let mut forged_bytes = 0;
    for _ in 0..20 {
        agent.check(&victim, true);
        forged_bytes += agent.peer.check(true).len();
        // Retransmissions of a handshake, and checks of the timer.
        for _ in 0..20 {
            let pair = test_peer::pair(&victim);
            agent.ice.send(&pair, &[0; 1_000], &mut agent.socket);
            agent.now += Duration::from_secs(1);
            agent.tick();
        }
    }
    let received: usize = test_peer::received(&victim).iter().map(Vec::len).sum();
    assert!(received > 0 && received <= 3 * forged_bytes, "{received} bytes for {forged_bytes}");
}

/// RFC 7675 §5.1.
#[test]
fn media_pauses_six_seconds_after_the_last_answer_and_the_session_ends_after_thirty() {
    let (mut agent, a) = (Agent::new(), test_peer::bind());
    agent.check(&a, true);
    agent.answer(&a);
    let last_answer = agent.now;
    for second in 1..=31 {
        agent.now = last_answer + Duration::from_secs(second);
        // Checks of the peer prove nothing.
        agent.check(&a, true);
        assert_eq!(agent.media_address().is_some(), second <= 6, "after {second} s");
        assert_eq!(agent.ice.is_expired(agent.now, Duration::from_secs(30)), second > 30, "after {second} s");
    }
    assert!(agent.answer(&a) > 0);
    assert_eq!(agent.media_address(), Some(address(&a)), "media continues");
}

#[test]
fn selected_address_is_checked_once_a_second() {
    let (mut agent, a) = (Agent::new(), test_peer::bind());
    agent.check(&a, true);
    agent.answer(&a);
    for _ in 0..50 {
        agent.tick();
        agent.now += Duration::from_millis(100);
    }
    assert_eq!(test_peer::received(&a).len(), 5 + 1, "in 5 s, the first at once");
}

#[test]
fn silent_selected_address_is_replaced_by_one_that_answers() {
    let (mut agent, a, b) = (Agent::new(), test_peer::bind(), test_peer::bind());
    agent.check(&a, true);
    agent.answer(&a);
    agent.now += Duration::from_secs(7);
    agent.check(&b, false);
    agent.answer(&b);
    assert_eq!(agent.media_address(), Some(address(&b)));
}

#[test]
fn forged_checks_do_not_displace_the_real_address() {
    let (mut agent, a) = (Agent::new(), test_peer::bind());
    agent.check(&a, true);
    agent.answer(&a);
    let forged: Vec<_> = (0..=MAX_REMOTE_ADDRESSES).map(|_| test_peer::bind()).collect();
    let evicted: Vec<_> = forged
        .iter()
        .map(|from| match agent.check(from, true) {
            CheckOutcome::Valid { evicted } => evicted,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(evicted.iter().flatten().collect::<Vec<_>>(), [&address(&forged[0]), &address(&forged[1])]);
    assert_eq!(agent.ice.remote_addresses().count(), MAX_REMOTE_ADDRESSES);
    assert_eq!(agent.media_address(), Some(address(&a)));
}

#[test]
fn replayed_check_from_another_address_is_not_answered() {
    let (mut agent, a, b) = (Agent::new(), test_peer::bind(), test_peer::bind());
    let check = agent.peer.check(true);
    let outcomes = [&a, &a, &b].map(|from| {
        let mut request = BindingRequest::parse(&check).unwrap();
        let pair = test_peer::pair(from);
        let crypto = agent.provider.crypto();
        agent.ice.on_check(agent.now, &mut request, &pair, check.len(), &mut agent.socket, crypto).unwrap()
    });
    agent.socket.flush();
    assert_eq!(outcomes, [CheckOutcome::Valid { evicted: None }, CheckOutcome::Repeated, CheckOutcome::Replayed]);
    // Two responses and one own check.
    assert_eq!((test_peer::received(&a).len(), test_peer::received(&b).len()), (3, 0));
}

#[test]
fn number_of_remembered_checks_is_limited_to_the_newest() {
    let (mut agent, a) = (Agent::new(), test_peer::bind());
    for _ in 0..2 * MAX_TRANSACTIONS {
        agent.check(&a, true);
    }
    assert_eq!(agent.ice.transactions.len(), MAX_TRANSACTIONS);
}
