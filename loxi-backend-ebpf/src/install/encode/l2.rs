//! Bridges, ports, stations, and what stands on links.

use super::{Attached, SetNumber, Written, addr_of, link, optional, set_of};
use crate::install::writer::Writer;
use crate::plan::{BridgeRow, LinkRef, PortRow, SetRef};
use crate::sys::{
    ADMITS, BRIDGES, GUARD_MACS, KEPT, LINK_ADDRS, LINKS, PORT_VLANS, PROXIES, STATION_COUNT, STATIONS, Table,
};
use loxi_core::ir::FdbKey;
use loxi_core::net::{BridgeName, InterfaceName, MacAddr, PortName, TunnelName};
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::l2::{Bridge, GuardMac, Link, LinkAddr, Port, PortVlan, Station, StationAt, port};
use std::net::IpAddr;

const SECOND: u64 = 1_000_000_000;

pub(super) fn put_bridge(w: &mut Writer, name: &BridgeName, row: &BridgeRow) -> Written {
    let number = w.number(|names| &mut names.bridges, name)?;
    let zone = optional(w, |names| &mut names.zones, row.zone.as_ref())?;
    let value = Bridge {
        flags: row.flags,
        zone,
        ageing: u64::from(row.ageing_s) * SECOND,
        max_stations: row.max_stations.into(),
    };
    Ok(w.flip(BRIDGES, number, &value)?)
}

pub(super) fn delete_bridge(w: &mut Writer, name: &BridgeName) -> Written {
    if let Some(number) = w.names.bridges.number(name) {
        w.flip(BRIDGES, number, &Bridge::default())?;
        w.retire_later(|names| &mut names.bridges, name);
    }
    Ok(())
}

fn interface(w: &mut Writer, name: &InterfaceName) -> Written<u32> {
    w.number(|names| &mut names.interfaces, name)
}

pub(super) fn put_first(w: &mut Writer, on: &LinkRef, name: &InterfaceName) -> Written {
    let (link, number) = (link(w, on)?, interface(w, name)?);
    Ok(w.put(LINKS, &link, &number)?)
}

pub(super) fn delete_first(w: &mut Writer, on: &LinkRef) -> Written {
    let link = link(w, on)?;
    Ok(w.unset(LINKS, &link)?)
}

fn station(link: Link, mac: MacAddr) -> Station {
    Station { link, mac: mac.octets(), reserved: 0 }
}

pub(super) fn put_admit(w: &mut Writer, on: &LinkRef, mac: MacAddr, name: &InterfaceName) -> Written {
    let (link, number) = (link(w, on)?, interface(w, name)?);
    Ok(w.put(ADMITS, &station(link, mac), &number)?)
}

pub(super) fn delete_admit(w: &mut Writer, on: &LinkRef, mac: MacAddr) -> Written {
    let link = link(w, on)?;
    Ok(w.unset(ADMITS, &station(link, mac))?)
}

fn link_addr(link: Link, addr: IpAddr) -> LinkAddr {
    let (family, addr) = addr_of(addr);
    LinkAddr { link, family: family.into(), addr }
}

pub(super) fn put_link_addr(w: &mut Writer, on: &LinkRef, addr: IpAddr, name: &InterfaceName) -> Written {
    let (link, number) = (link(w, on)?, interface(w, name)?);
    Ok(w.put(LINK_ADDRS, &link_addr(link, addr), &number)?)
}

pub(super) fn delete_link_addr(w: &mut Writer, on: &LinkRef, addr: IpAddr) -> Written {
    let link = link(w, on)?;
    Ok(w.unset(LINK_ADDRS, &link_addr(link, addr))?)
}

pub(super) fn put_proxy(w: &mut Writer, on: &LinkRef, addr: IpAddr, name: &InterfaceName) -> Written {
    let (link, number) = (link(w, on)?, interface(w, name)?);
    Ok(w.put(PROXIES, &link_addr(link, addr), &number)?)
}

pub(super) fn delete_proxy(w: &mut Writer, on: &LinkRef, addr: IpAddr) -> Written {
    let link = link(w, on)?;
    Ok(w.unset(PROXIES, &link_addr(link, addr))?)
}

fn station_key(w: &mut Writer, key: &FdbKey) -> Written<Station> {
    let link = link(w, &LinkRef::Vlan(key.bridge.clone(), key.vlan.get()))?;
    Ok(station(link, key.mac))
}

