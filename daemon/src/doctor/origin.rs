//! Checks that this node can fetch streams from other nodes: connection and mutual proof of the
//! relay secret.
//!
//! The running engine connects, since it holds the secret and implements the protocol.

use headwater_api::Config;
use headwater_api::control::Endpoints;
use headwater_api::control::RelayStatus;
use headwater_api::error::Chain;

use super::{Finding, REQUEST_TIMEOUT};
use crate::http_client;
use crate::process::engine::dial_address;

const CHECK: &str = "relay";

/// Asks the engine to connect to the relay of each node.
pub(super) async fn check(config: &Config, engine: Option<&Endpoints>) -> Finding {
    let Some(engine) = engine else {
        return Finding::skip(CHECK, "no engine runs that could connect");
    };
    if engine.relay.is_none() && config.relay.secret_file.is_none() {
        return Finding::skip(CHECK, "a node without a cluster");
    }
    match http_client::get(dial_address(engine.health), "/relays", REQUEST_TIMEOUT).await {
        Ok(answer) => match serde_json::from_slice(answer.body()) {
            Ok(relays) => judge(relays),
            Err(_) => Finding::fail(CHECK, format!("the engine answers {}", answer.status()), "read the node's log"),
        },
        Err(e) => Finding::fail(CHECK, Chain(&e).to_string(), "read the node's log"),
    }
}

fn judge(relays: Vec<RelayStatus>) -> Finding {
    let failed: Vec<_> =
        relays.iter().filter_map(|r| Some(format!("{} ({}): {}", r.node, r.address, r.err.as_ref()?))).collect();
    if relays.is_empty() {
        return Finding::warn(
            CHECK,
            "no other node has a relay",
            "start an origin; until then there is nothing to fetch",
        );
    }
    if failed.is_empty() {
        return Finding::ok(
            CHECK,
            format!("{} of {} other nodes answer and know the secret", relays.len(), relays.len()),
        );
    }
    let remedy = if failed.iter().any(|text| text.contains("secret")) {
        "give all nodes the same secret (headwater/CLUSTER/relay), and restart those that have another"
    } else {
        "admit port 5000 from the cluster's own security group"
    };
    Finding::fail(CHECK, failed.join("; "), remedy)
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    fn relay(err: Option<&str>) -> RelayStatus {
        RelayStatus { node: "i-1".to_owned(), address: "10.0.0.1:5000".parse().unwrap(), err: err.map(str::to_owned) }
    }

    #[tokio::test]
    async fn unreachable_relay_or_wrong_secret_fails_with_a_remedy() {
        assert_eq!(judge(vec![relay(None)]).status, CheckStatus::Ok);
        assert_eq!(judge(Vec::new()).status, CheckStatus::Warn);
        let closed = judge(vec![relay(None), relay(Some("Connection refused"))]);
        assert_eq!(closed.status, CheckStatus::Fail);
        assert!(closed.message.contains("10.0.0.1:5000") && closed.remedy.contains("port 5000"));
        assert!(judge(vec![relay(Some("the peer does not know the cluster secret"))]).remedy.contains("same secret"));
        assert_eq!(check(&Config::default(), None).await.status, CheckStatus::Skip);
    }
}
