//! Bridges, ports, stations, and what stands on their links.

use super::{Source, members};
use crate::plan::{BridgeRow, LinkRef, PortRow, Row, RowKey, Rows, SetRef};
use loxi_core::ir::{
    Admin, Attachment, Bridge, BridgePort, Fdb, FdbKey, FdbTarget, Flooding, Neighbor, NeighborKey, Port,
    PortKind, Scope, Tunnel, Unclaimed, VlanMode, Vrf,
};
use loxi_core::net::{BridgeName, MacAddr, PortName};
use loxi_ebpf_layout::l2::{bridge, carried, kind, port};
use std::net::IpAddr;

pub(super) fn bridge(source: &Source<'_>, name: &BridgeName, rows: &mut Rows) {
    let Some(config) = source.pipeline.get::<Bridge>(name) else { return };
    let flags = [
        (bridge::EXISTS, true),
        (bridge::FLOOD_UNKNOWN, config.unknown_unicast == Flooding::Flood),
        (bridge::FLOOD_MULTICAST, config.multicast == Flooding::Flood),
        (bridge::FLOOD_BROADCAST, config.broadcast == Flooding::Flood),
        (bridge::ANY_ETHERTYPE, config.any_ethertype),
        (bridge::PROXY, config.proxy_neighbors),
    ];
    let row = BridgeRow {
        flags: flags.iter().filter(|(_, on)| *on).fold(0, |all, (bit, _)| all | bit),
        zone: config.zone.clone(),
        ageing_s: config.ageing_s,
        max_stations: config.max_macs,
    };
    rows.insert(RowKey::Bridge(name.clone()), Row::Bridge(row));
}

pub(super) fn port(source: &Source<'_>, name: &PortName, rows: &mut Rows) {
    let Some(config) = source.pipeline.get::<Port>(name) else { return };
    let mut row = PortRow {
        mac: config.mac,
        kind: number(config.kind),
        flags: own_flags(config),
        vlan: 0,
        mtu: config.mtu.get(),
        zone: None,
        bridge: None,
        vrf: None,
        interface: None,
        gateway: MacAddr::ZERO,
        split: None,
    };
    match &config.attachment {
        Attachment::Detached => {}
        Attachment::Bridge(member) => bridged(source, member, &mut row),
        Attachment::Vrf(vrf) => {
            row.flags |= port::ROUTED;
            row.zone = source.pipeline.get::<Vrf>(vrf).and_then(|vrf| vrf.zone.clone());
            row.vrf = Some(vrf.clone());
            row.gateway = config.mac;
            stands_on(source, &LinkRef::Port(name.clone()), &mut row);
        }
    }
    rows.insert(RowKey::Port(name.clone()), Row::Port(row));
    if let Some(BridgePort { vlan: VlanMode::Trunk { allowed, native }, .. }) = config.bridge() {
        for vlan in allowed.iter().chain(native) {
            let tagged = if allowed.contains(vlan) { carried::TAGGED } else { 0 };
            let untagged = if *native == Some(*vlan) { carried::NATIVE } else { 0 };
            rows.insert(RowKey::PortVlan(name.clone(), vlan.get()), Row::Flags(tagged | untagged));
        }
    }
    if let Some(guard) = &config.anti_spoof {
        members(rows, &SetRef::Guard(name.clone()), &guard.addresses);
        rows.extend(guard.macs.iter().map(|mac| (RowKey::PortMac(name.clone(), *mac), Row::Present)));
    }
}

/// Flags that depend on the port alone.
fn own_flags(config: &Port) -> u16 {
    let guard = config.anti_spoof.as_ref();
    let flags = [
        (port::EXISTS, true),
        (port::UP, config.admin == Admin::Up),
        (port::UNDERLAY, config.underlay),
        (port::PUNT, config.unclaimed() == Unclaimed::Punt),
        (port::EXTERNAL, config.scope == Scope::External),
        (port::GUARDED, guard.is_some()),
        (port::DHCP, guard.is_some_and(|guard| guard.dhcp_client)),
        (port::GUARD_MACS, guard.is_some_and(|guard| !guard.macs.is_empty())),
    ];
    flags.iter().filter(|(_, on)| *on).fold(0, |all, (bit, _)| all | bit)
}