pub(super) fn put_station(
    w: &mut Writer,
    key: &FdbKey,
    port: &PortName,
    behind: Option<&TunnelName>,
) -> Written {
    let key = station_key(w, key)?;
    let port = w.number(|names| &mut names.ports, port)? as u16;
    let tunnel = optional(w, |names| &mut names.tunnels, behind)? as u16;
    let learned = w.kernel.look(STATIONS, &key)?.is_some_and(|known| known.fixed == 0);
    w.put(STATIONS, &key, &StationAt { port, tunnel, fixed: 1, expires: u64::MAX })?;
    if learned {
        // It is no learned one any more; whoever counts finds it so.
        let bridge = u32::from(key.link.id);
        let _ = w
            .kernel
            .memory(Table::StationCount)
            .word(offset(STATION_COUNT.table, bridge))
            .fetch_add(u64::MAX);
        let _ = w.kernel.memory(Table::Kept).word(offset(KEPT.table, kept::STATIONS)).fetch_add(u64::MAX);
    }
    Ok(())
}

fn offset(table: Table, index: u32) -> usize {
    index as usize * table.sizes().1
}

pub(super) fn delete_station(w: &mut Writer, key: &FdbKey) -> Written {
    let key = station_key(w, key)?;
    Ok(w.unset(STATIONS, &key)?)
}

pub(super) fn put_vlan(w: &mut Writer, name: &PortName, vlan: u16, flags: u32) -> Written {
    let port = w.number(|names| &mut names.ports, name)? as u16;
    Ok(w.put(PORT_VLANS, &PortVlan { port, vlan }, &flags)?)
}

pub(super) fn delete_vlan(w: &mut Writer, name: &PortName, vlan: u16) -> Written {
    match w.names.ports.number(name) {
        Some(port) => Ok(w.unset(PORT_VLANS, &PortVlan { port: port as u16, vlan })?),
        None => Ok(()),
    }
}

pub(super) fn put_guard_mac(w: &mut Writer, name: &PortName, mac: MacAddr) -> Written {
    let set = set_of(w, &SetRef::Guard(name.clone()))?;
    Ok(w.put(GUARD_MACS, &GuardMac { set, mac: mac.octets(), reserved: 0 }, &1)?)
}

pub(super) fn delete_guard_mac(w: &mut Writer, name: &PortName, mac: MacAddr, set: SetNumber) -> Written {
    match set.or_else(|| w.names.sets.number(&SetRef::Guard(name.clone()))) {
        Some(set) => Ok(w.unset(GUARD_MACS, &GuardMac { set, mac: mac.octets(), reserved: 0 })?),
        None => Ok(()),
    }
}

pub(super) fn put_port(w: &mut Writer, attached: &Attached, name: &PortName, row: &PortRow) -> Written {
    let number = w.number(|names| &mut names.ports, name)?;
    let device = attached.get(name);
    let open = row.flags & port::UP != 0 && device.is_some();
    let guard = if row.flags & port::GUARDED == 0 { 0 } else { set_of(w, &SetRef::Guard(name.clone()))? };
    let device = device.copied().unwrap_or_default();
    let value = Port {
        mac: row.mac.octets(),
        flags: row.flags | if open { port::OPEN } else { 0 },
        gateway: row.gateway.octets(),
        vlan: row.vlan,
        ifindex: device.ifindex,
        mtu: row.mtu,
        zone: optional(w, |names| &mut names.zones, row.zone.as_ref())? as u8,
        kind: row.kind,
        bridge: optional(w, |names| &mut names.bridges, row.bridge.as_ref())? as u16,
        vrf: optional(w, |names| &mut names.vrfs, row.vrf.as_ref())? as u16,
        interface: optional(w, |names| &mut names.interfaces, row.interface.as_ref())? as u16,
        split: row.split.unwrap_or(0),
        guard,
        side: device.side,
        exit: device.exit,
        reserved: 0,
        spare: [0; 2],
    };
    Ok(w.flip_port(number, &value)?)
}

pub(super) fn delete_port(w: &mut Writer, name: &PortName) -> Written {
    let Some(number) = w.names.ports.number(name) else { return Ok(()) };
    w.flip_port(number, &Port::default())?;
    w.retire_later(|names| &mut names.ports, name);
    Ok(())
}
