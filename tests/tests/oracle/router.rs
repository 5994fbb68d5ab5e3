//! A router with static neighbours: longest prefixes, TTL, MTU, errors, and what is wrong with a packet.

use crate::{assert_well_formed, number, privileged};
use loxi_conformance::build;
use loxi_reference::Reference;
use loxi_tests::oracle::{self, Device, Frame, Kernel, Known, Model, Scenario, Step};
use loxi_tests::random::Random;
use loxi_tests::wire::{self, ETH};
use std::net::IpAddr;

pub const PORTS: [&str; 3] = ["p0", "p1", "p2"];
pub const PIPELINE: &str = include_str!("../../pipelines/router.yaml");

const LISTED: &[Known] = &[
    Known::TransportUnverified,
    Known::Ipv4LinkLocalRouted,
    Known::Ipv6LinkLocalSilent,
    Known::GroupSourceMac,
    Known::OwnSource,
    Known::DirectedBroadcast,
    Known::Ipv6LaterFragment,
    Known::IcmpErrorTos,
    Known::AnswerToSender,
    Known::Icmpv6ErrorClass,
    Known::FragmentOptions,
];

pub struct Router;

pub fn kernel() -> Kernel {
    let kernel = Kernel::new(&[
        Device { name: "p0", mac: "02:00:00:00:0a:00", mtu: 1500 },
        Device { name: "p1", mac: "02:00:00:00:0a:01", mtu: 1500 },
        Device { name: "p2", mac: "02:00:00:00:0a:02", mtu: 1280 },
    ]);
    for link in 0..3 {
        let v6 = v6_net(link);
        kernel.ip(&format!("addr add 10.1.{link}.1/24 dev p{link}"));
        kernel.ip(&format!("addr add {v6}1/64 dev p{link} nodad"));
        for host in [2, 3] {
            let mac = format!("02:00:00:{link:02x}:0b:{host:02x}");
            kernel.ip(&format!("neigh add 10.1.{link}.{host} lladdr {mac} dev p{link} nud permanent"));
            kernel.ip(&format!("neigh add {v6}{host} lladdr {mac} dev p{link} nud permanent"));
        }
    }
    for route in [
        "10.9.0.0/16 via 10.1.1.3",
        "10.9.7.0/24 via 10.1.2.3",
        "10.9.7.128/25 via 10.1.1.3",
        "fd00:9::/32 via fd00:1:1::3",
        "fd00:9:7::/48 via fd00:1:2::3",
    ] {
        kernel.ip(&format!("route add {route}"));
    }
    kernel.ip("route add blackhole 10.9.8.0/24");
    kernel.ip("-6 route add blackhole fd00:9:8::/48");
    kernel
}

fn v6_net(link: usize) -> &'static str {
    ["fd00:1::", "fd00:1:1::", "fd00:1:2::"][link]
}

/// A packet in the making; what is left alone is right.
struct Draft {
    link: usize,
    v6: bool,
    src_mac: String,
    dst_mac: String,
    src: String,
    dst: String,
    ip: String,
    payload: String,
    what: String,
    may: Option<Known>,
}

impl Draft {
    fn new(random: &mut Random) -> Self {
        let (link, v6) = (random.below(3), random.chance(45));
        let host = 2 + random.below(2);
        // Not back where it came from: Linux would send redirects over IPv6.
        let out = (link + 1 + random.below(2)) % 3;
        let to = 2 + random.below(2);
        let (src, dst) = if v6 {
            (format!("{}{host}", v6_net(link)), format!("{}{to}", v6_net(out)))
        } else {
            (format!("10.1.{link}.{host}"), format!("10.1.{out}.{to}"))
        };
        let ip = if v6 { "hop=64".to_owned() } else { "ttl=64".to_owned() };
        Self {
            link,
            v6,
            src_mac: format!("02:00:00:{link:02x}:0b:{host:02x}"),
            dst_mac: format!("02:00:00:00:0a:{link:02x}"),
            src,
            dst,
            ip,
            payload: transport(random, v6),
            what: "to a neighbour".to_owned(),
            may: None,
        }
    }

    fn what(mut self, what: &str) -> Self {
        self.what = what.to_owned();
        self
    }

    fn may(mut self, known: Known) -> Self {
        self.may = Some(known);
        self
    }

