//! A router with services, and random changes of what it routes and balances.

use crate::backend::traffic::dice::Dice;
use loxi_core::ir::*;
use loxi_core::net::{BackendName, IpPrefix, IpProtocol, L4Ports, MacAddr, NextHopName};
use loxi_core::validate::validate;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Clients are behind the first two, endpoints and gateways behind the others.
pub(super) const CLIENTS: [(&str, u8); 2] = [("c1", 11), ("c2", 12)];
const LINKS: [(&str, u8); 3] = [("l1", 1), ("l2", 2), ("l3", 3)];

/// Where variable routes lead.
pub(super) const FAR: [u8; 3] = [21, 22, 23];

/// A node of one family.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) v6: bool,
}

pub(super) fn owner() -> Owner {
    Owner::new("test").unwrap()
}

fn read<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().unwrap_or_else(|| panic!("{text}"))
}

/// The MAC of a host of a network.
pub(super) fn mac(net: u8, host: u8) -> String {
    format!("02:00:00:00:{net:02x}:{host:02x}")
}

impl Node {
    /// A host of a network.
    pub(super) fn address(self, net: u8, host: u8) -> String {
        if self.v6 { format!("fd00:{net}::{host:x}") } else { format!("10.{net}.0.{host}") }
    }

    fn ip(self, net: u8, host: u8) -> IpAddr {
        read(&self.address(net, host))
    }

    /// The first bits of a network: all, half of it, or one host.
    fn prefix(self, net: u8, how: u64) -> IpPrefix {
        let (addr, bits) = (self.address(net, if how == 2 { 1 } else { 0 }), [[16, 24, 32], [32, 112, 128]]);
        read(&format!("{addr}/{}", bits[usize::from(self.v6)][how as usize]))
    }

    /// What never changes.
    fn fixed(self) -> String {
        let mut text = String::from("version: 1\nzones: [{name: z}]\n");
        let (own, other) = (self.address(9, 9), if self.v6 { "snat_address_v6" } else { "snat_address_v4" });
        text += &format!("vrfs: [{{name: main, zone: z, {other}: '{own}'}}, {{name: under}}]\nports:\n");
        let port = |name: &str, net: u8, more: &str| {
            format!("  - {{name: {name}, mac: '{}', {more}}}\n", mac(net, 0))
        };
        text += &port("c1", 11, "kind: pod, attachment: {vrf: main}");
        text += &port("c2", 12, "kind: uplink, attachment: {vrf: main}, scope: external");
        for (name, net) in LINKS {
            text += &port(name, net, "kind: uplink, attachment: {vrf: main}");
        }
        text += &port("u1", 40, "kind: uplink, attachment: {vrf: under}, underlay: true");
        text += &port("t1", 41, "kind: tunnel, mtu: 1400, attachment: {vrf: main}");
        text += "interfaces:\n";
        for (name, net) in CLIENTS.into_iter().chain(LINKS).chain([("u1", 40)]) {
            let vrf = if net == 40 { "under" } else { "main" };
            let (mac, own) = (mac(net, 0), self.address(net, 254));
            text += &format!("  - {{name: {name}, on: {{port: {name}}}, vrf: {vrf}, mac: '{mac}', ");
            text += &format!("addresses: ['{own}']}}\n");
        }
        text += "next_hops:\n";
        for (name, _) in CLIENTS.into_iter().chain(LINKS).chain([("u1", 40)]) {
            text += &format!("  - {{name: on-{name}, action: {{direct: {{interface: {name}}}}}}}\n");
        }
        text += "routes:\n";
        for (name, net) in CLIENTS.into_iter().chain(LINKS).chain([("u1", 40)]) {
            let vrf = if net == 40 { "under" } else { "main" };
            let prefix = self.prefix(net, 0);
            text += &format!("  - {{vrf: {vrf}, prefix: '{prefix}', target: {{next_hop: on-{name}}}}}\n");
        }
        text
    }

