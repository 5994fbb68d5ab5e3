//! Questions of several packets: a copy that is kept from one to the next, and grows with what it has to hold.
#![allow(clippy::unwrap_used)]

use loxi_backend_ebpf::{Devices, Ebpf, Mode, Options, Sizes, capabilities, clock};
use loxi_conformance::build;
use loxi_core::change::Transaction;
use loxi_core::dataplane::{Backend, ChoiceMode, InjectRequest, Local, PacketIn};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::packet::Fate;
use loxi_core::text::from_yaml;
use loxi_reference::ReferencePath;

const PIPELINE: &str = "version: 1
zones: [{name: z, max_flows: 4096}]
vrfs: [{name: r, zone: z}]
ports:
  - {name: a, kind: representor, mac: '02:00:00:00:0a:01', attachment: {vrf: r}}
  - {name: b, kind: representor, mac: '02:00:00:00:0b:01', attachment: {vrf: r}}
interfaces:
  - {name: a, on: {port: a}, vrf: r, mac: '02:00:00:00:0a:01', addresses: [10.1.0.1]}
  - {name: b, on: {port: b}, vrf: r, mac: '02:00:00:00:0b:01', addresses: [10.2.0.1]}
neighbors:
  - {interface: a, address: 10.1.0.2, mac: '02:00:00:00:0a:02'}
  - {interface: b, address: 10.2.0.2, mac: '02:00:00:00:0b:02'}
next_hops:
  - {name: a, action: {direct: {interface: a}}}
  - {name: b, action: {direct: {interface: b}}}
routes:
  - {vrf: r, prefix: 10.1.0.0/24, target: {next_hop: a}}
  - {vrf: r, prefix: 10.2.0.0/24, target: {next_hop: b}}
vips: [{vrf: r, address: 10.96.0.1, mode: {exclusive: {}}}]
backends: [{name: one, address: 10.2.0.2, port: 8080}]
services: [{vrf: r, vip: 10.96.0.1, protocol: tcp, ports: 80, backends: [one]}]
";

fn packet(port: &str, layers: &str) -> PacketIn {
    let (host, gateway) = (format!("02:00:00:00:0{port}:02"), format!("02:00:00:00:0{port}:01"));
    let bytes = build(&format!("eth {host}>{gateway} / {layers}")).unwrap();
    PacketIn { port: PortName::new(port).unwrap(), bytes, at: None }
}

/// A connection's first packet, and its answer, which is a stranger's unless the first was there.
fn opening(n: u32) -> [PacketIn; 2] {
    [
        packet("a", &format!("ipv4 10.1.0.2>10.96.0.1 / tcp {}>80 S", 1024 + n)),
        packet("b", &format!("ipv4 10.2.0.2>10.1.0.2 / tcp 8080>{} SA", 1024 + n)),
    ]
}

#[test]
fn a_copy_is_kept_and_grows() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a_copy_is_kept_and_grows: it needs root to load programs");
        return;
    }
    let options = Options {
        mode: Mode::Tc,
        sizes: Sizes { flows_v4: 4096, flows_v6: 1 },
        devices: Devices::None,
        slow_path: Some(Box::new(ReferencePath::assuming(&capabilities()))),
        ..Options::default()
    };
    let local = Local::new(Ebpf::open(options).unwrap(), clock());
    let entities = from_yaml(PIPELINE).unwrap();
    local.apply(&Transaction::replace("test", Owner::new("test").unwrap(), entities)).unwrap();
    for port in ["a", "b"] {
        local.attach(&PortName::new(port).unwrap()).unwrap();
    }
    let inject = |packets: Vec<PacketIn>, commit: bool| {
        let request = InjectRequest { packets, now: None, choices: ChoiceMode::First, commit };
        let answers = local.inject(&request).unwrap();
        answers.into_iter().map(|answer| answer.verdict.fate).collect::<Vec<_>>()
    };
    let mut there = 0;
    for flows in [0, 10, 2000] {
        while there < flows {
            inject(vec![opening(there)[0].clone()], true);
            there += 1;
        }
        let held = (local.with_backend(|ebpf| ebpf.export_state()), local.counters());
        for _ in 0..2 {
            // A new one, and the answer to each that is there already.
            let mut packets = opening(3000).to_vec();
            packets.extend((0..flows).map(|n| opening(n)[1].clone()));
            let count = packets.len();
            assert_eq!(inject(packets, false), vec![Fate::Forwarded; count], "{flows} flows");
            assert!(
                (local.with_backend(|ebpf| ebpf.export_state()), local.counters()) == held,
                "a question has changed something"
            );
        }
        // Nothing of it stays for a packet by itself.
        let alone = inject(vec![opening(3000)[1].clone()], false);
        assert!(matches!(alone[..], [Fate::Dropped(_)]), "{alone:?}");
    }
}
