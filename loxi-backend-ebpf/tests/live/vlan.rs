//! Frames whose 802.1Q tag is beside them (`skb->vlan_tci`), which no test run can show: through access and trunk
//! ports, compared byte by byte with what the reference makes of them.

use crate::fixture::privileged;
use crate::machines::{dataplane, dropped, join, offload, quiet};
use loxi_backend_ebpf::{Ebpf, Mode};
use loxi_conformance::build;
use loxi_core::change::Transaction;
use loxi_core::dataplane::{ChoiceMode, InjectRequest, Local, PacketIn};
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use loxi_core::packet::Timestamp;
use loxi_core::text::from_yaml;
use loxi_linux::netns::NetNs;
use loxi_linux::packet::{FrameIo, PacketSocket, RxMeta};
use loxi_reference::Reference;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PORTS: [&str; 4] = ["p1", "p2", "t1", "t2"];

/// Priority of the tags that stations put on.
const PRIORITY: u16 = 5;

fn pipeline(kind: &str) -> String {
    format!(
        "version: 1
vrfs: [{{name: r}}]
bridges: [{{name: sw, learning: false, any_ethertype: true, unknown_unicast: drop, broadcast: drop, multicast: drop}}]
ports:
  - {{name: p1, kind: {kind}, mac: '02:00:00:00:01:01', attachment: {{bridge: {{bridge: sw, vlan: {{access: 10}}}}}}}}
  - {{name: p2, kind: {kind}, mac: '02:00:00:00:01:02', attachment: {{bridge: {{bridge: sw, vlan: {{access: 20}}}}}}}}
  - {{name: t1, kind: {kind}, mac: '02:00:00:00:01:0a',
      attachment: {{bridge: {{bridge: sw, vlan: {{trunk: {{allowed: [10, 20], native: 30}}}}}}}}}}
  - {{name: t2, kind: {kind}, mac: '02:00:00:00:01:0b',
      attachment: {{bridge: {{bridge: sw, vlan: {{trunk: {{allowed: [10, 20, 30]}}}}}}}}}}
interfaces:
  - {{name: v10, on: {{bridge: {{bridge: sw, vlan: 10}}}}, vrf: r, mac: '02:00:00:00:00:10', addresses: [10.0.10.1, 'fd00:10::1']}}
  - {{name: v20, on: {{bridge: {{bridge: sw, vlan: 20}}}}, vrf: r, mac: '02:00:00:00:00:20', addresses: [10.0.20.1, 'fd00:20::1']}}
  - {{name: v30, on: {{bridge: {{bridge: sw, vlan: 30}}}}, vrf: r, mac: '02:00:00:00:00:30', addresses: [10.0.30.1]}}
neighbors:
  - {{interface: v10, address: 10.0.10.2, mac: '02:00:00:00:0a:10'}}
  - {{interface: v20, address: 10.0.20.2, mac: '02:00:00:00:0b:20'}}
  - {{interface: v20, address: 'fd00:20::2', mac: '02:00:00:00:0b:20'}}
  - {{interface: v30, address: 10.0.30.2, mac: '02:00:00:00:0a:30'}}
next_hops:
  - {{name: v10, action: {{direct: {{interface: v10}}}}}}
  - {{name: v20, action: {{direct: {{interface: v20}}}}}}
  - {{name: v30, action: {{direct: {{interface: v30}}}}}}
routes:
  - {{vrf: r, prefix: 10.0.10.0/24, target: {{next_hop: v10}}}}
  - {{vrf: r, prefix: 10.0.20.0/24, target: {{next_hop: v20}}}}
  - {{vrf: r, prefix: 10.0.30.0/24, target: {{next_hop: v30}}}}
  - {{vrf: r, prefix: 'fd00:20::/64', target: {{next_hop: v20}}}}
fdb:
  - {{bridge: sw, vlan: 10, mac: '02:00:00:00:01:01', target: {{port: p1}}}}
  - {{bridge: sw, vlan: 20, mac: '02:00:00:00:01:02', target: {{port: p2}}}}
  - {{bridge: sw, vlan: 10, mac: '02:00:00:00:0a:10', target: {{port: t1}}}}
  - {{bridge: sw, vlan: 20, mac: '02:00:00:00:0b:20', target: {{port: t2}}}}
  - {{bridge: sw, vlan: 10, mac: '02:00:00:00:0b:10', target: {{port: t2}}}}
  - {{bridge: sw, vlan: 30, mac: '02:00:00:00:0a:30', target: {{port: t1}}}}
  - {{bridge: sw, vlan: 30, mac: '02:00:00:00:0b:30', target: {{port: t2}}}}
"
    )
}