    fn step(self) -> Step {
        let ip = if self.v6 { "ipv6" } else { "ipv4" };
        let text = format!(
            "eth {}>{} / {ip} {}>{} {} / {}",
            self.src_mac, self.dst_mac, self.src, self.dst, self.ip, self.payload
        );
        let bytes = build(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        Step {
            what: format!("{}: {text}", self.what),
            frames: vec![Frame { port: self.link, bytes }],
            may: self.may,
        }
    }
}

fn transport(random: &mut Random, v6: bool) -> String {
    let size = random.below(400);
    match random.below(4) {
        0 => format!("tcp 4000{}>5000 A seq=7 / fill {size}", random.below(9)),
        1 if v6 => format!("icmp6 128 0 id=7 seq=1 / fill {size}"),
        1 => format!("icmp 8 0 id=7 seq=1 / fill {size}"),
        2 => format!("fill {size}"),
        _ => format!("udp 4000{}>5000 / fill {size}", random.below(9)),
    }
}

impl Scenario for Router {
    fn own(&self) -> Vec<IpAddr> {
        ["10.1.0.1", "10.1.1.1", "10.1.2.1", "fd00:1::1", "fd00:1:1::1", "fd00:1:2::1"]
            .map(|text| text.parse().unwrap())
            .into()
    }

