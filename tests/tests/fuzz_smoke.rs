//! The fuzz targets for a fixed number of cases: seeds, damaged seeds, and anything.
//!
//! Coverage-guided fuzzing is `scripts/fuzz`; this needs no tool and always runs.

#![allow(clippy::unwrap_used, reason = "a test that can't go on says where")]

use loxi_conformance::build;
use loxi_tests::targets::{channel_message, cni_invocation, ir_text, messages, packet_reference, seed_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 2000;

/// Committed seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{folder}: {e}"))
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Seeds with some bytes changed, cut, or repeated.
fn damaged(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<prop::sample::Index>(), any::<u8>());
    let damage = prop::collection::vec(damage, 0..6);
    (prop::sample::select(seeds), damage, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut seed, damage, cut, whole)| {
            for (at, value) in damage {
                let at = at.index(seed.len());
                seed[at] = value;
            }
            if !whole {
                seed.truncate(cut.index(seed.len()));
            }
            seed
        },
    )
}

/// Runs a target on its seeds, on damaged ones, and on anything; returns what it judged.
fn smoke(target: &str, body: fn(&[u8]) -> usize) -> usize {
    let seeds = seeds(target);
    assert!(seeds.len() >= 3, "{target} has too few seeds");
    let mut judged = 0;
    for seed in &seeds {
        let of_seed = body(seed);
        assert!(of_seed > 0, "a seed of {target} leads to nothing");
        judged += of_seed;
    }
    let count = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let anything = prop::collection::vec(any::<u8>(), 0..300);
    runner
        .run(&prop_oneof![4 => damaged(seeds), 1 => anything], |data| {
            count.set(count.get() + body(&data));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{target}: {error}"));
    judged + count.get()
}

#[test]
fn packets_to_the_reference() {
    assert!(smoke("packet_reference", packet_reference) > 200);
}

#[test]
fn text_to_entities() {
    assert!(smoke("ir_text", ir_text) > 100);
}

#[test]
fn messages_of_the_channel() {
    assert!(smoke("channel_message", channel_message) > 50);
}

#[test]
fn invocations_of_the_cni_plugin() {
    assert!(smoke("cni_invocation", cni_invocation) > 50);
}

/// Writes the seeds anew: `cargo test -p loxi-tests --test fuzz_smoke -- --ignored`.
#[test]
#[ignore = "writes fuzz/corpus; run it after a change of the packets, the text form or the messages"]
fn write_seeds() {
    let folder = |target: &str| {
        let path =
            std::path::PathBuf::from(format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR")));
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    for (index, message) in messages().iter().enumerate() {
        std::fs::write(folder("channel_message").join(format!("message-{index}")), message).unwrap();
    }
    for name in ["node", "router", "switch"] {
        let from = format!("{}/../loxi-conformance/rows/pipelines/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(from, folder("ir_text").join(format!("{name}.yaml"))).unwrap();
    }
    let switch = std::fs::read_to_string(folder("ir_text").join("switch.yaml")).unwrap();
    let owner = loxi_core::ir::Owner::new("seed").unwrap();
    let entities = loxi_core::text::from_yaml(&switch).unwrap();
    let pipeline = loxi_core::ir::Pipeline::from_entities(&owner, entities);
    std::fs::write(folder("ir_text").join("switch.json"), loxi_core::text::to_json(&pipeline)).unwrap();
    for (name, packets) in PACKETS {
        let built: Vec<(u8, Vec<u8>)> = packets
            .iter()
            .map(|(port, text)| (*port, build(text).unwrap_or_else(|e| panic!("{text}: {e}"))))
            .collect();
        let frames: Vec<(u8, &[u8])> = built.iter().map(|(port, bytes)| (*port, bytes.as_slice())).collect();
        std::fs::write(folder("packet_reference").join(name), seed_of(&frames)).unwrap();
    }
}

/// Port numbers are those of `targets::packet_reference`: 0 and 1 pods, 2 the host, 3 the uplink.
type Packets = &'static [(u8, &'static str)];
const PACKETS: &[(&str, Packets)] = &[
    (
        "pod-to-pod",
        &[
            (0, "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 / tcp 1000>80 S"),
            (
                1,
                "eth 02:00:00:00:01:02>02:00:00:00:01:01 / ipv4 10.244.1.11>10.244.1.10 / tcp 80>1000 SA ack=1001",
            ),
            (
                0,
                "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 / tcp 1000>80 A / data hello",
            ),
            (0, "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 / tcp 1000>80 R"),
        ],
    ),
    (
        "service",
        &[
            (0, "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.96.0.1 / tcp 1000>80 S"),
            (
                0,
                "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.96.0.1 / udp 1000>80 / data ping",
            ),
            (0, "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.96.0.1 / tcp 1000>9999 S"),
            (
                0,
                "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 fd00:10:244:1::10>fd00:10:96::1 / tcp 1000>80 S",
            ),
        ],
    ),
    (
        "tunnel",
        &[
            (
                0,
                "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.244.2.10 / udp 1>2 / fill 1300",
            ),
            (
                3,
                "eth 02:00:00:00:02:e0>02:00:00:00:01:e0 / ipv4 172.18.0.2>172.18.0.1 df / udp 50000>4789 csum=0 / \
                 vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv4 10.244.2.10>10.244.1.10 / udp 2>1",
            ),
        ],
    ),
    (
        "links-and-errors",
        &[
            (
                0,
                "eth 02:00:00:00:01:01>ff:ff:ff:ff:ff:ff / arp request 02:00:00:00:01:01/10.244.1.10>00:00:00:00:00:00/10.244.1.1",
            ),
            (
                0,
                "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>198.51.100.9 ttl=1 / udp 1>33434",
            ),
            (0, "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.244.1.1 / icmp 8 0 id=1"),
            (
                2,
                "eth 02:00:00:00:01:fe>02:00:00:00:01:00 / ipv6 fd00:10:244:1::2>fd00:10:244:1::10 hop=2 / icmp6 128 0 id=1",
            ),
            (
                0,
                "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 id=7 mf / udp 1>2 len=108 / fill 80",
            ),
            (
                0,
                "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 id=7 off=88 proto=17 / fill 20",
            ),
        ],
    ),
];
