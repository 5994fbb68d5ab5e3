//! A gateway: nftables with conntrack against services, NAT rules and zones.
//!
//! The traffic is conversations whose packets follow from what came out before: a reply answers the packet
//! that was seen at the other side, an error quotes it.

mod conversation;

use crate::{assert_well_formed, number, privileged};
use conversation::{Conversation, Station};
use loxi_conformance::build;
use loxi_reference::Reference;
use loxi_tests::oracle::{self, Device, Frame, Kernel, Known, Model, Scenario, Step};
use loxi_tests::random::Random;
use std::net::IpAddr;

const PORTS: [&str; 3] = ["p0", "p1", "p2"];
const PIPELINE: &str = include_str!("../../../pipelines/gateway.yaml");
const RULES: &str = include_str!("../../../pipelines/gateway.nft");

const LISTED: &[Known] = &[
    Known::TcpStateStrict,
    Known::IcmpErrorOuterSource,
    Known::Icmpv6ErrorClass,
    Known::ProtocolUnreachable,
    Known::Ipv6FragmentId,
];

/// Conversations that are going on at once.
const AT_ONCE: usize = 12;

fn kernel() -> Kernel {
    let kernel = Kernel::new(&[
        Device { name: "p0", mac: "02:00:00:00:0a:00", mtu: 1500 },
        Device { name: "p1", mac: "02:00:00:00:0a:01", mtu: 1500 },
        Device { name: "p2", mac: "02:00:00:00:0a:02", mtu: 1400 },
    ]);
    for link in 0..3 {
        for host in 1..=3 {
            let (v4, v6) = (Station::address(link, host, false), Station::address(link, host, true));
            if host == 1 {
                kernel.ip(&format!("addr add {v4}/24 dev p{link}"));
                kernel.ip(&format!("addr add {v6}/64 dev p{link} nodad"));
            } else {
                let mac = Station::mac(link, host);
                kernel.ip(&format!("neigh add {v4} lladdr {mac} dev p{link} nud permanent"));
                kernel.ip(&format!("neigh add {v6} lladdr {mac} dev p{link} nud permanent"));
            }
        }
    }
    // Exclusive addresses: what no service claims is answered as by a host.
    kernel.ip("addr add 10.96.0.1/32 dev lo");
    kernel.ip("addr add fd00:96::1/128 dev lo nodad");
    kernel.nft(RULES);
    for (key, value) in [
        // No window tracking, no mid-stream pickup, checksums verified.
        ("nf_conntrack_tcp_be_liberal", "1"),
        ("nf_conntrack_tcp_ignore_invalid_rst", "1"),
        ("nf_conntrack_tcp_loose", "0"),
        ("nf_conntrack_checksum", "1"),
    ] {
        kernel.sysctl(&format!("net.netfilter.{key}"), value);
    }
    kernel
}

#[derive(Default)]
struct Gateway {
    talks: Vec<Conversation>,
    /// The one that the last step is of.
    current: Option<usize>,
    made: u16,
}

impl Gateway {
    fn open(&mut self, random: &mut Random) -> usize {
        self.made += 1;
        // A twin talks from elsewhere to the same place with the same port, so that translations collide.
        let twin = self.talks.last().filter(|_| random.chance(40)).and_then(Conversation::twin);
        self.talks.push(twin.unwrap_or_else(|| Conversation::new(random, 20_000 + self.made)));
        if self.talks.len() > AT_ONCE {
            self.talks.remove(0);
        }
        self.talks.len() - 1
    }
}

impl Scenario for Gateway {
    fn own(&self) -> Vec<IpAddr> {
        let mut own: Vec<IpAddr> = ["10.96.0.1", "10.96.0.2", "fd00:96::1", "fd00:96::2", "10.2.2.77"]
            .map(|text| text.parse().unwrap())
            .into();
        for link in 0..3 {
            own.extend([false, true].map(|v6| Station::address(link, 1, v6).parse::<IpAddr>().unwrap()));
        }
        own
    }

    fn step(&mut self, random: &mut Random) -> Step {
        self.current = None;
        if random.chance(8) {
            return stray(random);
        }
        self.talks.retain(|talk| !talk.is_over());
        let index = if self.talks.len() < 4 || random.chance(15) {
            self.open(random)
        } else {
            random.below(self.talks.len())
        };
        self.current = Some(index);
        self.talks[index].step(random)
    }

    fn agreed(&mut self, _step: &Step, outputs: &[Frame]) {
        if let Some(index) = self.current {
            self.talks[index].heard(outputs);
        }
    }

    fn differed(&mut self, _step: &Step) {
        if let Some(index) = self.current {
            self.talks[index].end();
        }
    }
}

/// A packet that belongs to nothing.
fn stray(random: &mut Random) -> Step {
    let v6 = random.chance(40);
    let (link, host) = (random.below(3), 2 + random.below(2));
    let vip = if v6 { "fd00:96::1" } else { "10.96.0.1" };
    let far = Station::address((link + 1) % 3, 2, v6);
    let dst = if random.chance(50) { vip } else { far.as_str() };
    let sport = 10_000 + random.below(9_000);
    let flags = *random.pick(&["A", "SA", "FA", "R", "RA", "F", "-", "SF", "SR"]);
    let (icmp, reply, error) = if v6 { ("icmp6", 129, 1) } else { ("icmp", 0, 3) };
    let ip = if v6 { "ipv6" } else { "ipv4" };
    let src = Station::address(link, host, v6);
    let payload = match random.below(6) {
        0 | 1 => format!("tcp {sport}>80 {flags} seq=5 ack=9"),
        2 => format!("{icmp} {reply} 0 id={sport}"),
        3 => format!("{icmp} {error} 1 / {ip} {dst}>{src} / udp 99>{sport}"),
        4 => format!("udp {sport}>80 csum=0x1"),
        _ => format!("tcp {sport}>80 S csum=0x1"),
    };
    let text =
        format!("eth {}>02:00:00:00:0a:{link:02x} / {ip} {src}>{dst} / {payload}", Station::mac(link, host));
    Step {
        what: format!("stray: {text}"),
        frames: vec![Frame { port: link, bytes: build(&text).unwrap() }],
        may: None,
    }
}

#[test]
fn the_kernel_translates_the_same() {
    if !privileged("the_kernel_translates_the_same") {
        return;
    }
    let steps = number("LOXI_STEPS", 2500);
    let mut model = Model::new(Reference::new(), PIPELINE, &PORTS);
    let seed = number("LOXI_SEED", 1) as u64;
    let summary = oracle::run(&mut kernel(), &mut model, &mut Gateway::default(), seed, steps, LISTED);
    summary.assert("gateway", steps, 60, LISTED);
    assert!(summary.choices > 0, "nothing was free to choose");
    assert_well_formed("gateway", &summary);
}

#[test]
fn a_gateway_that_passes_nothing_is_found_out() {
    if !privileged("a_gateway_that_passes_nothing_is_found_out") {
        return;
    }
    let mut model = Model::new(Reference::new().passing_nothing(), PIPELINE, &PORTS);
    let summary = oracle::run(&mut kernel(), &mut model, &mut Gateway::default(), 1, 50, LISTED);
    assert!(!summary.failures.is_empty());
}
