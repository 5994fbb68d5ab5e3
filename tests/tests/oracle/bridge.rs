//! A learning bridge: stations that come, move and talk, frames of every kind.

use crate::{assert_well_formed, number, privileged};
use loxi_conformance::build;
use loxi_reference::Reference;
use loxi_tests::oracle::{self, Device, Frame, Kernel, Known, Model, Scenario, Step};
use loxi_tests::random::Random;
use std::collections::BTreeMap;
use std::net::IpAddr;

const PORTS: [&str; 4] = ["p0", "p1", "p2", "p3"];
const PIPELINE: &str = include_str!("../../pipelines/bridge.yaml");

const LISTED: &[Known] =
    &[Known::BridgedMalformed, Known::BridgeMtuSlack, Known::VlanTag, Known::BpduForwarded];

#[derive(Default)]
struct Stations {
    /// Where each station was last heard, by both sides.
    at: BTreeMap<usize, usize>,
}

fn mac(station: usize) -> String {
    format!("02:00:00:00:bb:{station:02x}")
}

fn kernel() -> Kernel {
    let devices: Vec<Device> = [
        ("p0", "02:00:00:00:aa:00"),
        ("p1", "02:00:00:00:aa:01"),
        ("p2", "02:00:00:00:aa:02"),
        ("p3", "02:00:00:00:aa:03"),
    ]
    .map(|(name, mac)| Device { name, mac, mtu: 1500 })
    .into();
    let kernel = Kernel::new(&devices);
    kernel.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    kernel.sysctl("net.ipv6.conf.default.disable_ipv6", "1");
    // A bridge, not a firewall that looks like one: it would trim and judge IP packets.
    for family in ["iptables", "ip6tables", "arptables"] {
        kernel.sysctl_if_there(&format!("net.bridge.bridge-nf-call-{family}"), "0");
    }
    kernel.ip("link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0");
    for port in PORTS {
        kernel.ip(&format!("link set {port} master br0"));
    }
    kernel.ip("link set br0 up");
    kernel
}

fn frame(random: &mut Random, src: &str, dst: &str) -> (String, &'static str) {
    let payload = random.below(1400);
    let eth = format!("eth {src}>{dst}");
    match random.below(7) {
        0 => {
            (format!("{eth} / arp request {src}/10.0.0.1>00:00:00:00:00:00/10.0.0.{}", payload % 250), "arp")
        }
        1 | 2 => (format!("{eth} / ipv4 10.0.0.1>10.0.0.2 / udp 1000>2000 / fill {payload}"), "udp"),
        3 => (format!("{eth} / ipv6 fd00::1>fd00::2 / tcp 1000>2000 A / fill {payload}"), "tcp6"),
        4 => (format!("{eth} / ipv6 fd00::1>ff02::5 / udp 1000>2000 / fill {payload}"), "udp6 to a group"),
        5 => (format!("{eth} type=0x9999 / fill {payload}"), "unknown ethertype"),
        _ => (
            format!("{eth} / ipv4 10.0.0.1>10.0.0.2 ttl=1 / icmp 8 0 id=1 / fill 20 / pad 30"),
            "padded echo",
        ),
    }
}

impl Scenario for Stations {
    fn own(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn step(&mut self, random: &mut Random) -> Step {
        let station = random.below(12);
        let moves = random.chance(10);
        let port = match self.at.get(&station) {
            Some(port) if !moves => *port,
            _ => random.below(PORTS.len()),
        };
        let src = mac(station);
        let dst = match random.below(12) {
            0 => "ff:ff:ff:ff:ff:ff".to_owned(),
            1 => "01:00:5e:01:02:03".to_owned(),
            2 => "33:33:00:00:00:05".to_owned(),
            3 => mac(200 + random.below(20)),
            _ => mac(random.below(12)),
        };
        let settled = self.at.get(&station) == Some(&port);
        let step = |what: String, text: &str, may| Step {
            what,
            frames: vec![Frame { port, bytes: build(text).unwrap() }],
            may,
        };
        let (text, what) = frame(random, &src, &dst);
        let plain = |stations: &mut Self| {
            stations.at.insert(station, port);
            step(format!("{what} from {src} at {port} to {dst}"), &text, None)
        };
        // What only one side learns from must not tell it anything new.
        match random.below(40) {
            0 if settled => step(
                "bad header checksum".into(),
                &format!("eth {src}>{dst} / ipv4 10.0.0.1>10.0.0.2 csum=1 / udp 1>2"),
                Some(Known::BridgedMalformed),
            ),
            1 if settled => step(
                "martian source".into(),
                &format!("eth {src}>{dst} / ipv4 127.0.0.1>10.0.0.2 / udp 1>2"),
                Some(Known::BridgedMalformed),
            ),
            2 if settled => step(
                "truncated".into(),
                &format!("eth {src}>{dst} / ipv6 fd00::1>fd00::2 len=500 / udp 1>2"),
                Some(Known::BridgedMalformed),
            ),
            3 if settled => step(
                "tagged".into(),
                &format!("eth {src}>{dst} / vlan 7 / ipv4 10.0.0.1>10.0.0.2 / udp 1>2"),
                Some(Known::VlanTag),
            ),
            4 => {
                self.at.insert(station, port);
                let may = Some(Known::BridgeMtuSlack);
                let payload = 1472 + 1 + random.below(6);
                step(
                    format!("oversize by {}", payload - 1472),
                    &format!("eth {src}>{dst} / ipv4 10.0.0.1>10.0.0.2 / udp 1>2 / fill {payload}"),
                    may,
                )
            }
            5 => {
                self.at.insert(station, port);
                let last = if random.chance(30) { 0 } else { random.below(16) };
                let may = (last == 0).then_some(Known::BpduForwarded);
                step(
                    format!("reserved group {last}"),
                    &format!("eth {src}>01:80:c2:00:00:{last:02x} type=0x88cc / fill 40"),
                    may,
                )
            }
            6 => step(
                "group source".into(),
                &format!("eth 01:00:00:00:00:01>{dst} / ipv4 10.0.0.1>10.0.0.2 / udp 1>2"),
                None,
            ),
            _ => plain(self),
        }
    }
}

#[test]
fn the_kernel_bridges_the_same() {
    if !privileged("the_kernel_bridges_the_same") {
        return;
    }
    let steps = number("LOXI_STEPS", 1500);
    let mut model = Model::new(Reference::new(), PIPELINE, &PORTS);
    let seed = number("LOXI_SEED", 1) as u64;
    let summary = oracle::run(&mut kernel(), &mut model, &mut Stations::default(), seed, steps, LISTED);
    summary.assert("bridge", steps, 60, LISTED);
    assert_well_formed("bridge", &summary);
}

#[test]
fn a_bridge_that_passes_nothing_is_found_out() {
    if !privileged("a_bridge_that_passes_nothing_is_found_out") {
        return;
    }
    let mut model = Model::new(Reference::new().passing_nothing(), PIPELINE, &PORTS);
    let summary = oracle::run(&mut kernel(), &mut model, &mut Stations::default(), 1, 50, LISTED);
    assert!(!summary.failures.is_empty());
}