    /// Every neighbour that is ever asked for, each with the MAC of its place.
    fn neighbors(self) -> impl Iterator<Item = Neighbor> {
        let links =
            LINKS.into_iter().flat_map(|(name, net)| [1, 2, 3, 250, 251].map(|host| (name, net, host)));
        let clients = CLIENTS.into_iter().flat_map(|(name, net)| [1, 2, 3].map(|host| (name, net, host)));
        let all = links.chain(clients).chain([("u1", 40, 2), ("u1", 40, 3)]);
        all.map(move |(name, net, host)| Neighbor {
            interface: read(name),
            address: self.ip(net, host),
            mac: read(&mac(net, host)),
            origin: Origin::default(),
        })
    }

    /// A node as a seed has it.
    pub(super) fn pipeline(self, d: &mut Dice) -> Pipeline {
        let entities = loxi_core::text::from_yaml(&self.fixed()).unwrap();
        let mut pipeline = Pipeline::from_entities(&owner(), entities);
        let mut put = |entity: Entity| {
            pipeline.put(owner(), entity);
        };
        self.neighbors().for_each(|neighbor| put(neighbor.into()));
        (0..2).for_each(|n| put(self.tunnel(d, n).into()));
        (0..4).for_each(|n| put(self.next_hop(d, n).into()));
        (0..2).for_each(|n| put(self.group(d, n).into()));
        for net in FAR {
            put(self.route(d, net, 0).into());
        }
        (0..6).for_each(|n| put(self.backend(d, n).into()));
        (1..3).for_each(|host| put(self.vip(d, host).into()));
        (0..6).for_each(|_| put(self.service(d).into()));
        while let Err(errors) = validate(&pipeline) {
            errors.0.iter().for_each(|error| drop(pipeline.remove(&error.entity)));
        }
        pipeline
    }

    /// The pipeline after a random change, and what it was; none: it would not be valid.
    pub(super) fn changed(self, d: &mut Dice, old: &Pipeline) -> Option<Pipeline> {
        let mut new = old.clone();
        let mut put = |entity: Entity| {
            new.put(owner(), entity);
        };
        match d.roll(16) {
            0..=4 => put(self.altered_service(d, old)?.into()),
            5 => put(self.service(d).into()),
            6..=8 => {
                let number = d.roll(6);
                put(self.backend(d, number).into());
            }
            9 => {
                let service = d.of(&old.services().map(LbService::key).collect::<Vec<_>>());
                new.remove(&EntityKey::Service(service?));
            }
            10 => {
                let host = 1 + d.roll(2) as u8;
                put(self.vip(d, host).into());
            }
            11 | 12 => {
                let number = d.roll(4);
                put(self.next_hop(d, number).into());
            }
            13 => {
                let number = d.roll(2);
                put(match d.roll(3) {
                    0 => self.tunnel(d, number).into(),
                    1 => self.other_mac(d).into(),
                    _ => self.group(d, number).into(),
                });
            }
            14 => {
                let (net, how) = (d.of(&FAR)?, d.roll(3));
                put(self.route(d, net, how).into());
            }
            _ => self.moved(d, old, &mut new)?,
        }
        (new != *old && validate(&new).is_ok()).then_some(new)
    }

    /// Something that takes the place of another in one change: a route's next hop, a route, an endpoint.
    fn moved(self, d: &mut Dice, old: &Pipeline, new: &mut Pipeline) -> Option<()> {
        let far = |route: &&Route| FAR.iter().any(|net| self.prefix(*net, 0).covers(&route.prefix));
        let route = d.of(&old.routes().filter(far).cloned().collect::<Vec<_>>())?;
        match d.roll(3) {
            0 => {
                let name: NextHopName = read(&format!("new{}", d.roll(1000)));
                let hop = NextHop { name: name.clone(), ..self.next_hop(d, 0) };
                new.put(owner(), hop.into());
                let target = RouteTarget::NextHop(name);
                new.put(owner(), Route { target, ..route.clone() }.into());
                if let RouteTarget::NextHop(name) = route.target
                    && name.as_str().starts_with("new")
                {
                    new.remove(&EntityKey::NextHop(name));
                }
            }
            1 => {
                let longer = self.prefix(d.of(&FAR)?, d.roll(3));
                new.remove(&EntityKey::Route(route.key()));
                new.put(owner(), Route { prefix: longer, ..route }.into());
            }
            _ => {
                let service = d.of(&old.services().cloned().collect::<Vec<_>>())?;
                let gone = d.of(&service.backends.iter().cloned().collect::<Vec<_>>())?;
                if old.services().filter(|other| other.backends.contains(&gone)).count() > 1 {
                    return None;
                }
                let name: BackendName = read(&format!("new{}", d.roll(1000)));
                let number = d.roll(6);
                new.put(owner(), LbBackend { name: name.clone(), ..self.backend(d, number) }.into());
                let mut service = service;
                service.backends.remove(&gone);
                service.backends.insert(name);
                new.put(owner(), service.into());
                new.remove(&EntityKey::Backend(gone));
            }
        }
        Some(())
    }

