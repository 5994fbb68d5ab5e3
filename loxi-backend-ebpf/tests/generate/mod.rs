//! Random valid pipelines and random changes of them.
//!
//! An entity is one number: what it says is worked out here, from few names and values so that
//! entities meet. What doesn't fit together is taken out again until the rest is valid. So a failing
//! case shrinks by losing entities.

use loxi_core::ir::*;
use loxi_core::net::*;
use loxi_core::validate::validate;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `limit`.
    pub fn roll(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }

    /// Once in `n` rolls.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    /// One of several.
    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len() as u64) as usize].clone()
    }

    /// Up to `most` of several.
    pub fn some<T: Clone + Ord>(&mut self, all: &[T], most: u64) -> BTreeSet<T> {
        (0..self.roll(most + 1)).map(|_| self.of(all)).collect()
    }

    /// A name of a letter and a number below `limit`.
    pub fn name<T: std::str::FromStr>(&mut self, letter: &str, limit: u64) -> T {
        named(letter, self.roll(limit))
    }

    fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(2).then(|| value(self))
    }
}

fn named<T: std::str::FromStr>(letter: &str, number: u64) -> T {
    read(&format!("{letter}{number}"))
}

fn read<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().unwrap_or_else(|| panic!("{text}"))
}

fn all<T: std::str::FromStr>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| read(text)).collect()
}

const MACS: [&str; 5] =
    ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04", "02:00:00:00:00:05"];
const HOSTS: [&str; 9] =
    ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "fd00::1", "fd00::2", "fd00::3", "fe80::1"];
const OUTER: [&str; 6] = ["172.16.0.1", "172.16.0.2", "172.16.0.3", "172.16.0.4", "fd00:16::1", "fd00:16::2"];
const VIPS: [&str; 4] = ["10.96.0.1", "10.96.0.2", "fd00:96::1", "fd00:96::2"];

/// Prefixes of policies and sets, nested in one another.
pub const PREFIXES: [&str; 16] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.0/25",
    "10.1.2.3/32",
    "10.1.3.0/24",
    "10.2.0.0/16",
    "192.168.0.0/16",
    "192.168.1.1/32",
    "::/0",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1::/64",
    "fd00:1::5/128",
    "2001:db8::/32",
];

/// A pipeline of a few entities of every kind, as the first number has it, with those of the
/// numbers put over them.
pub fn pipeline(seeds: &[u64]) -> Pipeline {
    let mut pipeline = Pipeline::default();
    let mut dice = Dice(seeds.first().copied().unwrap_or_default());
    // Every kind, several times: a seed's remainder is its kind.
    let base = (0..KINDS * 14).map(|n| n % KINDS + KINDS * dice.roll(1 << 32));
    for seed in base.chain(seeds.iter().copied()) {
        pipeline.put(owner(), entity(seed));
    }
    prune(pipeline)
}

/// The pipeline after a change: each number takes an entity out, alters one, or puts one.
pub fn changed(old: &Pipeline, seeds: &[u64]) -> Pipeline {
    let mut pipeline = old.clone();
    for seed in seeds {
        let mut dice = Dice(*seed);
        let how = dice.roll(4);
        let keys: Vec<EntityKey> = pipeline.keys().collect();
        if how < 2 || keys.is_empty() {
            pipeline.put(owner(), entity(*seed));
        } else if how == 2 {
            pipeline.remove(&dice.of(&keys));
        } else if let Some(altered) = altered(&mut dice, &pipeline, &keys) {
            pipeline.put(owner(), altered);
        }
    }
    prune(pipeline)
}

/// Another entity of a key that is there.
fn altered(dice: &mut Dice, pipeline: &Pipeline, keys: &[EntityKey]) -> Option<Entity> {
    // Ports, interfaces and tunnels are what others draw upon.
    let drawn_upon = |key: &&EntityKey| {
        matches!(
            key.kind(),
            EntityKind::Port | EntityKind::Interface | EntityKind::Tunnel | EntityKind::Bridge
        )
    };
    let some: Vec<EntityKey> = keys.iter().filter(drawn_upon).cloned().collect();
    let key = if dice.one_in(2) && !some.is_empty() { dice.of(&some) } else { dice.of(keys) };
    let kind = pipeline.entity(&key).map(|owned| kind_number(owned.entity.kind()))?;
    (0..100).map(|_| entity(kind + KINDS * dice.roll(1 << 32))).find(|entity| entity.key() == key)
}

