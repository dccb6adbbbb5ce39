//! A database that is unreachable, refuses, is slow, loses connections, or has lost its primary:
//! every call fails within its timeout, with a sentence that names the cause.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;

use super::proxy::Proxy;
use super::scripted::ReplicaSet;
use super::wire::Connections;
use super::{MongoDb, scratch_uri, uri};
use crate::{Nodes as _, Registry as _, RegistryError, Streams as _, contract};

/// Timeout of the calls in these tests.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

async fn open(uri: &str) -> MongoDb {
    MongoDb::open_with_timeout(&Secret::new(uri), contract::TIMING, CALL_TIMEOUT).await.unwrap()
}

/// The registry, opened through a proxy.
async fn through_proxy(name: &str) -> Option<(MongoDb, Proxy)> {
    let uri = scratch_uri(&uri()?, name);
    let (scheme, rest) = uri.reveal().split_once("://").unwrap();
    let (user, rest) = rest.rsplit_once('@').map_or((String::new(), rest), |(user, rest)| (format!("{user}@"), rest));
    let (server, rest) = rest.split_once('/').unwrap();
    let proxy = Proxy::start(server.to_owned(), None).await;
    let registry = open(&direct(&format!("{scheme}://{user}{}/{rest}", proxy.address))).await;
    registry.probe().await.unwrap();
    Some((registry, proxy))
}

/// The proxy is in front of one server, which may list others.
fn direct(uri: &str) -> String {
    if uri.contains("directConnection=") { uri.to_owned() } else { format!("{uri}&directConnection=true") }
}

