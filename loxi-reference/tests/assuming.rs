//! Without verification of transport checksums damage goes through, and its receiver can see it.

#![allow(clippy::unwrap_used)]

use loxi_core::capability::{Capabilities, Feature};
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, InjectRequest, Injected, Local, PacketIn};
use loxi_core::ir::{Entity, Owner};
use loxi_core::net::PortName;
use loxi_core::packet::{Fate, Timestamp};
use loxi_core::reason::{ConsumedReason, DropReason};
use loxi_core::text::from_yaml;
use loxi_reference::Reference;
use std::sync::Arc;

const NODE: &str = include_str!("../../loxi-conformance/rows/pipelines/node.yaml");

/// Destination NAT, beside the node's services.
const NAT: &str = "
version: 1
nat_rules: [{vrf: pods, priority: 1, matches: {dst: [203.0.113.80/32], protocol: sctp}, action: {dnat: {address: 10.244.1.11, port: 8080}}}]
";

const HS1: &str = "eth 02:00:00:00:01:01>02:00:00:00:01:00";
const HS2: &str = "eth 02:00:00:00:01:02>02:00:00:00:01:00";
const HOST: &str = "eth 02:00:00:00:01:fe>02:00:00:00:01:00";

/// What comes first, the packet that is damaged, and its fate.
type Case = (Option<(&'static str, String)>, (&'static str, String), Fate);

fn without() -> Capabilities {
    let mut capabilities = Capabilities::full("test", 1 << 20);
    capabilities.features.remove(&Feature::VerifyL4Checksum);
    capabilities
}

fn node(reference: Reference) -> Local<Reference> {
    let local = Local::new(reference, Arc::new(|| Timestamp(Timestamp::SECOND)));
    let mut entities: Vec<Entity> = from_yaml(NODE).unwrap();
    entities.extend(from_yaml(NAT).unwrap());
    local.apply(&Transaction::replace("node", Owner::new("test").unwrap(), entities)).unwrap();
    for port in ["hs1", "hs2", "hs3", "loxi_host", "eth0"] {
        local.attach(&PortName::new(port).unwrap()).unwrap();
    }
    local
}

fn send(local: &Local<Reference>, port: &str, bytes: Vec<u8>) -> Injected {
    let packets = vec![PacketIn { port: PortName::new(port).unwrap(), bytes, at: None }];
    let request = InjectRequest { packets, commit: true, ..InjectRequest::default() };
    local.inject(&request).unwrap().pop().unwrap()
}

fn flip_last(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 0x55;
    }
    bytes
}

fn cases() -> Vec<Case> {
    let (v4, v6) = ("ipv4 10.244.1.10>10.96.0.1", "ipv6 fd00:10:244:1::10>fd00:10:96::1");
    let opening_v4 = format!("{HS1} / {v4} / udp 1000>80");
    let opening_v6 = format!("{HS1} / {v6} / udp 1000>80");
    let about_v4 = "ipv4 10.244.1.11>10.244.1.10 / icmp 3 3 / ipv4 10.244.1.10>10.244.1.11 / udp 1000>8080";
    let about_v6 = "ipv6 fd00:10:244:1::11>fd00:10:244:1::10 / icmp6 1 4 \
                    / ipv6 fd00:10:244:1::10>fd00:10:244:1::11 / udp 1000>8080";
    let echo = Fate::Consumed(ConsumedReason::EchoReply);
    let nat = "ipv4 198.51.100.9>203.0.113.80";
    vec![
        (None, ("hs1", format!("{HS1} / {v4} / tcp 1000>80 S / data abc")), Fate::Forwarded),
        (None, ("hs1", format!("{HS1} / {v6} / udp 1000>80 / data abc")), Fate::Forwarded),
        (None, ("loxi_host", format!("{HOST} / {nat} / sctp 7>80 chunk=1 / data abcd")), Fate::Forwarded),
        (None, ("hs1", format!("{HS1} / {v4} / icmp 8 0 id=1 / data abc")), echo),
        (None, ("hs1", format!("{HS1} / {v6} / icmp6 128 0 id=1 / data abc")), echo),
        (Some(("hs1", opening_v4)), ("hs2", format!("{HS2} / {about_v4} / data abc")), Fate::Forwarded),
        (Some(("hs1", opening_v6)), ("hs2", format!("{HS2} / {about_v6} / data abc")), Fate::Forwarded),
    ]
}

#[test]
fn damage_goes_through_as_it_is() {
    for (first, (port, packet), fate) in cases() {
        let run = |reference: Reference, damaged: bool| {
            let local = node(reference);
            if let Some((port, packet)) = &first {
                let opened = send(&local, port, loxi_conformance::build(packet).unwrap());
                assert_eq!(opened.verdict.fate, Fate::Forwarded, "{packet}");
            }
            let bytes = loxi_conformance::build(&packet).unwrap();
            send(&local, port, if damaged { flip_last(&bytes) } else { bytes }).verdict
        };
        let right = run(Reference::new(), false);
        assert_eq!(right.fate, fate, "{packet}");
        let refused = run(Reference::new(), true);
        assert_eq!(refused.fate, Fate::Dropped(DropReason::BadChecksumL4), "{packet}");
        let damaged = run(Reference::new().assuming(&without()), true);
        assert_eq!(damaged.fate, fate, "{packet}");
        // The same headers, checksums among them, before other data.
        let mut wanted = right.outputs;
        assert_eq!(wanted.len(), 1, "{packet}");
        for output in &mut wanted {
            output.bytes = flip_last(&output.bytes);
        }
        assert_eq!(damaged.outputs, wanted, "{packet}");
    }
}

#[test]
fn a_missing_checksum_is_refused_over_ipv6_all_the_same() {
    let local = node(Reference::new().assuming(&without()));
    let packet = format!("{HS1} / ipv6 fd00:10:244:1::10>fd00:10:96::1 / udp 1000>80 csum=0");
    let verdict = send(&local, "hs1", loxi_conformance::build(&packet).unwrap()).verdict;
    assert_eq!(verdict.fate, Fate::Dropped(DropReason::BadChecksumL4));
}

#[test]
fn what_is_assumed_is_declared() {
    let full = Reference::new().capabilities();
    assert_eq!(Reference::new().assuming(&full).capabilities(), full);
    let features = Reference::new().assuming(&without()).capabilities().features;
    assert_eq!(features, without().features);
}