fn kind_number(kind: EntityKind) -> u64 {
    EntityKind::ALL.iter().position(|other| *other == kind).map_or(0, |number| number as u64)
}

/// Takes out what doesn't fit until everything does.
pub fn prune(mut pipeline: Pipeline) -> Pipeline {
    while let Err(errors) = validate(&pipeline) {
        for error in errors.0 {
            pipeline.remove(&error.entity);
        }
    }
    pipeline
}

/// Who owns what is made here.
pub fn owner() -> Owner {
    read("test")
}

const KINDS: u64 = 20;

/// The entity of a number.
pub fn entity(seed: u64) -> Entity {
    let d = &mut Dice(seed);
    match seed % KINDS {
        0 => zone(d).into(),
        1 => vrf(d).into(),
        2 => bridge(d).into(),
        3 => port(d).into(),
        4 => interface(d).into(),
        5 => Neighbor {
            interface: d.name("i", 6),
            address: d.of(&all(&HOSTS)),
            mac: d.of(&all(&MACS)),
            origin: Origin::default(),
        }
        .into(),
        6 => tunnel(d).into(),
        7 => termination(d).into(),
        8 => fdb(d).into(),
        9 => next_hop(d).into(),
        10 => group(d).into(),
        11 => route(d).into(),
        12 => vip(d).into(),
        13 => backend(d).into(),
        14 => service(d).into(),
        15 => nat_rule(d).into(),
        16 => {
            let members = d.some(&all(&PREFIXES), 4);
            AddrSet { name: d.name("a", 3), members, origin: Origin::default() }.into()
        }
        17 => {
            let members = d.some(&ranges(), 3);
            PortSet { name: d.name("s", 2), members, origin: Origin::default() }.into()
        }
        18 => policy_rule(d).into(),
        _ => PolicyIsolation {
            policy: d.name("c", 3),
            direction: d.of(&[PolicyDirection::Egress, PolicyDirection::Ingress]),
            subject: subject(d),
            origin: Origin::default(),
        }
        .into(),
    }
}

fn zone(d: &mut Dice) -> CtZone {
    let max_flows = 100 + d.roll(3) as u32;
    let mut timeouts = CtTimeouts::default();
    timeouts.udp_s += d.roll(2) as u32;
    CtZone {
        name: d.name("z", 2),
        max_flows,
        max_half_open: d.optional(|d| 1 + d.roll(50) as u32),
        max_per_source: d.optional(|d| 1 + d.roll(50) as u32),
        mid_stream_pickup: d.one_in(2),
        timeouts,
        origin: Origin::default(),
    }
}

fn vrf(d: &mut Dice) -> Vrf {
    Vrf {
        name: d.name("v", 2),
        zone: (!d.one_in(6)).then(|| d.name("z", 2)),
        snat_address_v4: (!d.one_in(4)).then(|| read("10.0.0.9")),
        snat_address_v6: (!d.one_in(4)).then(|| read("fd00::9")),
        node_local: d.some(&all(&PREFIXES), 2),
        origin: Origin::default(),
    }
}

fn bridge(d: &mut Dice) -> Bridge {
    let flood = [Flooding::Flood, Flooding::Drop];
    Bridge {
        name: d.name("b", 2),
        zone: (!d.one_in(4)).then(|| d.name("z", 2)),
        learning: d.one_in(2),
        ageing_s: 300 + d.roll(2) as u32,
        max_macs: 10,
        unknown_unicast: d.of(&flood),
        multicast: d.of(&flood),
        broadcast: d.of(&flood),
        any_ethertype: d.one_in(2),
        proxy_neighbors: d.one_in(2),
        flood_tunnels: BTreeSet::new(),
        origin: Origin::default(),
    }
}

fn vlan(d: &mut Dice) -> VlanId {
    VlanId::new(1 + d.roll(3) as u16).unwrap()
}

