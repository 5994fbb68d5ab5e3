//! The text form: strict, with places; what is written can be read.

#![allow(clippy::unwrap_used)]

use loxi_core::ir::{Owner, Pipeline};
use loxi_core::text::{TextError, from_json, from_yaml, to_json, to_yaml};
use loxi_core::validate::validate;

const NODE: &str = include_str!("../../loxi-conformance/rows/pipelines/node.yaml");

fn pipeline(entities: Vec<loxi_core::ir::Entity>) -> Pipeline {
    Pipeline::from_entities(&Owner::new("test").unwrap(), entities)
}

#[test]
fn what_is_written_is_what_is_read() {
    let node = pipeline(from_yaml(NODE).unwrap());
    validate(&node).unwrap();
    assert_eq!(pipeline(from_yaml(&to_yaml(&node)).unwrap()), node);
    assert_eq!(pipeline(from_json(&to_json(&node)).unwrap()), node);
    assert_eq!(pipeline(from_yaml(&to_json(&node)).unwrap()), node);
}

#[test]
fn errors_have_a_place_once() {
    let cases = [
        ("version: 1\nvrfs:\n  - nam: x\n", 3),
        ("version: 1\nvrfs:\n  - name: 'a b'\n", 3),
        ("version: 1\nports:\n  - {name: hs1, kind: pond, mac: '02:00:00:00:00:01'}\n", 3),
        ("version: 1\nroutes:\n  - {vrf: a, prefix: 10.0.0.1/8, target: {next_hop: x}}\n", 3),
        ("version: 1\nversion: 1\n", 2),
        ("version: [\n", 1),
    ];
    for (text, line) in cases {
        match from_yaml(text) {
            Err(TextError::Syntax { line: at, message, .. }) => {
                assert_eq!(at, line, "{text}: {message}");
                assert!(!message.starts_with("error") && !message.starts_with("line "), "{message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(matches!(from_json("{\"version\": 1, \"vrfs\": [{}]}"), Err(TextError::Syntax { line: 1, .. })));
}

#[test]
fn versions_and_duplicates_are_refused() {
    assert_eq!(from_yaml("version: 2\n"), Err(TextError::Version { found: 2 }));
    let error = from_yaml("version: 1\nvrfs:\n  - {name: a}\n  - {name: a}\n").unwrap_err();
    assert_eq!(error.to_string(), "vrfs[1]: `vrf a` was already given");
}

#[test]
fn validation_names_entity_and_field() {
    let cases = [
        ("bridges: [{name: br, zone: z}]", "bridge br: zone: zone z does not exist"),
        (
            "ports: [{name: p, kind: pod, mac: '01:00:00:00:00:01'}]",
            "port p: mac: 01:00:00:00:00:01 is no station's address",
        ),
        ("zones: [{name: z, max_flows: 0}]", "zone z: max_flows: 0 is out of range 1..=4294967295"),
        (
            "next_hop_groups: [{name: g, members: []}]",
            "next_hop_group g: members: must be given: at least one member",
        ),
        (
            "vrfs: [{name: v}]\nvips: [{vrf: v, address: 10.0.0.1, mode: shared}]\nservices: [{vrf: v, vip: 10.0.0.1, protocol: tcp, ports: 1-9}, {vrf: v, vip: 10.0.0.1, protocol: tcp, ports: 9}]",
            "service v 10.0.0.1:9 tcp: ports: overlaps with service v 10.0.0.1:1-9 tcp",
        ),
        (
            "vrfs: [{name: v}]\nvips: [{vrf: v, address: 10.0.0.1, mode: shared}]\nservices: [{vrf: v, vip: 10.0.0.1, protocol: tcp, ports: 1, mode: full_nat}]\nbackends: [{name: b, address: '::1', port: 1}]",
            "service v 10.0.0.1:1 tcp: mode: must be given: VRF v has no snat_address_v4",
        ),
        (
            "vrfs: [{name: v}]\nnat_rules: [{vrf: v, priority: 1, action: no_nat}]",
            "nat_rule v 1: vrf: must be given: neither VRF v nor a bridge of it has a zone, and without one nothing is translated",
        ),
        (
            "vrfs: [{name: v}]\nnat_rules: [{vrf: v, priority: 1, action: {one_to_one: {internal: 10.0.0.0/24, external: 10.1.0.0/25}}}]",
            "nat_rule v 1: action.one_to_one: 10.0.0.0/24 and 10.1.0.0/25 are not of one family and length",
        ),
        (
            "policy_rules: [{direction: egress, tier: network_policy, priority: 1, subject: all_pods, peer: any, action: deny}]",
            "policy_rule egress network_policy 1: action: the tier network_policy only allows; isolation refuses the rest",
        ),
    ];
    for (text, wanted) in cases {
        let errors = validate(&pipeline(from_yaml(&format!("version: 1\n{text}\n")).unwrap())).unwrap_err();
        assert!(errors.0.iter().any(|error| error.to_string() == wanted), "{errors}\nwanted {wanted}");
    }
}

#[cfg(feature = "schema")]
#[test]
fn the_published_schema_is_that_of_the_types() {
    let published = include_str!("../../docs/pipeline.schema.json");
    assert!(
        published == loxi_core::text::json_schema(),
        "cargo run -p loxi-core --example schema --features schema > docs/pipeline.schema.json"
    );
}
