//! What `explain` says, word by word: stage, key, the entry that decided with
//! its origin, and the effect. `LOXI_WRITE_GOLDEN=1` writes the file anew.

use loxi_core::change::Transaction;
use loxi_core::dataplane::{InjectRequest, Local, PacketIn};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::packet::Timestamp;
use loxi_core::text::from_yaml;
use loxi_reference::Reference;
use std::sync::Arc;

const NODE: &str = include_str!("../../loxi-conformance/rows/pipelines/node.yaml");
const POLICY: &str = "
version: 1
policy_isolations:
  - {policy: default/closed, direction: ingress, subject: {ports: [hs3]}, origin: uid-1}
policy_rules:
  - {direction: ingress, tier: network_policy, priority: 1, subject: {ports: [hs3]}, peer: any, protocol: tcp,
     ports: {ranges: [443]}, action: allow, origin: uid-1#0}
nat_rules:
  - {vrf: pods, priority: 5, matches: {src: [10.244.1.12/32]}, action: {masquerade: {}}, origin: egress}
";
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/explain.txt");

/// Packets in order: where, what, in words.
const PACKETS: &[(&str, &str, &str)] = &[
    (
        "hs1",
        "a service on a local endpoint",
        "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.96.0.1 / tcp 1000>80 S",
    ),
    (
        "hs2",
        "its reply",
        "eth 02:00:00:00:01:02>02:00:00:00:01:01 / ipv4 10.244.1.11>10.244.1.10 / tcp 8080>1000 SA",
    ),
    (
        "hs2",
        "an error about it",
        "eth 02:00:00:00:01:02>02:00:00:00:01:00 / ipv4 10.244.1.11>10.244.1.10 / icmp 3 1 / ipv4 10.244.1.10>10.244.1.11 / tcp 1000>8080 S",
    ),
    (
        "hs1",
        "a pod of another node",
        "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.244.2.10 / udp 1>2",
    ),
    (
        "eth0",
        "its answer",
        "eth 02:00:00:00:02:e0>02:00:00:00:01:e0 / ipv4 172.18.0.2>172.18.0.1 df / udp 50000>4789 csum=0 / vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv4 10.244.2.10>10.244.1.10 / udp 2>1",
    ),
    (
        "eth0",
        "a stranger's tunnel",
        "eth 02:00:00:00:02:e0>02:00:00:00:01:e0 / ipv4 172.18.0.7>172.18.0.1 df / udp 50000>4789 csum=0 / vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv4 10.244.2.10>10.244.1.10 / udp 2>1",
    ),
    (
        "hs1",
        "an isolated pod",
        "eth 02:00:00:00:01:01>02:00:00:00:01:03 / ipv4 10.244.1.10>10.244.1.12 / tcp 1>80 S",
    ),
    (
        "hs1",
        "what its policy allows",
        "eth 02:00:00:00:01:01>02:00:00:00:01:03 / ipv4 10.244.1.10>10.244.1.12 / tcp 1>443 S",
    ),
    (
        "hs1",
        "a spoofed source",
        "eth 02:00:00:00:01:01>02:00:00:00:01:03 / ipv4 10.244.1.99>10.244.1.12 / tcp 1>443 S",
    ),
    (
        "hs3",
        "masquerade",
        "eth 02:00:00:00:01:03>02:00:00:00:01:00 / ipv4 10.244.1.12>198.51.100.1 / udp 1>53",
    ),
    (
        "hs1",
        "a first fragment",
        "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 id=9 mf / udp 1>2 len=40 csum=0 / fill 16",
    ),
    (
        "hs1",
        "the next fragment",
        "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 id=9 off=24 proto=17 / fill 16",
    ),
    (
        "hs1",
        "a VIP without a service there",
        "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.96.0.1 / tcp 1000>81 S",
    ),
    (
        "hs1",
        "an echo to the VIP",
        "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.96.0.1 / icmp 8 0 id=1",
    ),
    (
        "hs1",
        "the gateway",
        "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.244.1.1 / icmp 8 0 id=1",
    ),
    (
        "hs1",
        "the last hop",
        "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.244.1.11 ttl=1 / icmp 8 0 id=2",
    ),
    (
        "hs1",
        "who has a neighbour",
        "eth 02:00:00:00:01:01>ff:ff:ff:ff:ff:ff / arp request 02:00:00:00:01:01/10.244.1.10>00:00:00:00:00:00/10.244.1.11",
    ),
    (
        "hs1",
        "who has a stranger",
        "eth 02:00:00:00:01:01>ff:ff:ff:ff:ff:ff / arp request 02:00:00:00:01:01/10.244.1.10>00:00:00:00:00:00/10.244.1.77",
    ),
    (
        "hs1",
        "a station that nobody knows",
        "eth 02:00:00:00:01:01>02:00:00:00:99:99 / ipv4 10.244.1.10>10.244.1.77 / udp 1>2",
    ),
    (
        "hs1",
        "a wrong checksum",
        "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 csum=1 / udp 1>2",
    ),
];

#[test]
fn explanations_are_as_committed() {
    let local = Local::new(Reference::new(), Arc::new(|| Timestamp(Timestamp::SECOND)));
    let entities = [from_yaml(NODE).unwrap(), from_yaml(POLICY).unwrap()].concat();
    local.apply(&Transaction::replace("node", Owner::new("test").unwrap(), entities)).unwrap();
    for port in ["hs1", "hs2", "hs3", "loxi_host", "eth0"] {
        local.attach(&PortName::new(port).unwrap()).unwrap();
    }
    let mut text = String::new();
    for (port, words, packet) in PACKETS {
        let packet = PacketIn {
            port: PortName::new(*port).unwrap(),
            bytes: loxi_conformance::build(packet).unwrap(),
            at: None,
        };
        let explained = local.explain(&packet, None).unwrap().installed;
        // Explaining changes nothing: running the packet afterwards tells the same story.
        let request = InjectRequest { packets: vec![packet], commit: true, ..InjectRequest::default() };
        let injected = local.inject(&request).unwrap();
        assert_eq!(injected[0].trace, explained, "{words}");
        text.push_str(&format!("== {words}\n{explained}\n"));
    }
    if std::env::var_os("LOXI_WRITE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(GOLDEN).unwrap(), text);
}