    fn tunnel(self, d: &mut Dice, number: u64) -> Tunnel {
        Tunnel {
            name: read(&format!("n{number}")),
            // Two of the same remote would be ambiguous.
            kind: TunnelKind::Vxlan {
                vni: loxi_core::net::Vni::new(100 + number as u32).unwrap(),
                port: 4789,
            },
            underlay_vrf: read("under"),
            local: self.ip(40, 254),
            remote: self.ip(40, 2 + d.roll(2) as u8),
            port: read("t1"),
            inner_dst_mac: Some(read(&mac(42, 1 + d.roll(3) as u8))),
            ttl: if d.one_in(2) { OuterTtl::Fixed(9 + d.roll(50) as u8) } else { OuterTtl::Inherit },
            dscp: if d.one_in(2) { OuterDscp::Fixed(11) } else { OuterDscp::Inherit },
            df: OuterDf::Set,
            udp_checksum: UdpChecksum::Zero,
            source_ports: L4Ports::new(50_000, 50_000 + d.roll(3) as u16).unwrap(),
            origin: Origin::default(),
        }
    }

    fn next_hop(self, d: &mut Dice, number: u64) -> NextHop {
        let action = match d.roll(8) {
            0 => NextHopAction::Blackhole,
            1 | 2 => NextHopAction::Tunnel(read(&format!("n{}", d.roll(2)))),
            _ => {
                let (name, net) = LINKS[d.roll(3) as usize];
                let gateway = Some(self.ip(net, 250 + d.roll(2) as u8));
                NextHopAction::Direct { interface: read(name), gateway }
            }
        };
        NextHop { name: read(&format!("h{number}")), action, origin: Origin::default() }
    }

    fn group(self, d: &mut Dice, number: u64) -> NextHopGroup {
        let hop = |d: &mut Dice| read(&format!("h{}", d.roll(4)));
        let members =
            (0..=d.roll(3)).map(|_| GroupMember { next_hop: hop(d), weight: 1 + d.roll(3) as u16 }).collect();
        let seed = d.roll(2) as u32;
        NextHopGroup { name: read(&format!("g{number}")), members, seed, origin: Origin::default() }
    }

    fn route(self, d: &mut Dice, net: u8, how: u64) -> Route {
        let target = if d.one_in(3) {
            RouteTarget::Group(read(&format!("g{}", d.roll(2))))
        } else {
            RouteTarget::NextHop(read(&format!("h{}", d.roll(4))))
        };
        Route { vrf: read("main"), prefix: self.prefix(net, how), target, origin: Origin::default() }
    }

    fn other_mac(self, d: &mut Dice) -> Neighbor {
        let all: Vec<Neighbor> = self.neighbors().collect();
        let neighbor = d.of(&all).unwrap();
        let mac: MacAddr = read(&mac(99, d.roll(3) as u8));
        if d.one_in(2) { neighbor } else { Neighbor { mac, ..neighbor } }
    }