fn port(d: &mut Dice) -> Port {
    let is_tunnel = d.one_in(3);
    let kinds = [PortKind::Pod, PortKind::Pod, PortKind::Host, PortKind::Uplink, PortKind::Representor];
    let attachment = match d.roll(8) {
        0 => Attachment::Detached,
        1..=2 => Attachment::Vrf(d.name("v", 2)),
        _ if is_tunnel => Attachment::Vrf(d.name("v", 2)),
        _ => {
            let trunk = d.one_in(2);
            let vlan = if trunk {
                VlanMode::Trunk {
                    allowed: (0..=d.roll(3)).map(|_| vlan(d)).collect(),
                    native: d.optional(vlan),
                }
            } else {
                VlanMode::Access(vlan(d))
            };
            Attachment::Bridge(BridgePort {
                bridge: d.name("b", 2),
                vlan,
                learning: d.one_in(2),
                split_horizon: d.optional(|d| d.roll(2) as u16),
            })
        }
    };
    Port {
        name: if is_tunnel { d.name("t", 3) } else { d.name("p", 6) },
        kind: if is_tunnel { PortKind::Tunnel } else { d.of(&kinds) },
        mac: d.of(&all(&MACS)),
        mtu: Mtu::new(1400 + d.roll(3) as u16).unwrap(),
        admin: d.of(&[Admin::Up, Admin::Up, Admin::Down]),
        underlay: d.one_in(4) && matches!(attachment, Attachment::Vrf(_)),
        attachment,
        scope: d.of(&[Scope::Internal, Scope::External]),
        anti_spoof: d.optional(|d| AntiSpoof {
            addresses: d.some(&all(&PREFIXES), 3),
            macs: d.some(&all(&MACS), 2),
            dhcp_client: d.one_in(2),
        }),
        unclaimed: d.of(&[None, Some(Unclaimed::Punt), Some(Unclaimed::Drop)]),
        origin: Origin::default(),
    }
}

fn interface(d: &mut Dice) -> Interface {
    let vlan = vlan(d);
    Interface {
        name: d.name("i", 6),
        on: if d.one_in(4) {
            InterfaceOn::Port(d.name("p", 6))
        } else {
            InterfaceOn::Bridge { bridge: d.name("b", 2), vlan }
        },
        vrf: d.name("v", 2),
        mac: d.of(&all(&MACS)),
        addresses: d.some(&all(&HOSTS), 3),
        mtu: Mtu::new(1400 + d.roll(3) as u16).unwrap(),
        local: d.of(&[LocalDelivery::Answer, LocalDelivery::Punt]),
        origin: Origin::default(),
    }
}

fn encapsulation(d: &mut Dice) -> TunnelKind {
    if d.one_in(3) {
        TunnelKind::Ipip
    } else {
        TunnelKind::Vxlan { vni: Vni::new(d.roll(3) as u32).unwrap(), port: d.of(&[4789, 4790]) }
    }
}

fn tunnel(d: &mut Dice) -> Tunnel {
    Tunnel {
        name: d.name("n", 5),
        kind: encapsulation(d),
        underlay_vrf: d.name("v", 2),
        local: d.of(&all(&OUTER)),
        remote: d.of(&all(&OUTER)),
        port: d.name("t", 3),
        inner_dst_mac: (!d.one_in(5)).then(|| d.of(&all(&MACS))),
        ttl: d.of(&[OuterTtl::Fixed(9), OuterTtl::Inherit]),
        dscp: d.of(&[OuterDscp::Fixed(11), OuterDscp::Inherit]),
        df: d.of(&[OuterDf::Set, OuterDf::Clear, OuterDf::Inherit]),
        udp_checksum: d.of(&[UdpChecksum::Zero, UdpChecksum::Computed]),
        source_ports: L4Ports::new(50_000, 50_000 + d.roll(2) as u16).unwrap(),
        origin: Origin::default(),
    }
}

