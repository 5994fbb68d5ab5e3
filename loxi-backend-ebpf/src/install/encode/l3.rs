//! Zones, VRFs, interfaces, neighbours, next hops, routes, NAT rules.

use super::{Written, addr_of, link, optional, set_of};
use crate::install::writer::{WriteError, Writer};
use crate::plan::{
    GroupRow, InterfaceRow, LinkRef, NatActionRow, NatRow, NextHopRow, Row, SetRef, VrfRow, ZoneRow,
};
use crate::sys::{
    GROUPS, INTERFACES, KEPT, LOCAL_ADDRS, NAT_POOL, NAT_RULES, NEIGHBORS, NEXT_HOPS, ROUTES, Table, VRFS,
    ZONES,
};
use loxi_core::ir::{NeighborKey, RouteKey};
use loxi_core::net::{GroupName, InterfaceName, MacAddr, NextHopName, VrfName, ZoneName};
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::l3::{
    self, FIXED_BITS, Group, Interface, NatRule, Neighbor, NextHop, TO_GROUP, Vrf, VrfAddr, Zone, hop,
    interface, nat, nat_counts, neighbor,
};
use loxi_ebpf_layout::limits::GROUP_MEMBERS;
use loxi_ebpf_layout::{Addr, family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn put_zone(w: &mut Writer, name: &ZoneName, row: &ZoneRow) -> Written {
    let number = w.number(|names| &mut names.zones, name)?;
    let value = Zone {
        exists: 1,
        pickup: row.pickup.into(),
        max_flows: row.max_flows,
        max_half_open: row.max_half_open.unwrap_or(u32::MAX),
        max_per_source: row.max_per_source.unwrap_or(u32::MAX),
        reserved: 0,
        timeouts: row.timeouts,
    };
    Ok(w.flip(ZONES, number, &value)?)
}

pub(super) fn delete_zone(w: &mut Writer, name: &ZoneName) -> Written {
    if let Some(number) = w.names.zones.number(name) {
        w.flip(ZONES, number, &Zone::default())?;
        w.retire_later(|names| &mut names.zones, name);
    }
    Ok(())
}

fn v4(addr: Option<Ipv4Addr>) -> u32 {
    addr.map_or(0, |addr| u32::from_ne_bytes(addr.octets()))
}

fn v6(addr: Option<Ipv6Addr>) -> Addr {
    addr.map_or(Addr::ZERO, |addr| Addr::v6(addr.octets()))
}

/// A VRF and its NAT rules are one value: each row writes its part.
pub(super) fn put_vrf(w: &mut Writer, name: &VrfName, row: &VrfRow) -> Written {
    let number = w.number(|names| &mut names.vrfs, name)?;
    let own = SetRef::NodeLocal(name.clone());
    let had = w.current(VRFS, number);
    let value = Vrf {
        exists: 1,
        zone: optional(w, |names| &mut names.zones, row.zone.as_ref())?,
        snat_v4: v4(row.snat_v4),
        node_local: if row.node_local { set_of(w, &own)? } else { 0 },
        snat_v6: v6(row.snat_v6),
        ..had
    };
    Ok(w.flip(VRFS, number, &value)?)
}

pub(super) fn delete_vrf(w: &mut Writer, name: &VrfName) -> Written {
    if let Some(number) = w.names.vrfs.number(name) {
        w.flip(VRFS, number, &Vrf::default())?;
        w.retire_later(|names| &mut names.vrfs, name);
    }
    Ok(())
}

pub(super) fn put_interface(w: &mut Writer, name: &InterfaceName, row: &InterfaceRow) -> Written {
    let number = w.number(|names| &mut names.interfaces, name)?;
    let flags = [
        (interface::EXISTS, true),
        (interface::ON_BRIDGE, !matches!(row.link, LinkRef::Port(_))),
        (interface::PUNT, row.punt),
        (interface::V4, row.v4.is_some()),
        (interface::V6, row.v6.is_some()),
    ];
    let value = Interface {
        mac: row.mac.octets(),
        flags: flags.iter().filter(|(_, on)| *on).fold(0, |all, (bit, _)| all | bit),
        vrf: w.number(|names| &mut names.vrfs, &row.vrf)? as u16,
        mtu: row.mtu,
        link: link(w, &row.link)?,
        v4: v4(row.v4),
        reserved: 0,
        v6: v6(row.v6),
    };
    Ok(w.flip(INTERFACES, number, &value)?)
}

pub(super) fn delete_interface(w: &mut Writer, name: &InterfaceName) -> Written {
    if let Some(number) = w.names.interfaces.number(name) {
        w.flip(INTERFACES, number, &Interface::default())?;
        w.retire_later(|names| &mut names.interfaces, name);
    }
    Ok(())
}

fn vrf_addr(w: &mut Writer, vrf: &VrfName, addr: IpAddr) -> Written<VrfAddr> {
    let (family, addr) = addr_of(addr);
    Ok(VrfAddr { vrf: w.number(|names| &mut names.vrfs, vrf)?, family: family.into(), addr })
}

pub(super) fn put_local(w: &mut Writer, vrf: &VrfName, addr: IpAddr, name: &InterfaceName) -> Written {
    let key = vrf_addr(w, vrf, addr)?;
    let number = w.number(|names| &mut names.interfaces, name)?;
    Ok(w.put(LOCAL_ADDRS, &key, &number)?)
}

pub(super) fn delete_local(w: &mut Writer, vrf: &VrfName, addr: IpAddr) -> Written {
    let key = vrf_addr(w, vrf, addr)?;
    Ok(w.unset(LOCAL_ADDRS, &key)?)
}

fn neighbor_key(w: &mut Writer, key: &NeighborKey) -> Written<l3::NeighborKey> {
    let (family, addr) = addr_of(key.address);
    let interface = w.number(|names| &mut names.interfaces, &key.interface)?;
    Ok(l3::NeighborKey { interface, family: family.into(), addr })
}

pub(super) fn put_neighbor(w: &mut Writer, key: &NeighborKey, mac: MacAddr) -> Written {
    let key = neighbor_key(w, key)?;
    let learned = w.kernel.look(NEIGHBORS, &key)?.is_some_and(|known| known.state != neighbor::FIXED);
    let value = Neighbor { mac: mac.octets(), state: neighbor::FIXED, asked: 0, expires: u64::MAX };
    w.put(NEIGHBORS, &key, &value)?;
    if learned {
        let at = kept::NEIGHBORS as usize * KEPT.table.sizes().1;
        let _ = w.kernel.memory(Table::Kept).word(at).fetch_add(u64::MAX);
    }
    Ok(())
}

pub(super) fn delete_neighbor(w: &mut Writer, key: &NeighborKey) -> Written {
    let key = neighbor_key(w, key)?;
    Ok(w.unset(NEIGHBORS, &key)?)
}

pub(super) fn put_next_hop(w: &mut Writer, name: &NextHopName, row: &NextHopRow) -> Written {
    let number = w.number(|names| &mut names.next_hops, name)?;
    let value = match row {
        NextHopRow::Direct(via, gateway) => {
            let (family, gateway) = gateway.map_or((0, Addr::ZERO), addr_of);
            let via = w.number(|names| &mut names.interfaces, via)? as u16;
            NextHop { kind: hop::DIRECT, via, family: family.into(), gateway }
        }
        NextHopRow::Tunnel(tunnel) => {
            let via = w.number(|names| &mut names.tunnels, tunnel)? as u16;
            NextHop { kind: hop::TUNNEL, via, ..NextHop::default() }
        }
        NextHopRow::Host => NextHop { kind: hop::HOST, ..NextHop::default() },
        NextHopRow::Blackhole => NextHop { kind: hop::BLACKHOLE, ..NextHop::default() },
    };
    Ok(w.flip(NEXT_HOPS, number, &value)?)
}

pub(super) fn delete_next_hop(w: &mut Writer, name: &NextHopName) -> Written {
    if let Some(number) = w.names.next_hops.number(name) {
        w.flip(NEXT_HOPS, number, &NextHop::default())?;
        w.retire_later(|names| &mut names.next_hops, name);
    }
    Ok(())
}

const NO_GROUP: Group = Group {
    count: 0,
    seed: 0,
    total: 0,
    up_to: [0; GROUP_MEMBERS as usize],
    hops: [0; GROUP_MEMBERS as usize],
};

pub(super) fn put_group(w: &mut Writer, name: &GroupName, row: &GroupRow) -> Written {
    let number = w.number(|names| &mut names.groups, name)?;
    let mut value = Group { seed: row.seed, ..NO_GROUP };
    for ((hop, weight), n) in row.members.iter().zip(0..GROUP_MEMBERS as usize) {
        value.total += u64::from(*weight);
        value.up_to[n] = value.total as u32;
        value.hops[n] = w.number(|names| &mut names.next_hops, hop)?;
        value.count += 1;
    }
    Ok(w.flip(GROUPS, number, &value)?)
}

pub(super) fn delete_group(w: &mut Writer, name: &GroupName) -> Written {
    if let Some(number) = w.names.groups.number(name) {
        w.flip(GROUPS, number, &NO_GROUP)?;
        w.retire_later(|names| &mut names.groups, name);
    }
    Ok(())
}

fn route_key(w: &mut Writer, key: &RouteKey) -> Written<l3::Route> {
    let (family, addr) = addr_of(key.prefix.addr());
    let vrf = w.number(|names| &mut names.vrfs, &key.vrf)?;
    Ok(l3::Route { bits: FIXED_BITS + u32::from(key.prefix.len()), vrf, family: family.into(), addr })
}

pub(super) fn put_route(w: &mut Writer, key: &RouteKey, row: &Row) -> Written {
    let target = match row {
        Row::ToNextHop(hop) => w.number(|names| &mut names.next_hops, hop)?,
        Row::ToGroup(group) => w.number(|names| &mut names.groups, group)? | TO_GROUP,
        other => return Err(WriteError::Missing(format!("{key}: {other:?}"))),
    };
    let key = route_key(w, key)?;
    Ok(w.put(ROUTES, &key, &target)?)
}

pub(super) fn delete_route(w: &mut Writer, key: &RouteKey) -> Written {
    let key = route_key(w, key)?;
    Ok(w.unset(ROUTES, &key)?)
}

pub(super) fn put_nat(w: &mut Writer, vrf: &VrfName, rules: &[NatRow]) -> Written {
    let number = w.number(|names| &mut names.vrfs, vrf)?;
    let count = rules.len() as u32;
    let base = w.take(Table::NatRules, count)?;
    for (row, place) in rules.iter().zip(base..) {
        let value = nat_rule(w, row)?;
        w.kernel.fill(NAT_RULES, place, &value);
    }
    let had = w.current(VRFS, number);
    w.flip(VRFS, number, &Vrf { nat_base: base, nat_count: count, ..had })?;
    free_rules(w, had.nat_base, had.nat_count);
    Ok(())
}

pub(super) fn delete_nat(w: &mut Writer, vrf: &VrfName) -> Written {
    let Some(number) = w.names.vrfs.number(vrf) else { return Ok(()) };
    let had = w.current(VRFS, number);
    w.flip(VRFS, number, &Vrf { nat_base: 0, nat_count: 0, ..had })?;
    free_rules(w, had.nat_base, had.nat_count);
    Ok(())
}

/// Gives back what a VRF's rules took.
fn free_rules(w: &mut Writer, base: u32, count: u32) {
    for place in base..base.saturating_add(count) {
        let rule = w.kernel.at(NAT_RULES, place);
        w.give(Table::NatPool, rule.pool, rule.pool_v4.saturating_add(rule.pool_v6));
    }
    w.give(Table::NatRules, base, count);
}

fn nat_rule(w: &mut Writer, row: &NatRow) -> Written<NatRule> {
    let mut value = NatRule {
        protocol: row.protocol.unwrap_or(0),
        counts: if row.ports.is_some() { nat_counts::PORTS } else { 0 }
            | if row.protocol.is_some() { nat_counts::PROTOCOL } else { 0 },
        first: row.ports.map_or(0, |ports| ports.first()),
        last: row.ports.map_or(0, |ports| ports.last()),
        src: if row.src { set_of(w, &SetRef::NatSrc(row.key.clone()))? } else { 0 },
        dst: if row.dst { set_of(w, &SetRef::NatDst(row.key.clone()))? } else { 0 },
        egress: optional(w, |names| &mut names.interfaces, row.egress.as_ref())?,
        priority: row.key.priority,
        ..NatRule::default()
    };
    match &row.action {
        NatActionRow::NoNat => value.action = nat::NO_NAT,
        NatActionRow::Masquerade(ports) => {
            (value.action, value.low, value.high) = (nat::MASQUERADE, ports.first(), ports.last());
        }
        NatActionRow::Snat(pool, ports) => {
            (value.action, value.low, value.high) = (nat::SNAT, ports.first(), ports.last());
            value.pool = w.take(Table::NatPool, pool.len() as u32)?;
            for (addr, place) in pool.iter().zip(value.pool..) {
                let (of, addr) = addr_of(*addr);
                w.kernel.fill(NAT_POOL, place, &addr);
                *(if of == family::V4 { &mut value.pool_v4 } else { &mut value.pool_v6 }) += 1;
            }
        }
        NatActionRow::OneToOne(inside, outside) => {
            value.action = nat::ONE_TO_ONE;
            value.length = inside.len().into();
            let (of, addr) = addr_of(inside.addr());
            (value.family, value.inside) = (of.into(), addr);
            value.outside = addr_of(outside.addr()).1;
        }
        NatActionRow::Dnat(addr, port) => {
            let (of, addr) = addr_of(*addr);
            value.action = nat::DNAT;
            (value.family, value.inside, value.low) = (of.into(), addr, port.to_be());
        }
    }
    Ok(value)
}
