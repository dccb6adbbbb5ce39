//! Every decision of the plan, as tables.

use super::*;

fn facts(host_name: &str) -> Facts {
    Facts { host_name: host_name.to_owned(), addresses: vec!["192.0.2.7".parse().unwrap()], instance: None }
}

fn planned(host_name: &str, file: &str) -> Result<Plan, PlanError> {
    plan(&facts(host_name), &Settings::parse(file).unwrap())
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    Tags::Metadata { tags: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect() }
}

fn instance(tags: Tags, target: Option<&str>) -> Facts {
    let instance = Instance {
        id: "i-0abc".to_owned(),
        addresses: vec!["203.0.113.9".parse().unwrap(), "10.0.1.12".parse().unwrap()],
        private_ipv4: Some("10.0.1.12".parse().unwrap()),
        tags,
        target_lifecycle_state: target.map(str::to_owned),
        ..Instance::default()
    };
    Facts { instance: Some(instance), ..facts("ip-10-0-1-12") }
}

fn on_ec2(tags: Tags, target: Option<&str>) -> Result<Plan, PlanError> {
    plan(&instance(tags, target), &Settings::default())
}

const GROUP: (&str, &str) = (GROUP_TAG, "edges");
const CLUSTER: (&str, &str) = (CLUSTER_TAG, "demo");

#[test]
fn single_machine_is_standalone_and_named_after_its_host() {
    let check = |host: &str, file: &str, id: &str, from: ValueSource| {
        let plan = planned(host, file).unwrap();
        assert_eq!((plan.engine.node.role, plan.role_from), (Role::Standalone, ValueSource::Default));
        assert_eq!((plan.engine.node.id.as_str(), plan.id_from), (id, from), "{host:?} {file:?}");
        assert_eq!((plan.cluster, plan.scaling_group, plan.in_service), (None, None, true));
    };
    check("studio-2", "", "studio-2", ValueSource::HostName);
    check("studio 2/b", "", "studio-2-b", ValueSource::HostName);
    check("studio", "node.id = 'left'", "left", ValueSource::File);
    check("studio", "node.id = 'local'", "local", ValueSource::File);
    check("", "", "local", ValueSource::Default);
    check("--", "", "local", ValueSource::Default);
    check(&"x".repeat(70), "", &"x".repeat(64), ValueSource::HostName);
}

#[test]
fn networks_of_the_vpc_are_trusted_unless_the_file_names_others() {
    let network = |text: &str| text.parse::<headwater_api::IpNetwork>().unwrap();
    let mut facts = instance(Tags::Hidden, None);
    facts.instance.as_mut().unwrap().vpc_networks = vec![network("10.0.0.0/16"), network("2001:db8::/56")];
    let trusted =
        |facts: &Facts, file: &str| plan(facts, &Settings::parse(file).unwrap()).unwrap().engine.http.trusted_proxies;
    assert_eq!(trusted(&facts, ""), [network("10.0.0.0/16"), network("2001:db8::/56")]);
    assert_eq!(trusted(&facts, "http.trusted_proxies = []"), []);
    assert_eq!(trusted(&facts, "http.trusted_proxies = ['192.0.2.0/24']"), [network("192.0.2.0/24")]);
    facts.instance = None;
    assert_eq!(trusted(&facts, ""), []);
}

#[test]
fn origin_or_edge_without_a_cluster_is_rejected() {
    for role in ["origin", "edge"] {
        assert_eq!(planned("a", &format!("node.role = '{role}'")).unwrap_err(), PlanError::NotOnEc2 { role });
    }
    assert_eq!(planned("a", "node.role = 'standalone'").unwrap().role_from, ValueSource::File);
    let settings = "node.role = 'edge'\n[registry]\nkind = 'mongodb'\nuri_file = '/u'\n[relay]\nsecret_file = '/s'";
    assert_eq!(planned("a", settings).unwrap().cluster, None, "the file sets everything that a cluster needs");
}

