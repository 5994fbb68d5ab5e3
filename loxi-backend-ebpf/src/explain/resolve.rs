//! Where a route leads: longest prefix, next hop, neighbour, station; and the links below tunnels.

use super::flows::tick;
use super::hash::{self, Tuple};
use super::tables::width;
use super::{SECOND, Step, Walk, words};
use crate::install::ip_of;
use crate::sys::{BRIDGES, ENDPOINTS, GROUPS, NEIGHBORS, NEXT_HOPS, PATH_MTUS, ROUTES, VRFS};
use loxi_core::ir::{EntityKey, RouteKey};
use loxi_core::net::IpPrefix;
use loxi_core::packet::TraceEntry;
use loxi_ebpf_layout::code::{drop, punt};
use loxi_ebpf_layout::l2::{Station, bridge, port};
use loxi_ebpf_layout::l3::{
    FIXED_BITS, Group, NeighborKey, NextHop, Route, TO_GROUP, hop, interface, neighbor,
};
use loxi_ebpf_layout::limits::GROUP_MEMBERS;
use loxi_ebpf_layout::scratch::way;
use loxi_ebpf_layout::tunnel::{self, EndpointKey, outer_mtu};
use loxi_ebpf_layout::{Addr, family};

/// Where a route leads. No port and no tunnel: nowhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved {
    /// Egress interface; 0: none.
    pub(super) interface: u16,
    /// Port; 0: none.
    pub(super) port: u16,
    /// Tunnel; 0: none.
    pub(super) tunnel: u16,
    /// Whether a tunnel was a next hop, which gives the packet its inner MACs.
    inner: bool,
    dmac: [u8; 6],
    smac: [u8; 6],
    mtu: u16,
    ages: bool,
}

impl Default for Resolved {
    fn default() -> Self {
        let (dmac, smac) = ([0; 6], [0; 6]);
        Self { interface: 0, port: 0, tunnel: 0, inner: false, dmac, smac, mtu: u16::MAX, ages: false }
    }
}