/// Port, tag, destination, what is in the frame; and what comes of it, in words.
type Case = (&'static str, Option<u16>, &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    ("p1", None, "02:00:00:00:0a:10", "ipv4 10.0.10.9>10.0.10.2 / udp 1>2 / data a", "pushed"),
    ("p2", None, "02:00:00:00:0b:20", "ipv6 fd00:20::9>fd00:20::2 / udp 1>2 / data b", "pushed"),
    (
        "p1",
        None,
        "02:00:00:00:0b:10",
        "arp request 02:00:00:00:01:01/10.0.10.9>00:00:00:00:00:00/10.0.10.2",
        "pushed",
    ),
    ("t1", Some(10), "02:00:00:00:01:01", "ipv4 10.0.10.2>10.0.10.9 / udp 2>1 / data c", "popped"),
    ("t2", Some(20), "02:00:00:00:01:02", "ipv6 fd00:20::2>fd00:20::9 / tcp 2>1 S", "popped"),
    ("t1", Some(10), "02:00:00:00:0b:10", "ipv4 10.0.10.2>10.0.10.7 / icmp 8 0 id=1 seq=1", "kept"),
    ("t2", Some(10), "02:00:00:00:0a:10", "hex 0102030405060708", "kept"),
    ("t1", None, "02:00:00:00:0b:30", "ipv4 10.0.30.2>10.0.30.7 / udp 1>2 / data d", "pushed"),
    ("t2", Some(30), "02:00:00:00:0a:30", "ipv4 10.0.30.7>10.0.30.2 / udp 1>2 / data e", "popped"),
    ("t1", Some(10), "02:00:00:00:00:10", "ipv4 10.0.10.2>10.0.20.2 ttl=9 / udp 1>2 / data f", "changed"),
    ("p1", None, "02:00:00:00:00:10", "ipv4 10.0.10.9>10.0.20.2 ttl=9 / tcp 1>2 S", "pushed"),
    ("t1", Some(10), "02:00:00:00:00:10", "ipv6 fd00:10::2>fd00:20::2 hop=9 / udp 1>2 / data g", "changed"),
    ("t2", Some(20), "02:00:00:00:00:20", "ipv4 10.0.20.2>10.0.30.2 ttl=9 / udp 1>2 / data h", "popped"),
    ("p1", Some(0), "02:00:00:00:0a:10", "ipv4 10.0.10.9>10.0.10.2 / udp 1>2 / data i", "changed"),
    ("t1", Some(0), "02:00:00:00:0b:30", "ipv4 10.0.30.2>10.0.30.7 / udp 1>2 / data j", "changed"),
    ("t1", Some(40), "02:00:00:00:0b:10", "ipv4 10.0.10.2>10.0.10.7 / udp 1>2 / data k", "nothing"),
    ("p1", Some(10), "02:00:00:00:0a:10", "ipv4 10.0.10.9>10.0.10.2 / udp 1>2 / data l", "nothing"),
    ("t2", None, "02:00:00:00:0a:10", "ipv4 10.0.10.9>10.0.10.2 / udp 1>2 / data m", "nothing"),
    ("t1", Some(20), "02:00:00:00:01:01", "ipv4 10.0.10.2>10.0.10.9 / udp 2>1 / data n", "nothing"),
];

/// A station: its namespace, and the socket by which it sends and receives.
struct Station {
    socket: PacketSocket,
    ns: NetNs,
}

impl Station {
    fn new(node: &NetNs, port: &str) -> Self {
        let ns = quiet();
        join((node, port, "02:00:00:00:ee:01"), (&ns, "eth0", "02:00:00:00:ee:02"), 1500);
        let socket = ns.run(|| PacketSocket::open("eth0").unwrap()).unwrap();
        Self { socket, ns }
    }
}

fn frame(case: &Case) -> Vec<u8> {
    let (_, tag, to, layers, _) = case;
    let tag = tag.map(|tag| format!("vlan {tag} pcp={PRIORITY} / ")).unwrap_or_default();
    build(&format!("eth 02:00:00:00:0c:01>{to} / {tag}{layers}")).unwrap()
}

/// A frame that was received by a port's station.
type Arrived = (PortName, Vec<u8>);

/// What the reference makes of a frame.
fn by_reference(reference: &Local<Reference>, case: &Case) -> Vec<Arrived> {
    let packet = PacketIn { port: PortName::new(case.0).unwrap(), bytes: frame(case), at: None };
    let request =
        InjectRequest { packets: vec![packet], choices: ChoiceMode::First, commit: true, now: None };
    let verdict = reference.inject(&request).unwrap().remove(0).verdict;
    verdict.outputs.into_iter().map(|output| (output.port, output.bytes)).collect()
}

