//! A VTEP: routed packets into and out of a VXLAN tunnel, ECN across it, and headers that are wrong.

use crate::{assert_well_formed, number, privileged};
use loxi_conformance::build;
use loxi_reference::Reference;
use loxi_tests::oracle::{self, Device, Frame, Kernel, Known, Model, Scenario, Step};
use loxi_tests::random::Random;
use std::net::IpAddr;

const PORTS: [&str; 2] = ["p0", "p1"];
const PIPELINE: &str = include_str!("../../pipelines/vtep.yaml");

const LISTED: &[Known] = &[
    Known::EcnEncapsulateCe,
    Known::VxlanReservedBits,
    Known::UntrustedPeer,
    Known::Icmpv6ErrorClass,
    Known::IcmpErrorTos,
];

struct Vtep;

fn kernel() -> Kernel {
    let kernel = Kernel::new(&[
        Device { name: "p0", mac: "02:00:00:00:0a:00", mtu: 1450 },
        Device { name: "p1", mac: "02:00:00:00:0a:01", mtu: 1500 },
    ]);
    for words in [
        "addr add 10.3.1.1/24 dev p0",
        "addr add fd00:3:1::1/64 dev p0 nodad",
        "addr add 172.18.0.1/24 dev p1",
        "neigh add 172.18.0.2 lladdr 02:00:00:01:0b:02 dev p1 nud permanent",
        "link add vx0 type vxlan id 100 local 172.18.0.1 remote 172.18.0.2 dstport 4789 nolearning df set \
         ttl 64 noudpcsum srcport 49152 65535",
        "link set vx0 address 02:00:00:00:0a:f0 mtu 1450",
        "link set vx0 up",
        "addr add 10.3.0.1/32 dev vx0",
        "addr add fd00:3::1/128 dev vx0 nodad",
        "route add 10.3.2.0/24 via 10.3.0.2 dev vx0 onlink",
        "neigh add 10.3.0.2 lladdr 02:00:00:00:0c:f0 dev vx0 nud permanent",
        "-6 route add fd00:3:2::/64 via fd00:3::2 dev vx0 onlink",
        "neigh add fd00:3::2 lladdr 02:00:00:00:0c:f0 dev vx0 nud permanent",
    ] {
        kernel.ip(words);
    }
    for host in [2, 3] {
        for address in [format!("10.3.1.{host}"), format!("fd00:3:1::{host}")] {
            kernel.ip(&format!("neigh add {address} lladdr 02:00:00:00:0b:{host:02x} dev p0 nud permanent"));
        }
    }
    kernel
}

/// An IP packet of a pod here to one there, or the reverse.
fn inner(random: &mut Random, host: usize, outbound: bool, ecn: usize) -> String {
    let v6 = random.chance(40);
    let far = 1 + random.below(200);
    let (here, there) = if v6 {
        (format!("fd00:3:1::{host}"), format!("fd00:3:2::{far:x}"))
    } else {
        (format!("10.3.1.{host}"), format!("10.3.2.{far}"))
    };
    let (src, dst) = if outbound { (here, there) } else { (there, here) };
    let class = random.below(64) << 2 | ecn;
    let hops = *random.pick(&[1, 2, 64, 64, 64, 64]);
    let size = *random.pick(&[0, 10, 100, 1000, 1300, 1385, 1390, 1400, 1410, 1420]);
    let ip = if v6 {
        format!("ipv6 {src}>{dst} tc={class} hop={hops}")
    } else {
        let df = *random.pick(&["df", "id=7"]);
        format!("ipv4 {src}>{dst} tos={class} ttl={hops} {df}")
    };
    let port = 4000 + random.below(500);
    let l4 = match (random.below(3), v6) {
        (0, false) => format!("icmp 8 0 id={port} / fill {size}"),
        (0, true) => format!("icmp6 128 0 id={port} / fill {size}"),
        (1, _) => format!("tcp {port}>80 A / fill {size}"),
        _ => format!("udp {port}>90 / fill {size}"),
    };
    format!("{ip} / {l4}")
}