impl Walk<'_> {
    /// The route of a tuple.
    pub(super) fn resolve(&mut self, vrf: u16, tuple: &Tuple, found: &mut Resolved) -> Step {
        let bits = FIXED_BITS + width(tuple.family);
        let key = Route { bits, vrf: vrf.into(), family: tuple.family.into(), addr: tuple.dst };
        let text = format!("{} {}", self.vrf_name(vrf), words::ip(tuple.family, tuple.dst));
        let Some(target) = self.t.longest(ROUTES, &key) else {
            self.saw(text, None, "no route");
            return Ok(());
        };
        let entry = self.route_entry(&key);
        let place = if target & TO_GROUP == 0 {
            target
        } else {
            match self.t.current(GROUPS, target & !TO_GROUP) {
                Some(group) => member(&group, tuple),
                None => {
                    self.saw(text, entry, format!("group {}, beyond the table's end", target & !TO_GROUP));
                    return Ok(());
                }
            }
        };
        let Some(next) = self.t.current(NEXT_HOPS, place) else {
            self.saw(text, entry, format!("next hop {place}, beyond the table's end"));
            return Ok(());
        };
        let known = matches!(next.kind, hop::DIRECT | hop::TUNNEL | hop::HOST | hop::BLACKHOLE);
        if !known {
            self.saw(text, entry, format!("next hop {place}, of no kind"));
            return Ok(());
        }
        self.saw(text, entry, format!("next hop {}", words::name(&self.t.names.next_hops, place)));
        match next.kind {
            hop::BLACKHOLE => Err(drop::BLACKHOLE),
            hop::HOST => Err(punt::NOT_OURS_ROUTE),
            hop::TUNNEL => {
                found.tunnel = next.via;
                found.inner = true;
                Ok(())
            }
            _ => self.on_link(&next, tuple, found),
        }
    }

    /// The route as the entry of a step: which one it was is told by no look-up.
    fn route_entry(&self, wanted: &Route) -> Option<TraceEntry> {
        let host = ip_of(wanted.family, wanted.addr);
        let covering = |key: &Route| {
            let bits = u8::try_from(key.bits.checked_sub(FIXED_BITS)?).ok()?;
            let prefix = IpPrefix::new(ip_of(key.family, key.addr)?, bits).ok()?;
            let same = key.vrf == wanted.vrf && key.family == wanted.family;
            (same && host.is_some_and(|host| prefix.contains(host))).then_some(prefix)
        };
        let prefixes = self.t.all(ROUTES).into_iter().filter_map(|(key, _)| covering(&key));
        let longest = prefixes.max_by_key(IpPrefix::len);
        let vrf = self.t.names.vrfs.live(wanted.vrf).cloned();
        let key = vrf.zip(longest).map(|(vrf, prefix)| EntityKey::Route(RouteKey { vrf, prefix }));
        words::entity(key, || longest.map_or_else(|| "route".to_owned(), |prefix| format!("route {prefix}")))
    }

    /// The neighbour on an interface's link.
    fn on_link(&mut self, next: &NextHop, tuple: &Tuple, found: &mut Resolved) -> Step {
        let interface = words::name(&self.t.names.interfaces, next.via);
        let Some(own) = self.interface_of(next.via) else {
            let entry = words::learned("beyond the table's end");
            return Err(self.refuse(format!("interface {interface}"), entry, drop::NEIGHBOR_UNRESOLVED));
        };
        let (family, addr) =
            if next.family == 0 { (u32::from(tuple.family), tuple.dst) } else { (next.family, next.gateway) };
        let key = NeighborKey { interface: next.via.into(), family, addr };
        let address = words::ip(if family == u32::from(family::V6) { 6 } else { 4 }, addr);
        let text = format!("neighbor {interface} {address}");
        let Some(known) = self.t.look(NEIGHBORS, &key) else {
            return Err(self.refuse(text, None, punt::NEIGHBOR));
        };
        let fixed = known.state == neighbor::FIXED;
        if !fixed {
            // One that isn't known is asked for; one that is in use is asked for again in time.
            let believed = known.asked.wrapping_add(neighbor::BELIEVED_S * SECOND);
            if known.state != neighbor::REACHABLE || known.expires <= self.p.now || self.p.now >= believed {
                return Err(self.refuse(text, words::learned("learned, to be asked for"), punt::NEIGHBOR));
            }
        }
        found.ages = !fixed;
        found.interface = next.via;
        (found.dmac, found.smac, found.mtu) = (known.mac, own.mac, own.mtu);
        let mut out = own.link.id;
        if own.flags & interface::ON_BRIDGE != 0 {
            let key = Station { link: own.link, mac: found.dmac, reserved: 0 };
            let at = self.station(&key);
            self.saw_station(&key, at.as_ref());
            let Some(at) = at else {
                let config = self.t.current(BRIDGES, own.link.id.into());
                let floods = config.is_some_and(|config| config.flags & bridge::FLOOD_UNKNOWN != 0);
                return Err(if floods { punt::MULTICAST } else { drop::FDB_MISS });
            };
            found.ages |= at.fixed == 0;
            if at.tunnel != 0 {
                found.tunnel = at.tunnel;
                return Ok(());
            }
            out = at.port;
        }
        found.port = out;
        if let Some(egress) = self.port_of(out).filter(|port| port.flags & port::EXISTS != 0) {
            found.mtu = found.mtu.min(egress.mtu);
        }
        Ok(())
    }

    /// Makes it the packet's way.
    pub(super) fn take(&mut self, found: &Resolved) {
        let p = &mut self.p;
        p.ages |= u8::from(found.ages);
        (p.out_interface, p.egress) = (found.interface, found.interface);
        p.mtu = found.mtu;
        if found.tunnel != 0 {
            p.way = way::TUNNEL;
            p.out_tunnel = found.tunnel;
            if !found.inner {
                (p.new_dmac, p.new_smac) = (found.dmac, found.smac);
            }
        } else {
            p.way = way::PORT;
            p.out_port = found.port;
            p.subject = found.port;
            (p.new_dmac, p.new_smac) = (found.dmac, found.smac);
        }
    }

    /// The link below a tunnel.
    pub(super) fn under_tunnel(&mut self) -> Step {
        let number = self.p.out_tunnel;
        let Some(tunnel) = self.tunnel_of(number) else {
            let entry = words::learned("beyond the table's end");
            return Err(self.refuse(
                format!("tunnel {}", words::nameless(number.into())),
                entry,
                drop::NO_ROUTE,
            ));
        };
        if self.p.routed != 0 && self.p.new_dmac == [0; 6] {
            (self.p.new_dmac, self.p.new_smac) = (tunnel.inner_dst, tunnel.inner_src);
        }
        let link = self.underlay(tunnel.vrf, tunnel.family, tunnel.local, tunnel.remote)?;
        // The outer checksum covers the inner packet: the slow path makes it.
        if tunnel.flags & tunnel::flag::CHECKSUM != 0 {
            let text = format!("tunnel {}", words::name(&self.t.names.tunnels, number));
            return Err(self.refuse(text, words::learned("computes an outer checksum"), punt::CHECKSUM));
        }
        let lowered = self.t.array(PATH_MTUS, tunnel.endpoint).unwrap_or(0);
        let room = outer_mtu(lowered, tick(self.p.now), link).saturating_sub(tunnel.overhead);
        let p = &mut self.p;
        p.mtu = p.mtu.min(room.min(tunnel.mtu));
        p.lowered = u8::from(lowered != 0);
        p.ages |= p.lowered;
        p.subject = tunnel.in_port;
        Ok(())
    }

    /// The link on which IP in IP to an endpoint leaves.
    pub(super) fn under_ipip(&mut self) -> Step {
        let target = self.p.dsr_target;
        let v4 = self.p.outer_family_or(self.p.family) == family::V4;
        let vrf = self.t.current(VRFS, self.p.vrf.into());
        let src = vrf.map(|vrf| if v4 { Addr([vrf.snat_v4, 0, 0, 0]) } else { vrf.snat_v6 });
        let Some(src) = src.filter(|src| *src != Addr::ZERO) else {
            let text = format!("source of ipip in vrf {}", self.vrf_name(self.p.vrf));
            return Err(self.refuse(text, None, drop::UNSUPPORTED));
        };
        let outer = if v4 { family::V4 } else { family::V6 };
        self.p.outer_family = outer;
        self.p.outer_src = src;
        let link = self.underlay(self.p.vrf, outer, src, target)?;
        let endpoint =
            self.t.look(ENDPOINTS, &EndpointKey { family: outer.into(), addr: target }).unwrap_or(0);
        let lowered = if endpoint == 0 { 0 } else { self.t.array(PATH_MTUS, endpoint).unwrap_or(0) };
        let header = if v4 { 20 } else { 40 };
        let p = &mut self.p;
        p.mtu = outer_mtu(lowered, tick(p.now), link).saturating_sub(header);
        p.lowered = u8::from(lowered != 0);
        p.ages |= p.lowered;
        p.subject = p.out_port;
        Ok(())
    }

    /// The port and the MACs towards an outer destination; its MTU.
    fn underlay(&mut self, vrf: u16, family: u8, local: Addr, remote: Addr) -> Step<u16> {
        let tuple = Tuple { family, src: local, dst: remote, protocol: 0, sport: 0, dport: 0 };
        let mut found = Resolved::default();
        if let Err(fate) = self.resolve(vrf, &tuple, &mut found) {
            // An endpoint whose port isn't known is no way.
            return Err(if fate == punt::MULTICAST { drop::NEIGHBOR_UNRESOLVED } else { fate });
        }
        if found.tunnel != 0 {
            return Err(drop::NEIGHBOR_UNRESOLVED);
        }
        if found.port == 0 {
            return Err(drop::NO_ROUTE);
        }
        let p = &mut self.p;
        p.ages |= u8::from(found.ages);
        p.out_port = found.port;
        p.out_interface = found.interface;
        (p.outer_dmac, p.outer_smac) = (found.dmac, found.smac);
        Ok(found.mtu)
    }
}

/// The place of the next hop to which a group's hash leads.
fn member(group: &Group, tuple: &Tuple) -> u32 {
    let hash = hash::of_tuple(group.seed, tuple);
    let point = (u64::from(hash).wrapping_mul(group.total) >> 32) as u32;
    let members = group.up_to.iter().zip(&group.hops).take(group.count.min(GROUP_MEMBERS) as usize);
    members.into_iter().find(|(up_to, _)| point < **up_to).map_or(0, |(_, hop)| *hop)
}