fn termination(d: &mut Dice) -> TunnelTermination {
    let dst: IpAddr = d.of(&all(&OUTER));
    let peers =
        if dst.is_ipv4() { all(&["172.16.0.0/16", "10.0.0.0/8"]) } else { all(&["fd00::/8", "::/0"]) };
    TunnelTermination {
        name: d.name("e", 5),
        vrf: d.name("v", 2),
        dst,
        matches: encapsulation(d),
        peers: [d.of(&peers), d.of(&peers)].into(),
        port: d.name("t", 3),
        exclusive: d.one_in(2),
        origin: Origin::default(),
    }
}

fn fdb(d: &mut Dice) -> Fdb {
    Fdb {
        bridge: d.name("b", 2),
        vlan: vlan(d),
        mac: d.of(&all(&MACS)),
        target: if d.one_in(2) { FdbTarget::Tunnel(d.name("n", 5)) } else { FdbTarget::Port(d.name("p", 6)) },
        origin: Origin::default(),
    }
}

fn next_hop(d: &mut Dice) -> NextHop {
    let action = match d.roll(6) {
        0 => NextHopAction::Host,
        1 => NextHopAction::Blackhole,
        2 => NextHopAction::Tunnel(d.name("n", 5)),
        _ => NextHopAction::Direct {
            interface: d.name("i", 6),
            gateway: d.one_in(3).then(|| d.of(&all(&HOSTS))),
        },
    };
    NextHop { name: d.name("h", 6), action, origin: Origin::default() }
}

fn group(d: &mut Dice) -> NextHopGroup {
    let members = (0..=d.roll(3))
        .map(|_| GroupMember { next_hop: d.name("h", 6), weight: 1 + d.roll(3) as u16 })
        .collect();
    NextHopGroup { name: d.name("g", 3), members, seed: d.roll(2) as u32, origin: Origin::default() }
}

fn route(d: &mut Dice) -> Route {
    Route {
        vrf: d.name("v", 2),
        prefix: d.of(&all(&PREFIXES)),
        target: if d.one_in(3) {
            RouteTarget::Group(d.name("g", 3))
        } else {
            RouteTarget::NextHop(d.name("h", 6))
        },
        origin: Origin::default(),
    }
}

fn vip(d: &mut Dice) -> VipAddress {
    let mode = match d.roll(3) {
        0 => VipMode::Shared,
        _ => VipMode::Exclusive { other: d.of(&[OtherPorts::Reject, OtherPorts::Drop]), echo: d.one_in(2) },
    };
    VipAddress { vrf: d.name("v", 2), address: d.of(&all(&VIPS)), mode, origin: Origin::default() }
}

fn backend(d: &mut Dice) -> LbBackend {
    let number = d.roll(9);
    // The name tells the family, so that services can be of one.
    let addresses: Vec<IpAddr> =
        if number < 6 { all(&["10.0.0.1", "10.0.0.2"]) } else { all(&["fd00::1", "fd00::2"]) };
    LbBackend {
        name: named("k", number),
        address: d.of(&addresses),
        port: d.of(&[0, 8080, 8081]),
        weight: 1 + d.roll(3) as u16,
        state: d.of(&[BackendState::Active, BackendState::Draining, BackendState::Down]),
        locality: d.of(&[Locality::Local, Locality::Remote]),
        origin: Origin::default(),
    }
}

fn service(d: &mut Dice) -> LbService {
    let vip: IpAddr = d.of(&all(&VIPS));
    let mode = d.of(&[LbMode::Nat, LbMode::Nat, LbMode::FullNat, LbMode::DsrIpip, LbMode::DsrL2]);
    let (first, count) = match (mode, vip.is_ipv4()) {
        (LbMode::DsrIpip, _) => (0, 9),
        (_, true) => (0, 6),
        (_, false) => (6, 3),
    };
    let backends = (0..d.roll(5)).map(|_| named("k", first + d.roll(count))).collect();
    let refuse = [OnNoBackend::Reject, OnNoBackend::Drop];
    LbService {
        vrf: d.name("v", 2),
        vip,
        protocol: d.of(&[IpProtocol::TCP, IpProtocol::UDP]),
        ports: d.of(&all::<L4Ports>(&["80", "443", "8000-8010", "8011"])),
        scope: d.of(&[ServiceScope::Any, ServiceScope::Internal, ServiceScope::External]),
        backends,
        algorithm: d.of(&[
            LbAlgorithm::Maglev { table_size: MaglevSize::try_from(251).unwrap() },
            LbAlgorithm::SourceHash,
            LbAlgorithm::RoundRobin,
            LbAlgorithm::Random,
            LbAlgorithm::LeastConnections,
        ]),
        affinity: d.optional(|d| Affinity { timeout_s: 1 + d.roll(2) as u32 }),
        traffic_policy: d.of(&[TrafficPolicy::Cluster, TrafficPolicy::Local, TrafficPolicy::PreferLocal]),
        source_ranges: d.some(&all(&PREFIXES), 2),
        mode,
        on_no_backend: d.of(&refuse),
        on_no_local_backend: d.of(&refuse),
        origin: Origin::default(),
    }
}