fn frame(port: usize, what: &str, text: &str, may: Option<Known>) -> Step {
    let bytes = build(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Step { what: format!("{what}: {text}"), frames: vec![Frame { port, bytes }], may }
}

fn encapsulated(random: &mut Random) -> Step {
    let (outer_ecn, inner_ecn) = (random.below(4), random.below(4));
    let class = random.below(64) << 2 | outer_ecn;
    let host = 2 + random.below(2);
    let body = inner(random, host, false, inner_ecn);
    let entropy = 32_768 + random.below(20_000);
    let mut from = "172.18.0.2";
    let (mut vxlan, mut udp) = ("vxlan 100".to_owned(), format!("udp {entropy}>4789 csum=0"));
    let mut mac = "02:00:00:00:0a:f0";
    let mut may = None;
    let what = match random.below(24) {
        0 => {
            vxlan = "vxlan 101".to_owned();
            "unknown VNI"
        }
        1 => {
            vxlan = "vxlan 100 flags=0".to_owned();
            "no I flag"
        }
        2 => {
            vxlan = "vxlan 100 flags=24".to_owned();
            may = Some(Known::VxlanReservedBits);
            "a reserved flag"
        }
        3 => {
            from = "172.18.0.3";
            may = Some(Known::UntrustedPeer);
            "from a stranger"
        }
        4 => {
            from = "172.18.0.1";
            "from our own address"
        }
        5 => {
            udp = format!("udp {entropy}>4789 csum=0x1");
            "wrong outer checksum"
        }
        6 => {
            udp = format!("udp {entropy}>4789");
            "outer checksum"
        }
        7 => {
            mac = "02:00:00:00:0a:f9";
            "for another station inside"
        }
        _ => "encapsulated",
    };
    let text = format!(
        "eth 02:00:00:01:0b:02>02:00:00:00:0a:01 / ipv4 {from}>172.18.0.1 tos={class} df / {udp} / {vxlan} / \
         eth 02:00:00:00:0c:f0>{mac} / {body}"
    );
    frame(1, what, &text, may)
}

impl Scenario for Vtep {
    fn own(&self) -> Vec<IpAddr> {
        ["172.18.0.1", "10.3.1.1", "10.3.0.1", "fd00:3:1::1", "fd00:3::1"]
            .map(|text| text.parse().unwrap())
            .into()
    }

    fn step(&mut self, random: &mut Random) -> Step {
        if random.chance(50) {
            return encapsulated(random);
        }
        let host = 2 + random.below(2);
        let ecn = random.below(4);
        let body = inner(random, host, true, ecn);
        frame(
            0,
            "to be encapsulated",
            &format!("eth 02:00:00:00:0b:{host:02x}>02:00:00:00:0a:00 / {body}"),
            None,
        )
    }
}

#[test]
fn the_kernel_tunnels_the_same() {
    if !privileged("the_kernel_tunnels_the_same") {
        return;
    }
    let steps = number("LOXI_STEPS", 1500);
    let mut model = Model::new(Reference::new(), PIPELINE, &PORTS);
    let seed = number("LOXI_SEED", 1) as u64;
    let summary = oracle::run(&mut kernel(), &mut model, &mut Vtep, seed, steps, LISTED);
    summary.assert("vtep", steps, 60, LISTED);
    assert!(summary.choices > 0, "nothing was free to choose");
    assert_well_formed("vtep", &summary);
}

#[test]
fn a_vtep_that_passes_nothing_is_found_out() {
    if !privileged("a_vtep_that_passes_nothing_is_found_out") {
        return;
    }
    let mut model = Model::new(Reference::new().passing_nothing(), PIPELINE, &PORTS);
    let summary = oracle::run(&mut kernel(), &mut model, &mut Vtep, 1, 50, LISTED);
    assert!(!summary.failures.is_empty());
}
