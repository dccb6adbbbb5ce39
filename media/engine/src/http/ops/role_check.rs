//! What the role of a node requires besides its listeners, for `/readyz`. Pure functions.

use headwater_api::config::Role;

/// Where a node finds the streams of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstream {
    /// Nowhere.
    None,
    /// At the origins that its configuration names.
    Fixed,
    /// In the registry that the cluster shares.
    Registry {
        /// True if the last query failed.
        unreachable: bool,
    },
}

/// The check that a role adds: its name and result. `has_relay` is true if the node has the
/// cluster's secret, and with it a relay listener and a relay client.
pub(super) fn check(role: Role, has_relay: bool, upstream: Upstream) -> Option<(&'static str, Result<(), String>)> {
    match role {
        // A listener that exists is probed.
        Role::Origin if has_relay => None,
        Role::Origin => Some((
            "relay",
            Err("no other node can fetch streams from this origin: secret_file in [relay] is not set".to_owned()),
        )),
        Role::Edge => Some(("upstream", edge_upstream(has_relay, upstream).map_err(str::to_owned))),
        Role::Standalone | Role::Registry => None,
    }
}

fn edge_upstream(has_relay: bool, upstream: Upstream) -> Result<(), &'static str> {
    match (has_relay, upstream) {
        (false, _) => Err("this edge can fetch no streams: secret_file in [relay] is not set"),
        (true, Upstream::None) => {
            Err("this edge knows no origins: neither a shared registry nor origins in [relay] are set")
        }
        (true, Upstream::Registry { unreachable: true }) => {
            Err("the registry, which lists the origins, is unreachable")
        }
        (true, Upstream::Fixed | Upstream::Registry { unreachable: false }) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_requires_what_it_needs_to_serve_streams_of_other_nodes() {
        let (reachable, unreachable) =
            (Upstream::Registry { unreachable: false }, Upstream::Registry { unreachable: true });
        let result = |role, has_relay, upstream| {
            check(role, has_relay, upstream)
                .map(|(name, result)| (name, result.err().unwrap_or_else(|| "ok".to_owned())))
        };
        for (role, has_relay, upstream, expected) in [
            (Role::Standalone, false, Upstream::None, None),
            (Role::Origin, true, unreachable, None),
            (Role::Origin, false, reachable, Some(("relay", "no other node can fetch streams"))),
            (Role::Edge, true, reachable, Some(("upstream", "ok"))),
            (Role::Edge, true, Upstream::Fixed, Some(("upstream", "ok"))),
            (
                Role::Edge,
                true,
                unreachable,
                Some(("upstream", "the registry, which lists the origins, is unreachable")),
            ),
            (Role::Edge, true, Upstream::None, Some(("upstream", "this edge knows no origins"))),
            (Role::Edge, false, reachable, Some(("upstream", "this edge can fetch no streams"))),
        ] {
            let found = result(role, has_relay, upstream);
            let matches = match (&found, expected) {
                (Some((name, reason)), Some((expected_name, start))) => {
                    *name == expected_name && reason.starts_with(start)
                }
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(matches, "{role:?} {has_relay} {upstream:?}: {found:?}");
        }
    }
}