fn nat_rule(d: &mut Dice) -> NatRule {
    let mut matches = NatMatch {
        src: d.some(&all(&PREFIXES), 2),
        dst: d.some(&all(&PREFIXES), 2),
        protocol: d.optional(|d| d.of(&[IpProtocol::TCP, IpProtocol::ICMP])),
        dst_ports: None,
        egress: d.optional(|d| d.name("i", 6)),
    };
    if matches.protocol == Some(IpProtocol::TCP) {
        matches.dst_ports = d.optional(|d| d.of(&ranges()));
    }
    let action = match d.roll(5) {
        0 => NatAction::NoNat,
        1 => NatAction::Snat { pool: d.some(&all(&HOSTS), 4), ports: read("1024-2000") },
        2 => NatAction::Masquerade { ports: read("1024-2000") },
        3 => NatAction::OneToOne { internal: read("10.1.0.0/16"), external: read("192.168.0.0/16") },
        _ => {
            matches.egress = None;
            matches.dst = [read("10.1.0.0/16")].into();
            NatAction::Dnat { address: read("10.0.0.1"), port: 0 }
        }
    };
    NatRule { vrf: d.name("v", 2), priority: d.roll(5) as u32, matches, action, origin: Origin::default() }
}

fn ranges() -> Vec<L4Ports> {
    all(&["80", "443", "0-1023", "1000-2000", "8080-8083", "65535", "1-65534"])
}

fn subject(d: &mut Dice) -> PolicySubject {
    let ports: Vec<PortName> = all(&["p0", "p1", "p2", "p3", "p4", "p5", "t0"]);
    if d.one_in(3) { PolicySubject::AllPods } else { PolicySubject::Ports(d.some(&ports, 2)) }
}

/// A policy rule.
pub fn policy_rule(d: &mut Dice) -> PolicyRule {
    let tier = d.of(&[PolicyTier::Admin, PolicyTier::NetworkPolicy, PolicyTier::Baseline]);
    let peer = match d.roll(5) {
        0 => PolicyPeer::Any,
        1 | 2 => PolicyPeer::Set(d.name("a", 3)),
        _ => {
            PolicyPeer::Prefixes { prefixes: d.some(&all(&PREFIXES), 3), except: d.some(&all(&PREFIXES), 2) }
        }
    };
    let protocol = d.of(&[None, Some(IpProtocol::TCP), Some(IpProtocol::UDP), Some(IpProtocol::ICMP)]);
    let ports = match (protocol.is_some_and(IpProtocol::has_ports), d.roll(3)) {
        (true, 1) => PolicyPorts::Ranges(d.some(&ranges(), 3)),
        (true, 2) => PolicyPorts::Set(d.name("s", 2)),
        _ => PolicyPorts::Any,
    };
    let action = match tier {
        PolicyTier::NetworkPolicy => PolicyAction::Allow,
        _ => d.of(&[PolicyAction::Allow, PolicyAction::Deny, PolicyAction::Pass]),
    };
    PolicyRule {
        direction: d.of(&[PolicyDirection::Egress, PolicyDirection::Ingress]),
        tier,
        priority: d.roll(4000) as u32,
        subject: subject(d),
        peer,
        protocol,
        ports,
        action,
        origin: Origin::default(),
    }
}