    fn backend(self, d: &mut Dice, number: u64) -> LbBackend {
        let states = [BackendState::Active, BackendState::Active, BackendState::Draining, BackendState::Down];
        LbBackend {
            name: read(&format!("b{number}")),
            address: self.ip(1 + d.roll(2) as u8, 1 + d.roll(3) as u8),
            port: [0, 8080, 8081][d.roll(3) as usize],
            weight: 1 + d.roll(3) as u16,
            state: states[d.roll(4) as usize],
            locality: if d.one_in(2) { Locality::Local } else { Locality::Remote },
            origin: Origin::default(),
        }
    }

    fn vip(self, d: &mut Dice, host: u8) -> VipAddress {
        let other = if d.one_in(2) { OtherPorts::Reject } else { OtherPorts::Drop };
        let mode =
            if d.one_in(3) { VipMode::Shared } else { VipMode::Exclusive { other, echo: d.one_in(2) } };
        VipAddress { vrf: read("main"), address: self.ip(96, host), mode, origin: Origin::default() }
    }

    /// A service, likely one that is there already.
    fn service(self, d: &mut Dice) -> LbService {
        let key = ServiceKey {
            vrf: read("main"),
            vip: self.ip(96, 1 + d.roll(2) as u8),
            protocol: if d.one_in(2) { IpProtocol::TCP } else { IpProtocol::UDP },
            ports: read(["80", "80", "8000-8010"][d.roll(3) as usize]),
            scope: [ServiceScope::Any, ServiceScope::Any, ServiceScope::External][d.roll(3) as usize],
        };
        self.service_of(d, key)
    }

    /// Another service of a key that is there; often one of its attributes alone is another.
    fn altered_service(self, d: &mut Dice, old: &Pipeline) -> Option<LbService> {
        let was = d.of(&old.services().cloned().collect::<Vec<_>>())?;
        let now = self.service_of(d, was.key());
        Some(match d.roll(8) {
            0 => LbService { backends: now.backends, ..was },
            1 => LbService { affinity: now.affinity, ..was },
            2 => LbService { mode: now.mode, ..was },
            3 => LbService { algorithm: now.algorithm, ..was },
            4 => LbService { source_ranges: now.source_ranges, ..was },
            5 => LbService { traffic_policy: now.traffic_policy, ..was },
            _ => now,
        })
    }

    fn service_of(self, d: &mut Dice, key: ServiceKey) -> LbService {
        let clients = [self.prefix(11, 0), self.prefix(12, 0), self.prefix(11, 2), self.prefix(12, 2)];
        let mut some = |most: u64| -> BTreeSet<IpPrefix> {
            (0..d.roll(most)).map(|_| clients[d.roll(4) as usize]).collect()
        };
        let source_ranges = some(4);
        let refuse = [OnNoBackend::Reject, OnNoBackend::Drop];
        let modes = [LbMode::Nat, LbMode::Nat, LbMode::Nat, LbMode::FullNat, LbMode::DsrIpip, LbMode::DsrL2];
        let algorithms = [
            LbAlgorithm::Maglev { table_size: MaglevSize::try_from(251).unwrap() },
            LbAlgorithm::Maglev { table_size: MaglevSize::try_from(257).unwrap() },
            LbAlgorithm::SourceHash,
            LbAlgorithm::RoundRobin,
            LbAlgorithm::Random,
            LbAlgorithm::LeastConnections,
        ];
        let policies = [TrafficPolicy::Cluster, TrafficPolicy::Local, TrafficPolicy::PreferLocal];
        LbService {
            vrf: key.vrf,
            vip: key.vip,
            protocol: key.protocol,
            ports: key.ports,
            scope: key.scope,
            backends: (0..d.roll(5)).map(|_| read(&format!("b{}", d.roll(6)))).collect(),
            algorithm: algorithms[d.roll(6) as usize],
            affinity: d.one_in(2).then(|| Affinity { timeout_s: 1000 + d.roll(2) as u32 }),
            traffic_policy: policies[d.roll(3) as usize],
            source_ranges,
            mode: modes[d.roll(6) as usize],
            on_no_backend: refuse[d.roll(2) as usize],
            on_no_local_backend: refuse[d.roll(2) as usize],
            origin: Origin::default(),
        }
    }
}