    fn step(&mut self, random: &mut Random) -> Step {
        let draft = Draft::new(random);
        match random.below(40) {
            0..=9 => draft.step(),
            10..=13 => by_gateway(draft, random).step(),
            14..=16 => low_ttl(draft, random).step(),
            17..=19 => large(draft, random).step(),
            20 => no_way(draft, random).step(),
            21..=24 => to_device(draft, random).step(),
            25..=27 => martian(draft, random).step(),
            28 => classed(draft, random).step(),
            29..=31 => fragment(draft, random).step(),
            32 => other_mac(draft, random).step(),
            33 => neighbour_question(random),
            34 => broken_transport(draft, random).step(),
            35 => about_an_error(draft, random).step(),
            _ => broken(draft.step(), random),
        }
    }
}

fn by_gateway(mut draft: Draft, random: &mut Random) -> Draft {
    let low = random.below(255);
    // Behind links 1 and 2; from link 0, so that nothing goes back where it came from.
    draft = Draft { link: 0, ..draft };
    draft.src_mac = "02:00:00:00:0b:02".to_owned();
    draft.dst_mac = "02:00:00:00:0a:00".to_owned();
    draft.src = if draft.v6 { "fd00:1::2".to_owned() } else { "10.1.0.2".to_owned() };
    draft.dst = match (draft.v6, random.below(3)) {
        (false, 0) => format!("10.9.{low}.1"),
        (false, 1) => format!("10.9.7.{low}"),
        (false, _) => format!("10.9.8.{low}"),
        (true, 0) => format!("fd00:9:{low:x}::1"),
        (true, 1) => format!("fd00:9:7:{low:x}::1"),
        (true, _) => format!("fd00:9:8::{low:x}"),
    };
    draft.what("by the longest prefix")
}

fn low_ttl(mut draft: Draft, random: &mut Random) -> Draft {
    let ttl = random.below(3);
    draft.ip = if draft.v6 { format!("hop={ttl}") } else { format!("ttl={ttl}") };
    if random.chance(10) {
        // From a MAC that the device knows under another address.
        draft.src_mac = format!("02:00:00:{:02x}:0b:77", draft.link);
    }
    draft.what("at its last hops")
}

fn large(mut draft: Draft, random: &mut Random) -> Draft {
    let size = 1180 + random.below(290);
    let l4 = if random.chance(50) { "udp 4000>5000" } else { "tcp 4000>5000 A" };
    draft.payload = format!("{l4} / fill {size}");
    if !draft.v6 {
        draft.ip = match random.below(4) {
            0 => "ttl=9 df".to_owned(),
            1 => "ttl=9 id=77".to_owned(),
            2 => {
                draft.may = Some(Known::FragmentOptions);
                "ttl=9 id=78 ihl=7".to_owned()
            }
            _ => format!("ttl=9 id={} mf off=800", random.below(60_000)),
        };
    }
    draft.what("large")
}

fn no_way(mut draft: Draft, random: &mut Random) -> Draft {
    // Linux limits these errors per source, without a setting: many sources, behind a gateway.
    let (near, far) = (random.below(250), random.below(60_000));
    draft.link = 1;
    draft.src_mac = "02:00:00:01:0b:03".to_owned();
    draft.dst_mac = "02:00:00:00:0a:01".to_owned();
    if draft.v6 {
        draft.src = format!("fd00:9:1::{near:x}");
        draft.dst = format!("fd77::{far:x}");
    } else {
        draft.src = format!("10.9.{}.{near}", 1 + far % 6);
        draft.dst = format!("172.30.{}.{}", far >> 8, far & 255);
    }
    draft.what("no route")
}

fn to_device(mut draft: Draft, random: &mut Random) -> Draft {
    let link = draft.link;
    draft.dst = if draft.v6 { format!("{}1", v6_net(link)) } else { format!("10.1.{link}.1") };
    draft.payload = match (random.below(4), draft.v6) {
        (0, true) => "icmp6 128 0 id=9 seq=3 / fill 100".to_owned(),
        (0, false) => "icmp 8 0 id=9 seq=3 / fill 101".to_owned(),
        (1, _) => "udp 3000>33434 / fill 30".to_owned(),
        (2, _) => format!("tcp 3000>81 {} seq=100 ack=200", random.pick(&["S", "A", "SA", "FA", "R", "F"])),
        _ => format!("tcp 3000>81 {} seq=100 ack=0 / fill 10", random.pick(&["S", "A", "FA"])),
    };
    draft.ip = if draft.v6 { "hop=1".to_owned() } else { format!("ttl={}", 1 + random.below(2)) };
    draft.what("to the device")
}

fn martian(mut draft: Draft, random: &mut Random) -> Draft {
    let link = draft.link;
    if draft.v6 {
        match random.below(7) {
            0 => draft.src = "::1".to_owned(),
            1 => draft.src = "ff02::1".to_owned(),
            2 => draft.src = "::".to_owned(),
            3 => draft.dst = "::1".to_owned(),
            4 => draft.dst = "ff0e::1".to_owned(),
            5 => {
                draft.src = "fe80::2".to_owned();
                draft = draft.may(Known::Ipv6LinkLocalSilent);
            }
            _ => {
                draft.dst = "fe80::2".to_owned();
                draft = draft.may(Known::Ipv6LinkLocalSilent);
            }
        }
        return draft.what("martian");
    }
    match random.below(10) {
        0 => draft.src = "127.0.0.1".to_owned(),
        1 => draft.src = "224.0.0.5".to_owned(),
        2 => draft.src = "0.0.0.0".to_owned(),
        3 => draft.src = "255.255.255.255".to_owned(),
        4 => draft.dst = "127.0.0.1".to_owned(),
        5 => draft.dst = "0.0.0.0".to_owned(),
        6 => draft.dst = "239.1.1.1".to_owned(),
        7 => {
            draft.src = "169.254.1.1".to_owned();
            draft = draft.may(Known::Ipv4LinkLocalRouted);
        }
        8 => {
            draft.src = format!("10.1.{link}.1");
            draft = draft.may(Known::OwnSource);
        }
        _ => {
            draft.dst = format!("10.1.{}.255", (link + 1) % 3);
            draft = draft.may(Known::DirectedBroadcast);
        }
    }
    draft.what("martian")
}

/// Errors about packets with a class of their own.
fn classed(mut draft: Draft, random: &mut Random) -> Draft {
    let class = random.below(256);
    draft.ip = if draft.v6 { format!("hop=1 tc={class}") } else { format!("ttl=1 tos={class}") };
    draft.what("class")
}

fn fragment(mut draft: Draft, random: &mut Random) -> Draft {
    let (offset, more) = *random.pick(&[(0, "mf"), (64, "mf"), (640, "")]);
    let ttl = *random.pick(&[1, 64]);
    let size = *random.pick(&[64, 512, 1300]);
    let payload =
        if offset == 0 { format!("udp 4000>5000 len=2000 / fill {size}") } else { format!("fill {size}") };
    // Never two of one packet: nothing may be put together.
    let id = random.below(60_000);
    if draft.v6 {
        draft.ip = format!("hop={ttl}");
        draft.payload = format!("frag id={id} off={offset} {more} nh=17 / {payload}");
        if offset > 0 {
            draft = draft.may(Known::Ipv6LaterFragment);
        }
    } else {
        draft.ip = format!("ttl={ttl} id={id} off={offset} {more} proto=17");
        draft.payload = payload;
    }
    draft.what("fragment")
}

fn other_mac(mut draft: Draft, random: &mut Random) -> Draft {
    draft.dst_mac =
        (*random.pick(&["02:00:00:00:0a:77", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"])).to_owned();
    draft.what("for another station")
}

fn neighbour_question(random: &mut Random) -> Step {
    let link = random.below(3);
    let mac = format!("02:00:00:{link:02x}:0b:02");
    let (text, what) = match random.below(3) {
        0 => (
            format!(
                "eth {mac}>ff:ff:ff:ff:ff:ff / arp request {mac}/10.1.{link}.2>00:00:00:00:00:00/10.1.{link}.1"
            ),
            "ARP",
        ),
        1 => (
            format!(
                "eth {mac}>ff:ff:ff:ff:ff:ff / arp request {mac}/10.1.{link}.2>00:00:00:00:00:00/10.1.{link}.9"
            ),
            "ARP for another",
        ),
        _ => {
            let target: std::net::Ipv6Addr = format!("{}1", v6_net(link)).parse().unwrap();
            let hex = wire::hex(&target.octets());
            let option = format!("0101{}", mac.replace(':', ""));
            (
                format!(
                    "eth {mac}>33:33:ff:00:00:01 / ipv6 {}2>ff02::1:ff00:1 hop=255 / icmp6 135 0 / hex {hex}{option}",
                    v6_net(link)
                ),
                "NS",
            )
        }
    };
    Step {
        what: what.to_owned(),
        frames: vec![Frame { port: link, bytes: build(&text).unwrap() }],
        may: None,
    }
}

fn broken_transport(mut draft: Draft, random: &mut Random) -> Draft {
    draft.payload = match (random.below(5), draft.v6) {
        (0, _) => "udp 1>2 csum=0x1 / fill 9".to_owned(),
        (1, _) => "tcp 1>2 S csum=0x1".to_owned(),
        (2, _) => "tcp 1>2 S doff=2".to_owned(),
        (3, _) => "udp 1>2 len=4".to_owned(),
        (_, true) => "icmp6 128 0 csum=0x1".to_owned(),
        (_, false) => "icmp 8 0 csum=0x1".to_owned(),
    };
    draft.what("broken transport").may(Known::TransportUnverified)
}

/// ICMP errors are never told about.
fn about_an_error(mut draft: Draft, random: &mut Random) -> Draft {
    let ttl = *random.pick(&[1, 64]);
    if draft.v6 {
        draft.ip = format!("hop={ttl}");
        draft.payload = format!("icmp6 1 4 / ipv6 {}>{} / udp 1>2", draft.dst, draft.src);
    } else {
        draft.ip = format!("ttl={ttl}");
        draft.payload = format!("icmp 3 1 / ipv4 {}>{} / udp 1>2", draft.dst, draft.src);
    }
    draft.what("an error")
}

/// Damage to the headers that a router must look at, and padding, which is none.
fn broken(mut step: Step, random: &mut Random) -> Step {
    let bytes = &mut step.frames[0].bytes;
    let v4 = wire::is_v4(bytes);
    step.may = None;
    let what = match random.below(8) {
        0 if v4 => {
            bytes[ETH + 10] ^= 0x10;
            "header checksum"
        }
        1 => {
            bytes[ETH] = (bytes[ETH] & 0x0f) | 0x50;
            "version"
        }
        2 if v4 => {
            bytes[ETH] = 0x44;
            wire::fix_header(bytes);
            "header length below 20"
        }
        3 if v4 => {
            wire::set_word(bytes, ETH + 2, 19);
            wire::fix_header(bytes);
            "total length below the header's"
        }
        4 => {
            let at = if v4 { ETH + 2 } else { ETH + 4 };
            let longer = wire::word(bytes, at) + 8;
            wire::set_word(bytes, at, longer);
            wire::fix_header(bytes);
            "truncated"
        }
        5 => {
            bytes.truncate(ETH + random.below(20));
            "cut inside the header"
        }
        6 => {
            bytes[6] |= 1;
            step.may = Some(Known::GroupSourceMac);
            "group source MAC"
        }
        _ => {
            bytes.resize(bytes.len() + 1 + random.below(30), 0x5a);
            "padded"
        }
    };
    step.what = format!("{what}: {}", step.what);
    step
}

#[test]
fn the_kernel_routes_the_same() {
    if !privileged("the_kernel_routes_the_same") {
        return;
    }
    let steps = number("LOXI_STEPS", 2000);
    let mut model = Model::new(Reference::new(), PIPELINE, &PORTS);
    let seed = number("LOXI_SEED", 1) as u64;
    let summary = oracle::run(&mut kernel(), &mut model, &mut Router, seed, steps, LISTED);
    summary.assert("router", steps, 60, LISTED);
    assert_well_formed("router", &summary);
}

#[test]
fn a_router_that_passes_nothing_is_found_out() {
    if !privileged("a_router_that_passes_nothing_is_found_out") {
        return;
    }
    let mut model = Model::new(Reference::new().passing_nothing(), PIPELINE, &PORTS);
    let summary = oracle::run(&mut kernel(), &mut model, &mut Router, 1, 50, LISTED);
    assert!(!summary.failures.is_empty());
}
