//! What the nodes are told is a pipeline, and its text says the same.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use lab::pipeline::pipeline;
use lab::plan::{NODES, Plan};
use loxi_core::ir::{EntityKind, Owner, Pipeline};
use loxi_core::{text, validate};

#[test]
fn pipelines_are_valid_and_round_trip() {
    let plan = Plan::new("lab").unwrap();
    for node in NODES {
        let described = pipeline(&plan, node).unwrap();
        validate::validate(&described).unwrap();
        let owner = Owner::new("file").unwrap();
        for read in [text::from_yaml(&text::to_yaml(&described)), text::from_json(&text::to_json(&described))]
        {
            assert_eq!(Pipeline::from_entities(&owner, read.unwrap()), described);
        }
        assert_eq!(described.count(EntityKind::Port), 6);
        assert_eq!(described.count(EntityKind::Service), 16);
        let guarded = described.count(EntityKind::PolicyIsolation);
        assert_eq!(guarded, usize::from(node == 1), "node {node}");
    }
}

#[test]
fn nodes_agree_on_the_tunnel() {
    let plan = Plan::new("lab").unwrap();
    let [one, two] = NODES.map(|node| pipeline(&plan, node).unwrap());
    let (there, back) = (one.tunnels().next().unwrap(), two.tunnels().next().unwrap());
    assert_eq!((there.local, there.remote), (back.remote, back.local));
    let vtep = |p: &Pipeline| p.ports().find(|port| port.name.as_str() == "hsvxlan100").unwrap().mac;
    assert_eq!((there.inner_dst_mac, back.inner_dst_mac), (Some(vtep(&two)), Some(vtep(&one))));
    let end = two.terminations().next().unwrap();
    assert!(end.dst == there.remote && end.peers.iter().any(|peer| peer.contains(there.local)));
}