#[test]
fn invalid_node_id_is_rejected() {
    for id in ["", "a b", "../x", &"x".repeat(65)] {
        assert_eq!(planned("a", &format!("node.id = '{id}'")).unwrap_err(), PlanError::InvalidId(id.to_owned()));
    }
}

#[test]
fn configured_addresses_take_precedence_and_reach_the_engine() {
    let plan = planned("a", "node.addresses = ['203.0.113.7']").unwrap();
    assert_eq!(plan.addresses, plan.engine.node.addresses);
    let plan = planned("a", "").unwrap();
    assert_eq!(plan.addresses, facts("a").addresses);
    assert!(plan.engine.node.addresses.is_empty());
}

#[test]
fn instance_is_named_after_its_id_and_lists_its_public_address_first() {
    let plan = on_ec2(tags(&[]), None).unwrap();
    assert_eq!((plan.engine.node.id.as_str(), plan.id_from), ("i-0abc", ValueSource::InstanceId));
    assert_eq!(plan.engine.node.addresses[0].to_string(), "203.0.113.9");
    assert_eq!(plan.addresses, plan.engine.node.addresses);
}

#[test]
fn settings_of_the_file_reach_the_engine() {
    assert_eq!(planned("a", "hls.part_ms = 333").unwrap().engine.hls.part_ms.get(), 333);
}

#[test]
fn health_listener_is_public_on_ec2_unless_the_file_sets_it() {
    let check = |role: &str, file: &str, expected: &str| {
        let facts = instance(tags(&[(ROLE_TAG, role), CLUSTER, GROUP]), Some("InService"));
        let plan = plan(&facts, &Settings::parse(file).unwrap()).unwrap();
        assert_eq!(plan.engine.health.listen.to_string(), expected, "{role} {file}");
    };
    check("origin", "", "[::]:5090");
    check("edge", "", "[::]:5090");
    check("edge", "health.listen = '127.0.0.1:5091'", "127.0.0.1:5091");
    check("edge", "health.listen = '127.0.0.1:5090'", "127.0.0.1:5090");
    check("registry", "", "[::]:5090");
    check("standalone", "", "127.0.0.1:5090");
    assert_eq!(planned("a", "").unwrap().engine.health.listen.to_string(), "127.0.0.1:5090");
}

fn unknown_tags() -> Tags {
    Tags::Unknown { reason: "access denied".to_owned() }
}

fn with_profile(tags: Tags, target: Option<&str>) -> Facts {
    let mut facts = instance(tags, target);
    facts.instance.as_mut().unwrap().has_profile = true;
    facts
}

#[test]
fn instance_with_a_cluster_tag_and_no_role_is_rejected() {
    let api = Tags::Api { tags: [(CLUSTER_TAG.to_owned(), "demo".to_owned())].into() };
    for tags in [tags(&[CLUSTER]), tags(&[(CLUSTER_TAG, "")]), api] {
        let error = on_ec2(tags.clone(), None).unwrap_err();
        assert_eq!(error, PlanError::ClusterWithoutRole, "{tags:?}");
        assert!(error.to_string().contains("but no `headwater:role` tag"), "{error}");
    }
    let file = Settings::parse("node.role = 'standalone'").unwrap();
    assert!(plan(&instance(tags(&[CLUSTER]), None), &file).is_ok(), "the file names the role");
}

