//! Rows that answer a question say what a search through the pipeline finds, as the reference searches.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod generate;

use loxi_backend_ebpf::plan::{Encap, LinkRef, Plan, Row, RowKey, compile};
use loxi_core::capability::Capabilities;
use loxi_core::ir::*;
use loxi_core::net::*;
use loxi_ebpf_layout::{l2, lb};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

struct Asked<'a> {
    pipeline: &'a Pipeline,
    rows: BTreeMap<&'a RowKey, &'a Row>,
    /// Rows that some question named.
    named: BTreeSet<RowKey>,
    found: BTreeMap<&'static str, u32>,
}

impl<'a> Asked<'a> {
    fn new(pipeline: &'a Pipeline, plan: &'a Plan) -> Self {
        Self { pipeline, rows: plan.rows().collect(), named: BTreeSet::new(), found: BTreeMap::new() }
    }

    fn expect(
        &mut self,
        what: &'static str,
        key: RowKey,
        expected: Option<Row>,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.rows.get(&key).copied(), expected.as_ref(), "{}", key);
        if expected.is_some() {
            *self.found.entry(what).or_default() += 1;
            self.named.insert(key);
        }
        Ok(())
    }

    fn on_vlan(&self, bridge: &BridgeName, vlan: u16) -> Vec<&'a Interface> {
        let interfaces = self.pipeline.interfaces();
        let on = |i: &&Interface| match &i.on {
            InterfaceOn::Bridge { bridge: own, vlan: own_vlan } => own == bridge && own_vlan.get() == vlan,
            InterfaceOn::Port(_) => false,
        };
        interfaces.filter(on).collect()
    }

    fn on_port(&self, port: &PortName) -> Vec<&'a Interface> {
        self.pipeline.interfaces().filter(|i| i.on == InterfaceOn::Port(port.clone())).collect()
    }

    fn link(&mut self, link: &LinkRef, interfaces: &[&Interface]) -> Result<(), TestCaseError> {
        let is = |interface: &&Interface| Row::Is(interface.name.clone());
        let macs: BTreeSet<MacAddr> = self.pipeline.interfaces().map(|i| i.mac).collect();
        for mac in macs {
            let first = interfaces.iter().find(|interface| interface.mac == mac);
            self.expect("admit", RowKey::Admit(link.clone(), mac), first.map(is))?;
        }
        for address in self.addresses() {
            let has = interfaces.iter().find(|interface| interface.addresses.contains(&address));
            self.expect("link address", RowKey::LinkAddr(link.clone(), address), has.map(is))?;
            let proxy = interfaces.iter().find(|interface| {
                let key = NeighborKey { interface: interface.name.clone(), address };
                self.pipeline.get::<Neighbor>(&key).is_some()
            });
            let on_bridge = matches!(link, LinkRef::Vlan(..));
            let proxy = proxy.filter(|_| on_bridge).map(is);
            self.expect("proxy", RowKey::Proxy(link.clone(), address), proxy)?;
        }
        Ok(())
    }

    fn addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.pipeline.interfaces().flat_map(|interface| interface.addresses.iter().copied());
        own.chain(self.pipeline.neighbors().map(|neighbor| neighbor.address)).collect()
    }

    fn links(&mut self) -> Result<(), TestCaseError> {
        for bridge in self.pipeline.bridges().map(|bridge| &bridge.name) {
            for vlan in 1..5 {
                let link = LinkRef::Vlan(bridge.clone(), vlan);
                let interfaces = self.on_vlan(bridge, vlan);
                let first = interfaces.first().map(|interface| Row::Is(interface.name.clone()));
                self.expect("first on vlan", RowKey::FirstOn(link.clone()), first)?;
                self.link(&link, &interfaces)?;
            }
        }
        for port in self.pipeline.ports().map(|port| &port.name) {
            let interfaces = self.on_port(port);
            self.link(&LinkRef::Port(port.clone()), &interfaces)?;
        }
        for vrf in self.pipeline.vrfs().map(|vrf| &vrf.name) {
            for address in self.addresses() {
                let mut interfaces = self.pipeline.interfaces();
                let has = interfaces.find(|i| i.vrf == *vrf && i.addresses.contains(&address));
                let is = has.map(|interface| Row::Is(interface.name.clone()));
                self.expect("local address", RowKey::LocalAddr(vrf.clone(), address), is)?;
            }
        }
        Ok(())
    }

    fn ports(&mut self) -> Result<(), TestCaseError> {
        for port in self.pipeline.ports() {
            let Some(Row::Port(row)) = self.rows.get(&RowKey::Port(port.name.clone())) else {
                return Err(TestCaseError::fail(format!("no row of {}", port.name)));
            };
            self.named.insert(RowKey::Port(port.name.clone()));
            let has = |flag: u16| row.flags & flag != 0;
            let (interfaces, own, zone) = match &port.attachment {
                Attachment::Detached => (Vec::new(), MacAddr::ZERO, None),
                Attachment::Vrf(vrf) => {
                    let vrf = self.pipeline.get::<Vrf>(vrf).unwrap();
                    (self.on_port(&port.name), port.mac, vrf.zone.as_ref())
                }
                Attachment::Bridge(member) => {
                    let bridge = self.pipeline.get::<Bridge>(&member.bridge).unwrap();
                    prop_assert_eq!(has(l2::port::LEARN), bridge.learning && member.learning);
                    (self.on_vlan(&member.bridge, row.vlan), MacAddr::ZERO, bridge.zone.as_ref())
                }
            };
            prop_assert_eq!(row.interface.as_ref(), interfaces.first().map(|interface| &interface.name));
            prop_assert_eq!(row.gateway, interfaces.first().map_or(own, |interface| interface.mac));
            prop_assert_eq!(row.zone.as_ref(), zone);
            prop_assert_eq!(has(l2::port::PUNT), port.unclaimed() == Unclaimed::Punt);
            for vlan in 1..5 {
                let vlan = VlanId::new(vlan).unwrap();
                let how = trunk(port).and_then(|(allowed, native)| {
                    let tagged = if allowed.contains(&vlan) { l2::carried::TAGGED } else { 0 };
                    let untagged = if native == Some(vlan) { l2::carried::NATIVE } else { 0 };
                    (tagged | untagged != 0).then_some(Row::Flags(tagged | untagged))
                });
                self.expect("vlan", RowKey::PortVlan(port.name.clone(), vlan.get()), how)?;
            }
        }
        Ok(())
    }

    fn tunnels(&mut self) -> Result<(), TestCaseError> {
        let all: Vec<&Tunnel> = self.pipeline.tunnels().collect();
        for tunnel in &all {
            let by = |tunnel: &&Tunnel| Row::By(tunnel.name.clone());
            let back = all.iter().find(|t| (&t.port, t.remote) == (&tunnel.port, tunnel.remote));
            self.expect("back", RowKey::Back(tunnel.port.clone(), tunnel.remote), back.map(by))?;
            // What an error quotes tells the UDP port, not the VNI.
            let quoted = |kind| match kind {
                TunnelKind::Vxlan { port, .. } => Encap::Vxlan(port),
                TunnelKind::Ipip => Encap::Ipip,
            };
            let ends = |t: &Tunnel| (t.underlay_vrf.clone(), quoted(t.kind), t.local, t.remote);
            let outer = all.iter().find(|t| ends(t) == ends(tunnel)).map(by);
            let (vrf, encap, local, remote) = ends(tunnel);
            self.expect("outer", RowKey::Outer(vrf, encap, local, remote), outer)?;
            self.expect("endpoint", RowKey::Endpoint(tunnel.remote), Some(Row::Present))?;
        }
        for termination in self.pipeline.terminations() {
            let (vrf, dst) = (termination.vrf.clone(), termination.dst);
            let mut here = self.pipeline.terminations().filter(|t| t.vrf == vrf && t.dst == dst);
            let (encap, exclusive) = match termination.matches {
                TunnelKind::Ipip => (Encap::Ipip, false),
                TunnelKind::Vxlan { port, .. } => {
                    let same = |kind| matches!(kind, TunnelKind::Vxlan { port: own, .. } if own == port);
                    self.expect("bare udp", RowKey::BareUdp(port), Some(Row::Present))?;
                    (Encap::Vxlan(port), here.any(|t| same(t.matches) && t.exclusive))
                }
            };
            let flags = Some(Row::Flags(exclusive.into()));
            self.expect("any end", RowKey::EndAny(vrf, dst, encap), flags)?;
        }
        Ok(())
    }

    fn vips(&mut self) -> Result<(), TestCaseError> {
        for vip in self.pipeline.vips() {
            let key = vip.key();
            let Some(Row::Flags(flags)) = self.rows.get(&RowKey::Vip(key.clone())) else {
                return Err(TestCaseError::fail(format!("no row of {key}")));
            };
            let mut services = self.pipeline.services();
            let ranges = services
                .any(|s| s.vrf == key.vrf && s.vip == key.address && s.ports.first() != s.ports.last());
            prop_assert_eq!(flags & lb::vip::RANGES != 0, ranges);
            *self.found.entry("ranges").or_default() += u32::from(ranges);
        }
        Ok(())
    }

    /// Whether every row of these kinds was asked for.
    fn nothing_else(&self) -> Result<(), TestCaseError> {
        let other = self.rows.keys().filter(|key| !self.named.contains(key)).find(|key| {
            matches!(
                key,
                RowKey::FirstOn(_)
                    | RowKey::Admit(..)
                    | RowKey::LinkAddr(..)
                    | RowKey::LocalAddr(..)
                    | RowKey::Proxy(..)
                    | RowKey::Back(..)
                    | RowKey::Outer(..)
                    | RowKey::Endpoint(_)
                    | RowKey::BareUdp(_)
                    | RowKey::EndAny(..)
                    | RowKey::PortVlan(..)
                    | RowKey::Port(_)
            )
        });
        prop_assert_eq!(other, None);
        Ok(())
    }
}

fn trunk(port: &Port) -> Option<(&BTreeSet<VlanId>, Option<VlanId>)> {
    match port.bridge().map(|member| &member.vlan) {
        Some(VlanMode::Trunk { allowed, native }) => Some((allowed, *native)),
        _ => None,
    }
}

#[test]
fn rows_answer_as_a_search_does() {
    let found = RefCell::new(BTreeMap::<&'static str, u32>::new());
    let config = Config { cases: 250, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&vec(any::<u64>(), 0..80), |seeds| {
            let pipeline = generate::pipeline(&seeds);
            let plan = compile(&pipeline, &Capabilities::full("test", 1 << 20)).unwrap();
            let mut asked = Asked::new(&pipeline, &plan);
            asked.links()?;
            asked.ports()?;
            asked.tunnels()?;
            asked.vips()?;
            asked.nothing_else()?;
            for (what, count) in asked.found {
                *found.borrow_mut().entry(what).or_default() += count;
            }
            Ok(())
        })
        .unwrap();
    let found = found.into_inner();
    println!("{found:?}");
    assert_eq!(found.len(), 12, "{found:?}");
    assert!(found.values().all(|count| *count >= 100), "{found:?}");
}
