//! Zones, VRFs, interfaces, neighbours, next hops, routes, NAT rules.

use super::{Reader, ip_of, mac, optional, prefix_of};
use crate::plan::{
    GroupRow, InterfaceRow, LinkRef, NatActionRow, NatRow, NextHopRow, Row, RowKey, SetRef, VrfRow, ZoneRow,
};
use crate::sys::{
    GROUPS, INTERFACES, KernelError, LOCAL_ADDRS, NAT_POOL, NAT_RULES, NEIGHBORS, NEXT_HOPS, ROUTES, Table,
    VRFS, ZONES, bytes,
};
use loxi_core::ir::{NatKey, NeighborKey, RouteKey};
use loxi_core::net::{L4Ports, VrfName};
use loxi_ebpf_layout::l3::{
    FIXED_BITS, Group, Interface, NatRule, NextHop, TO_GROUP, Vrf, Zone, hop, interface, nat, nat_counts,
    neighbor,
};
use loxi_ebpf_layout::{Addr, family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn v4(word: u32) -> Option<Ipv4Addr> {
    (word != 0).then(|| Ipv4Addr::from(word.to_ne_bytes()))
}

fn v6(addr: Addr) -> Option<Ipv6Addr> {
    (addr != Addr::ZERO).then(|| Ipv6Addr::from(addr.octets()))
}

fn zone_row(value: &Zone) -> ZoneRow {
    let limit = |limit: u32| (limit != u32::MAX).then_some(limit);
    ZoneRow {
        max_flows: value.max_flows,
        max_half_open: limit(value.max_half_open),
        max_per_source: limit(value.max_per_source),
        pickup: value.pickup != 0,
        timeouts: value.timeouts,
    }
}

impl Reader<'_> {
    pub(super) fn l3(&mut self) -> Result<(), KernelError> {
        let (kernel, names) = (self.kernel, self.names);
        for number in 1..kernel.length(ZONES) {
            let value = *kernel.at(ZONES, number).current();
            if value.exists != 0 {
                let name = names.zones.live(number).cloned();
                let row = name.map(|name| (RowKey::Zone(name), Row::Zone(zone_row(&value))));
                self.note(Table::Zones, bytes(&number), row);
            }
        }
        for number in 1..kernel.length(VRFS) {
            let value = *kernel.at(VRFS, number).current();
            if value.exists != 0 {
                let row = self.vrf_row(number, &value);
                self.note(Table::Vrfs, bytes(&number), row);
            }
            if value.nat_count != 0 {
                let rules = names.vrfs.live(number).and_then(|vrf| self.nat_rows(vrf, &value));
                let row = names.vrfs.live(number).cloned().zip(rules);
                let row = row.map(|(vrf, rules)| (RowKey::Nat(vrf), Row::Nat(rules)));
                // Named by its VRF.
                self.note(Table::NatRules, bytes(&number), row);
            }
        }
        for number in 1..kernel.length(INTERFACES) {
            let value = *kernel.at(INTERFACES, number).current();
            if value.flags & interface::EXISTS != 0 {
                let row = self.interface_row(number, &value);
                self.note(Table::Interfaces, bytes(&number), row);
            }
        }
        self.next_hops();
        self.routes()
    }

    fn vrf_row(&self, number: u32, value: &Vrf) -> Option<(RowKey, Row)> {
        let name = self.names.vrfs.live(number)?.clone();
        let own = SetRef::NodeLocal(name.clone());
        if value.node_local != 0 && self.names.sets.live(value.node_local) != Some(&own) {
            return None;
        }
        let row = VrfRow {
            zone: optional(&self.names.zones, value.zone)?,
            snat_v4: v4(value.snat_v4),
            snat_v6: v6(value.snat_v6),
            node_local: value.node_local != 0,
        };
        Some((RowKey::Vrf(name), Row::Vrf(row)))
    }

    fn interface_row(&self, number: u32, value: &Interface) -> Option<(RowKey, Row)> {
        let link = self.link(value.link)?;
        let on_bridge = value.flags & interface::ON_BRIDGE != 0;
        if on_bridge == matches!(link, LinkRef::Port(_)) {
            return None;
        }
        let row = InterfaceRow {
            link,
            vrf: self.names.vrfs.live(value.vrf.into())?.clone(),
            mac: mac(value.mac),
            mtu: value.mtu,
            punt: value.flags & interface::PUNT != 0,
            v4: (value.flags & interface::V4 != 0).then(|| Ipv4Addr::from(value.v4.to_ne_bytes())),
            v6: (value.flags & interface::V6 != 0).then(|| Ipv6Addr::from(value.v6.octets())),
        };
        Some((RowKey::Interface(self.names.interfaces.live(number)?.clone()), Row::Interface(row)))
    }

    fn next_hops(&mut self) {
        let (kernel, names) = (self.kernel, self.names);
        for number in 1..kernel.length(NEXT_HOPS) {
            let value = *kernel.at(NEXT_HOPS, number).current();
            if value.kind != 0 {
                let row = names.next_hops.live(number).cloned().zip(self.next_hop_row(&value));
                let row = row.map(|(name, row)| (RowKey::NextHop(name), Row::NextHop(row)));
                self.note(Table::NextHops, bytes(&number), row);
            }
        }
        for number in 1..kernel.length(GROUPS) {
            let value = *kernel.at(GROUPS, number).current();
            if value.count != 0 {
                let row = names.groups.live(number).cloned().zip(self.group_row(&value));
                let row = row.map(|(name, row)| (RowKey::Group(name), Row::Group(row)));
                self.note(Table::Groups, bytes(&number), row);
            }
        }
    }

    fn next_hop_row(&self, value: &NextHop) -> Option<NextHopRow> {
        Some(match value.kind {
            hop::DIRECT => {
                let gateway =
                    if value.family == 0 { None } else { Some(ip_of(value.family, value.gateway)?) };
                NextHopRow::Direct(self.names.interfaces.live(value.via.into())?.clone(), gateway)
            }
            hop::TUNNEL => NextHopRow::Tunnel(self.names.tunnels.live(value.via.into())?.clone()),
            hop::HOST => NextHopRow::Host,
            hop::BLACKHOLE => NextHopRow::Blackhole,
            _ => return None,
        })
    }

    fn group_row(&self, value: &Group) -> Option<GroupRow> {
        let mut before = 0;
        let mut members = Vec::new();
        for n in 0..value.count as usize {
            let up_to = *value.up_to.get(n)?;
            let weight = u16::try_from(up_to.checked_sub(before)?).ok()?;
            members.push((self.names.next_hops.live(*value.hops.get(n)?)?.clone(), weight));
            before = up_to;
        }
        (u64::from(before) == value.total).then_some(GroupRow { seed: value.seed, members })
    }

    fn routes(&mut self) -> Result<(), KernelError> {
        let (kernel, names) = (self.kernel, self.names);
        for (key, number) in kernel.all(LOCAL_ADDRS)? {
            let row = names.vrfs.live(key.vrf).cloned().and_then(|vrf| {
                let is = Row::Is(names.interfaces.live(number)?.clone());
                Some((RowKey::LocalAddr(vrf, ip_of(key.family, key.addr)?), is))
            });
            self.note(Table::LocalAddrs, bytes(&key), row);
        }
        for (key, value) in kernel.all(NEIGHBORS)? {
            if value.state != neighbor::FIXED {
                continue;
            }
            let row = names.interfaces.live(key.interface).cloned().and_then(|interface| {
                let key = NeighborKey { interface, address: ip_of(key.family, key.addr)? };
                Some((RowKey::Neighbor(key), Row::Mac(mac(value.mac))))
            });
            self.note(Table::Neighbors, bytes(&key), row);
        }
        for (key, target) in kernel.all(ROUTES)? {
            let prefix = prefix_of(key.family, key.addr, key.bits.wrapping_sub(FIXED_BITS));
            let row = names.vrfs.live(key.vrf).cloned().zip(prefix).and_then(|(vrf, prefix)| {
                let row = if target & TO_GROUP == 0 {
                    Row::ToNextHop(names.next_hops.live(target)?.clone())
                } else {
                    Row::ToGroup(names.groups.live(target & !TO_GROUP)?.clone())
                };
                Some((RowKey::Route(RouteKey { vrf, prefix }), row))
            });
            self.note(Table::Routes, bytes(&key), row);
        }
        Ok(())
    }

    fn nat_rows(&self, vrf: &VrfName, value: &Vrf) -> Option<Vec<NatRow>> {
        let end = value.nat_base.checked_add(value.nat_count)?;
        if end > self.kernel.length(NAT_RULES) {
            return None;
        }
        (value.nat_base..end).map(|place| self.nat_row(vrf, &self.kernel.at(NAT_RULES, place))).collect()
    }

    fn nat_row(&self, vrf: &VrfName, value: &NatRule) -> Option<NatRow> {
        let key = NatKey { vrf: vrf.clone(), priority: value.priority };
        let is = |set: u32, of: SetRef| set == 0 || self.names.sets.live(set) == Some(&of);
        if !is(value.src, SetRef::NatSrc(key.clone())) || !is(value.dst, SetRef::NatDst(key.clone())) {
            return None;
        }
        let ports = || L4Ports::new(value.low, value.high).ok();
        let action = match value.action {
            nat::NO_NAT => NatActionRow::NoNat,
            nat::MASQUERADE => NatActionRow::Masquerade(ports()?),
            nat::SNAT => NatActionRow::Snat(self.pool(value)?, ports()?),
            nat::ONE_TO_ONE => NatActionRow::OneToOne(
                prefix_of(value.family, value.inside, value.length)?,
                prefix_of(value.family, value.outside, value.length)?,
            ),
            nat::DNAT => NatActionRow::Dnat(ip_of(value.family, value.inside)?, u16::from_be(value.low)),
            _ => return None,
        };
        Some(NatRow {
            key,
            protocol: (value.counts & nat_counts::PROTOCOL != 0).then_some(value.protocol),
            ports: if value.counts & nat_counts::PORTS == 0 {
                None
            } else {
                Some(L4Ports::new(value.first, value.last).ok()?)
            },
            src: value.src != 0,
            dst: value.dst != 0,
            egress: optional(&self.names.interfaces, value.egress)?,
            action,
        })
    }

    fn pool(&self, value: &NatRule) -> Option<Vec<IpAddr>> {
        let count = value.pool_v4.checked_add(value.pool_v6)?;
        let end = value.pool.checked_add(count)?;
        if end > self.kernel.length(NAT_POOL) {
            return None;
        }
        let of = |place: u32| if place - value.pool < value.pool_v4 { family::V4 } else { family::V6 };
        (value.pool..end).map(|place| ip_of(of(place).into(), self.kernel.at(NAT_POOL, place))).collect()
    }
}