#[test]
fn unreadable_tags_of_an_instance_with_a_profile_are_not_absent_tags() {
    let check = |file: &str, expected: Result<Role, PlanError>| {
        let planned = plan(&with_profile(unknown_tags(), None), &Settings::parse(file).unwrap());
        assert_eq!(planned.map(|plan| plan.engine.node.role), expected, "{file}");
    };
    let unreadable = || PlanError::UnreadableTags { reason: "access denied".to_owned() };
    check("", Err(unreadable()));
    check("node.role = 'edge'", Err(unreadable()));
    check("node.role = 'standalone'", Ok(Role::Standalone));
    let sentence = unreadable().to_string();
    assert!(sentence.contains("InstanceMetadataTags") && sentence.ends_with("access denied"), "{sentence}");
    // In a group the remedy is the same, whether or not there is a profile.
    let error = plan(&with_profile(unknown_tags(), Some("InService")), &Settings::default()).unwrap_err();
    assert!(matches!(error, PlanError::NoRole { .. }), "{error:?}");
    // Tags that were read and are absent.
    for tags in [tags(&[]), Tags::Api { tags: Default::default() }] {
        let planned = plan(&with_profile(tags, None), &Settings::default()).unwrap();
        assert_eq!(planned.engine.node.role, Role::Standalone);
    }
}

#[test]
fn instance_without_group_profile_and_role_is_standalone_even_if_tags_are_hidden() {
    for tags in [tags(&[]), Tags::Hidden, unknown_tags(), Tags::Api { tags: Default::default() }] {
        let plan = on_ec2(tags.clone(), None).unwrap();
        assert_eq!((plan.engine.node.role, plan.role_from), (Role::Standalone, ValueSource::Default), "{tags:?}");
        assert_eq!(plan.cluster, None);
    }
}

#[test]
fn instance_in_a_group_without_role_is_rejected_with_a_remedy() {
    let check = |tags: Tags, target: Option<&str>, expected: &str| {
        let error = on_ec2(tags, target).unwrap_err();
        let sentence = error.to_string();
        assert!(matches!(error, PlanError::NoRole { .. }) && sentence.contains(expected), "{sentence}");
    };
    check(tags(&[GROUP]), Some("InService"), "set it on the group, with PropagateAtLaunch");
    check(tags(&[GROUP, CLUSTER]), None, "no `headwater:role` tag");
    check(Tags::Hidden, Some("InService"), "set InstanceMetadataTags to enabled in the launch template");
    check(
        Tags::Unknown { reason: "access denied".to_owned() },
        Some("InService"),
        "ec2:DescribeTags gave none: access denied",
    );
    check(Tags::Api { tags: Default::default() }, Some("InService"), "ec2:DescribeTags shows none");
}

#[test]
fn only_exact_role_names_are_accepted() {
    let check = |value: &str, expected: Result<Role, PlanError>| {
        let plan = on_ec2(tags(&[(ROLE_TAG, value), CLUSTER, GROUP]), Some("InService"));
        assert_eq!(plan.map(|p| p.engine.node.role), expected, "{value:?}");
    };
    check("origin", Ok(Role::Origin));
    check("edge", Ok(Role::Edge));
    check("standalone", Ok(Role::Standalone));
    check("registry", Ok(Role::Registry));
    for value in ["Origin", "edge ", "", "king"] {
        check(value, Err(PlanError::UnknownRole { value: value.to_owned() }));
    }
}

#[test]
fn unknown_role_is_rejected_outside_a_group_too() {
    let error = on_ec2(tags(&[(ROLE_TAG, "king")]), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"tag `headwater:role` is "king"; expected "origin", "edge", "registry" or "standalone""#
    );
}

#[test]
fn origin_or_edge_belongs_to_the_cluster_of_its_tag() {
    let edge = (ROLE_TAG, "edge");
    for missing in [tags(&[edge]), tags(&[edge, (CLUSTER_TAG, "")])] {
        assert_eq!(on_ec2(missing, None).unwrap_err(), PlanError::NoCluster { role: "edge" });
    }
    let cluster = |more: &[(&str, &str)]| {
        let all: Vec<_> = [edge, CLUSTER].into_iter().chain(more.iter().copied()).collect();
        on_ec2(tags(&all), None).unwrap().cluster.unwrap()
    };
    let plain = cluster(&[]);
    assert_eq!(
        (plain.name.as_str(), plain.node_group.as_str(), plain.registry),
        ("demo", "", RegistryLocation::Discover)
    );
    let settings = cluster(&[(REGISTRY_TAG, "db.internal:27017"), (NODE_GROUP_TAG, "tokyo")]);
    assert_eq!(
        (settings.node_group.as_str(), settings.registry),
        ("tokyo", RegistryLocation::Tag("db.internal:27017".to_owned()))
    );
}