fn sentence(error: &RegistryError) -> String {
    Chain(error).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_database_is_reported_within_the_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let registry = open(&format!("mongodb://{address}/")).await;
    let start = Instant::now();
    let error = registry.probe().await.unwrap_err();
    assert!(start.elapsed() < CALL_TIMEOUT + Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(matches!(error, RegistryError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    let expected = format!("could not write a probe: the database {address} is unreachable");
    assert!(
        sentence(&error).starts_with(&expected) && sentence(&error).contains("Connection refused"),
        "{}",
        sentence(&error)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn call_times_out_if_the_database_never_answers() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = open(&format!("mongodb://{}/?directConnection=true", listener.local_addr().unwrap())).await;
    let start = Instant::now();
    let error = registry.probe().await.unwrap_err();
    assert!(start.elapsed() < CALL_TIMEOUT + Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_password_is_a_permanent_error_and_not_shown() {
    let Some(uri) = uri() else { return };
    let Some((scheme, (user, rest))) = uri.split_once("://").and_then(|(s, r)| Some((s, r.split_once('@')?))) else {
        return super::skipped("the test database requires no password");
    };
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    let registry = open(&format!("{scheme}://{user}:wrong-hunter2@{rest}")).await;
    let error = registry.probe().await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }) && !error.is_retryable(), "{error:?}");
    assert!(sentence(&error).to_lowercase().contains("auth"), "{}", sentence(&error));
    assert!(!format!("{error:?} {}", sentence(&error)).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_trusted_only_with_its_issuer_and_for_its_name() {
    let Some(uri) = uri() else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let uri = scratch_uri(&uri, "tls");
    let server = uri.reveal().rsplit_once('@').map_or(uri.reveal(), |(_, rest)| rest).split_once('/').unwrap().0;
    let (trusted_issuer, other_issuer) = (issuer(), issuer());
    let folder = std::env::temp_dir().join(format!("headwater-registry-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("ca.pem");
    std::fs::write(&file, trusted_issuer.pem()).unwrap();
    for (name, issuer, host, trusted) in [
        ("trusted", &trusted_issuer, "localhost", true),
        ("another issuer", &other_issuer, "localhost", false),
        ("another name", &trusted_issuer, "registry.example", false),
    ] {
        let proxy = Proxy::start(server.to_owned(), Some(acceptor(issuer, host))).await;
        let address = format!("localhost:{}", proxy.address.port());
        let uri = direct(&uri.reveal().replace(server, &address)) + "&tls=true&tlsCAFile=" + file.to_str().unwrap();
        let outcome = open(&uri).await.probe().await;
        assert_eq!(outcome.is_ok(), trusted, "{name}: {outcome:?}");
        if let Err(error) = outcome {
            assert!(matches!(error, RegistryError::Refused { .. }) && !error.is_retryable(), "{name}: {error:?}");
            assert!(sentence(&error).contains("certificate"), "{name}: {}", sentence(&error));
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_database_is_awaited_and_a_stalled_one_times_out() {
    let Some((registry, proxy)) = through_proxy("slow").await else { return };
    proxy.faults.delay_ms.store(500, Ordering::SeqCst);
    let incarnation = contract::register(&registry, "slow").await;
    registry.heartbeat(&incarnation, &Default::default()).await.unwrap();

    proxy.faults.stalled.store(true, Ordering::SeqCst);
    let start = Instant::now();
    let error = registry.heartbeat(&incarnation, &Default::default()).await.unwrap_err();
    assert!(start.elapsed() < CALL_TIMEOUT + Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(matches!(error, RegistryError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    assert!(sentence(&error).starts_with("could not renew the lease of node slow: "), "{}", sentence(&error));

    proxy.faults.stalled.store(false, Ordering::SeqCst);
    proxy.faults.delay_ms.store(0, Ordering::SeqCst);
    proxy.cut();
    contract::until("recovery", async || registry.heartbeat(&incarnation, &Default::default()).await.ok()).await;
    registry.database().await.drop().await.unwrap();
}

/// The answer to a write is lost: the error is retryable, and repeating the write is harmless.
#[tokio::test(flavor = "multi_thread")]
async fn claim_whose_answer_was_lost_can_be_repeated() {
    let Some((registry, proxy)) = through_proxy("cut").await else { return };
    let incarnation = contract::register(&registry, "a").await;
    let other = contract::register(&registry, "b").await;
    for round in 0..10 {
        let name = contract::name(&format!("live/{round}"));
        // Late enough that the database has the request, early enough that the answer is not sent.
        proxy.faults.delay_ms.store(300, Ordering::SeqCst);
        let claim = {
            let (registry, incarnation, name) = (registry.clone(), incarnation.clone(), name.clone());
            tokio::spawn(async move { registry.claim(&incarnation, &name, &contract::offer(1), None).await })
        };
        tokio::time::sleep(Duration::from_millis(30 * round)).await;
        proxy.faults.refusing.store(true, Ordering::SeqCst);
        proxy.cut();
        let outcome = claim.await.unwrap();
        proxy.faults.delay_ms.store(0, Ordering::SeqCst);
        proxy.faults.refusing.store(false, Ordering::SeqCst);
        if let Err(error) = &outcome {
            assert!(error.is_retryable(), "{error:?}");
        }
        let again = contract::until("recovery", async || {
            registry.claim(&incarnation, &name, &contract::offer(1), None).await.ok()
        });
        let again = again.await;
        assert_eq!(registry.stream(&name).await.unwrap().unwrap().claim, again);
        let error = registry.claim(&other, &name, &contract::offer(2), None).await.unwrap_err();
        assert!(matches!(error, RegistryError::Taken { .. }), "{error:?}");
    }
    registry.database().await.drop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_continue_on_the_new_primary() {
    let set = ReplicaSet::start().await;
    let registry = open(&set.uri).await;
    assert_eq!(registry.probe().await.unwrap(), 1, "not the first member");
    set.elect(1);
    assert_eq!(registry.probe().await.unwrap(), 2, "not the second member");
}

#[tokio::test(flavor = "multi_thread")]
async fn write_without_a_primary_is_retryable_and_succeeds_after_an_election() {
    let set = ReplicaSet::start().await;
    let registry = open(&set.uri).await;
    registry.probe().await.unwrap();
    set.elect(-1);
    let start = Instant::now();
    let error = registry.probe().await.unwrap_err();
    assert!(start.elapsed() < CALL_TIMEOUT + Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(matches!(error, RegistryError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    set.elect(0);
    let start = Instant::now();
    contract::until("recovery", async || registry.probe().await.ok()).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_retryable_and_missing_rights_are_not() {
    let set = ReplicaSet::start().await;
    let registry = open(&set.uri).await;
    for (code, retryable) in [(14_031, true), (13, false), (64, true)] {
        set.fail_with(code);
        let error = registry.probe().await.unwrap_err();
        assert!(matches!(error, RegistryError::Refused { .. }), "{code}: {error:?}");
        assert_eq!(error.is_retryable(), retryable, "{code}: {error:?}");
    }
    set.fail_with(0);
    registry.probe().await.unwrap();
}

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn acceptor(issuer: &CertifiedIssuer<'static, KeyPair>, host: &str) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

/// The daemon writes this file again when the secret in AWS changes.
#[tokio::test(flavor = "multi_thread")]
async fn changed_password_in_the_file_is_used_by_an_open_registry() {
    let Some(uri) = uri() else { return };
    if !uri.contains('@') {
        return super::skipped("the test database requires no password");
    }
    let valid = scratch_uri(&uri, "source");
    let (login, rest) = valid.reveal().split_once('@').unwrap();
    let file = std::env::temp_dir().join(format!("headwater-registry-source-{}", std::process::id()));
    std::fs::write(&file, format!("{login}wrong@{rest}\n")).unwrap();
    let config = headwater_api::config::Registry {
        kind: headwater_api::config::RegistryKind::MongoDb,
        uri_file: Some(file.clone()),
    };
    let store = crate::Store::open(&config, &std::env::temp_dir()).await.unwrap();
    assert!(matches!(store.probe().await, Err(RegistryError::Refused { .. })));
    std::fs::write(&file, format!("{}\n", valid.reveal())).unwrap();
    assert!(store.probe().await.is_ok(), "the call that fails reads the file again");
    // An empty file changes nothing.
    std::fs::write(&file, "\n").unwrap();
    assert!(store.probe().await.is_ok());
    std::fs::remove_file(&file).unwrap();
    open(valid.reveal()).await.database().await.drop().await.unwrap();
}

/// One client has a monitoring connection to each of the two members, and one for calls.
#[tokio::test(flavor = "multi_thread")]
async fn moved_database_is_opened_once_by_all_calls_and_the_old_one_is_closed() {
    const CLIENT_CONNECTIONS: usize = 3;
    let (mut old, mut new) = (ReplicaSet::start().await, ReplicaSet::start().await);
    let file = std::env::temp_dir().join(format!("headwater-registry-moved-{}", std::process::id()));
    let write_uri = |set: &ReplicaSet| std::fs::write(&file, format!("{}&maxPoolSize=1\n", set.uri)).unwrap();
    write_uri(&old);
    let config = headwater_api::config::Registry {
        kind: headwater_api::config::RegistryKind::MongoDb,
        uri_file: Some(file.clone()),
    };
    let store = crate::Store::open(&config, &std::env::temp_dir()).await.unwrap();
    store.probe().await.unwrap();
    let connected = |now: &Connections| now.open >= CLIENT_CONNECTIONS;
    old.connections.wait_for(connected).await.unwrap();
    write_uri(&new);
    old.fail_with(13);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let store = store.clone();
        calls.spawn(async move { store.probe().await });
    }
    let failed: Vec<_> = calls.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} calls were not repeated: {}", failed.len(), sentence(&failed[0]));
    let closed = tokio::time::timeout(10 * CALL_TIMEOUT, old.connections.wait_for(|now| now.open == 0)).await.is_ok();
    assert!(closed, "connections to the database that was replaced: {:?}", *old.connections.borrow());
    new.connections.wait_for(connected).await.unwrap();
    assert_eq!(*new.connections.borrow(), Connections { total: CLIENT_CONNECTIONS, open: CLIENT_CONNECTIONS });
    std::fs::remove_file(&file).unwrap();
}