fn number(of: PortKind) -> u8 {
    match of {
        PortKind::Pod => kind::POD,
        PortKind::Host => kind::HOST,
        PortKind::Uplink => kind::UPLINK,
        PortKind::Tunnel => kind::TUNNEL,
        PortKind::Representor => kind::REPRESENTOR,
    }
}

fn bridged(source: &Source<'_>, member: &BridgePort, row: &mut PortRow) {
    let config = source.pipeline.get::<Bridge>(&member.bridge);
    row.flags |= port::BRIDGED;
    if config.is_some_and(|bridge| bridge.learning) && member.learning {
        row.flags |= port::LEARN;
    }
    if member.split_horizon.is_some() {
        row.flags |= port::SPLIT;
    }
    row.split = member.split_horizon;
    row.zone = config.and_then(|bridge| bridge.zone.clone());
    row.bridge = Some(member.bridge.clone());
    let own = match &member.vlan {
        VlanMode::Access(vlan) => Some(*vlan),
        VlanMode::Trunk { native, .. } => {
            row.flags |= port::TRUNK | if native.is_some() { port::NATIVE } else { 0 };
            *native
        }
    };
    if let Some(vlan) = own {
        row.vlan = vlan.get();
        stands_on(source, &LinkRef::Vlan(member.bridge.clone(), vlan.get()), row);
    }
}

/// Notes the first interface on a port's link.
fn stands_on(source: &Source<'_>, link: &LinkRef, row: &mut PortRow) {
    if let Some(interface) = source.interfaces_on(link).first() {
        row.interface = Some(interface.name.clone());
        row.gateway = interface.mac;
    }
}

/// What stands on a link.
pub(super) fn link(source: &Source<'_>, link: &LinkRef, rows: &mut Rows) {
    let interfaces = source.interfaces_on(link);
    if let (Some(first), LinkRef::Vlan(..)) = (interfaces.first(), link) {
        rows.insert(RowKey::FirstOn(link.clone()), Row::Is(first.name.clone()));
    }
    for interface in interfaces {
        let is = || Row::Is(interface.name.clone());
        rows.entry(RowKey::Admit(link.clone(), interface.mac)).or_insert_with(is);
        for address in &interface.addresses {
            rows.entry(RowKey::LinkAddr(link.clone(), *address)).or_insert_with(is);
        }
    }
}

/// Whose static neighbour an address is, on a VLAN of a bridge. A port's link has nobody else to ask.
pub(super) fn proxy(source: &Source<'_>, link: &LinkRef, address: IpAddr, rows: &mut Rows) {
    if !matches!(link, LinkRef::Vlan(..)) {
        return;
    }
    let has = |name| source.pipeline.get::<Neighbor>(&NeighborKey { interface: name, address }).is_some();
    let found = source.interfaces_on(link).iter().find(|interface| has(interface.name.clone()));
    if let Some(interface) = found {
        rows.insert(RowKey::Proxy(link.clone(), address), Row::Is(interface.name.clone()));
    }
}

pub(super) fn station(source: &Source<'_>, key: &FdbKey, rows: &mut Rows) {
    let Some(fdb) = source.pipeline.get::<Fdb>(key) else { return };
    let at = match &fdb.target {
        FdbTarget::Port(port) => Row::At(port.clone(), None),
        FdbTarget::Tunnel(name) => match source.pipeline.get::<Tunnel>(name) {
            Some(tunnel) => Row::At(tunnel.port.clone(), Some(name.clone())),
            None => return,
        },
    };
    rows.insert(RowKey::Station(key.clone()), at);
}