#[test]
fn registry_node_has_a_cluster_and_listens_on_its_private_address() {
    let registry = (ROLE_TAG, "registry");
    let plan = on_ec2(tags(&[registry, CLUSTER]), None).unwrap();
    assert_eq!(plan.mongod.map(|at| at.to_string()).as_deref(), Some("10.0.1.12:27017"));
    let cluster = plan.cluster.unwrap();
    assert_eq!(
        (cluster.name.as_str(), cluster.port, cluster.replica_set().as_str()),
        ("demo", 27_017, "headwater-demo")
    );
    assert_eq!(Cluster { name: "a b/ü".to_owned(), ..cluster }.replica_set(), "headwater-a-b--");
    assert_eq!(on_ec2(tags(&[(ROLE_TAG, "edge"), CLUSTER]), None).unwrap().mongod, None);
}

#[test]
fn registry_node_is_rejected_where_it_cannot_work() {
    let registry = (ROLE_TAG, "registry");
    assert_eq!(on_ec2(tags(&[registry]), None).unwrap_err(), PlanError::NoCluster { role: "registry" });
    let conflicting = tags(&[registry, CLUSTER, (REGISTRY_TAG, "db.internal")]);
    assert_eq!(on_ec2(conflicting, None).unwrap_err(), PlanError::RegistryTagConflict);
    assert_eq!(planned("a", "node.role = 'registry'").unwrap_err(), PlanError::RegistryWithoutMetadata);
    let settings = "node.role = 'registry'\n[registry]\nkind = 'mongodb'\nuri_file = '/u'\n[relay]\nsecret_file = '/s'";
    assert_eq!(planned("a", settings).unwrap_err(), PlanError::RegistryWithoutMetadata);
    let mut unreachable = instance(tags(&[registry, CLUSTER]), None);
    unreachable.instance.as_mut().unwrap().private_ipv4 = None;
    assert_eq!(plan(&unreachable, &Settings::default()).unwrap_err(), PlanError::NoPrivateAddress);
    // The role may also come from the file while metadata provides the rest.
    let written = Settings::parse("[node]\nrole = 'registry'\n[mongod]\nport = 27018").unwrap();
    let plan = plan(&instance(tags(&[CLUSTER]), None), &written).unwrap();
    assert_eq!((plan.role_from, plan.mongod.unwrap().port()), (ValueSource::File, 27_018));
}

#[test]
fn file_takes_precedence_over_the_tag() {
    let facts = instance(tags(&[(ROLE_TAG, "edge"), CLUSTER]), None);
    let plan = plan(&facts, &Settings::parse("[node]\nrole = 'origin'\nid = 'x'").unwrap()).unwrap();
    assert_eq!((plan.engine.node.role, plan.role_from), (Role::Origin, ValueSource::File));
    assert_eq!((plan.engine.node.id.as_str(), plan.id_from), ("x", ValueSource::File));
}

#[test]
fn warm_instance_is_out_of_service() {
    let check = |target: Option<&str>, in_service: bool| {
        let plan = on_ec2(tags(&[(ROLE_TAG, "standalone"), GROUP]), target).unwrap();
        assert_eq!((plan.in_service, plan.scaling_group.unwrap().name.as_str()), (in_service, "edges"), "{target:?}");
    };
    check(None, true);
    check(Some("InService"), true);
    check(Some("Terminated"), true); // it drains at once, which is not for the plan
    for target in ["Warmed:Stopped", "Warmed:Running", "Warmed:Hibernated"] {
        check(Some(target), false);
    }
}