/// The tag of a frame.
fn tag_of(frame: &[u8]) -> Option<u16> {
    (frame[12..14] == [0x81, 0x00]).then(|| u16::from_be_bytes([frame[14], frame[15]]))
}

/// What happened to the tag of a frame that left as `frames`.
fn happened(tag: Option<u16>, frames: &[Arrived]) -> &'static str {
    let [(_, frame)] = frames else { return "nothing" };
    let before = tag.map(|tag| PRIORITY << 13 | tag);
    match (before, tag_of(frame)) {
        (None, Some(_)) => "pushed",
        (Some(_), None) => "popped",
        (before, after) if before == after => "kept",
        _ => "changed",
    }
}

/// Frames of all stations, until so many have come or nothing comes any more.
fn collect(stations: &mut BTreeMap<&'static str, Station>, wanted: usize) -> Vec<(Arrived, RxMeta)> {
    let (mut found, mut frame) = (Vec::new(), Vec::new());
    let patience = if wanted == 0 { Duration::from_millis(30) } else { Duration::from_secs(2) };
    let until = Instant::now() + patience;
    while found.len() <= wanted && Instant::now() < until {
        for (port, station) in &mut *stations {
            while let Some(meta) = station.socket.recv(&mut frame).unwrap() {
                found.push(((PortName::new(*port).unwrap(), frame.clone()), meta));
            }
        }
        if found.len() >= wanted && wanted > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    found
}

/// A switch that is held to the reference: its stations, and what the reference has of it.
struct Switch {
    _node: NetNs,
    local: Local<Ebpf>,
    stations: BTreeMap<&'static str, Station>,
    reference: Local<Reference>,
}

impl Switch {
    fn new(mode: Mode, kind: &str) -> Self {
        let node = quiet();
        let stations: BTreeMap<_, _> = PORTS.iter().map(|port| (*port, Station::new(&node, port))).collect();
        if mode != Mode::Tc {
            // A veth takes frames from XDP only where it has queues: see `exit`.
            for (port, station) in &stations {
                offload(&node, port, "gro on");
                offload(&station.ns, "eth0", "gro on");
            }
        }
        let text = pipeline(kind);
        let local = dataplane(&node, mode, &text);
        let reference = Local::new(Reference::new(), Arc::new(|| Timestamp(1)));
        let entities = from_yaml(&text).unwrap();
        reference.apply(&Transaction::replace("test", Owner::new("test").unwrap(), entities)).unwrap();
        for port in PORTS {
            reference.attach(&PortName::new(port).unwrap()).unwrap();
        }
        Self { _node: node, local, stations, reference }
    }

    /// Sends a case; what arrives is what the reference says.
    fn holds(&mut self, case: &Case, mode: Mode) {
        let wanted = by_reference(&self.reference, case);
        assert_eq!(happened(case.1, &wanted), case.4, "{case:?}: {wanted:02x?}");
        self.stations.get_mut(case.0).unwrap().socket.send(&frame(case)).unwrap();
        let arrived = collect(&mut self.stations, wanted.len());
        let frames: Vec<Arrived> = arrived.iter().map(|(arrived, _)| arrived.clone()).collect();
        assert_eq!(frames, wanted, "{mode}: {case:?}: {:?}", dropped(&self.local));
        // Stacks take tags out of frames that they get.
        for ((_, frame), meta) in &arrived {
            assert_eq!(meta.vlan_restored, tag_of(frame).is_some(), "{mode} {case:?}");
        }
    }
}

fn holds(mode: Mode, kind: &str) {
    let mut switch = Switch::new(mode, kind);
    collect(&mut switch.stations, 0);
    for case in CASES {
        switch.holds(case, mode);
    }
    assert_eq!(collect(&mut switch.stations, 0).len(), 0, "{mode}: more frames came");
}

/// The stack takes the tag out of a frame before programs at TC see it, and programs put tags beside.
#[test]
fn tags_beside_frames_are_pushed_popped_and_changed() {
    if privileged("tags_beside_frames_are_pushed_popped_and_changed") {
        holds(Mode::Tc, "pod");
    }
}

#[test]
fn tags_in_frames_are_pushed_popped_and_changed_at_xdp() {
    if privileged("tags_in_frames_are_pushed_popped_and_changed_at_xdp") {
        holds(Mode::Xdp, "uplink");
    }
}
