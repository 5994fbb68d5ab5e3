//! Tunnels, where they end, and what leads back.

use super::{Written, addr_of, set_of};
use crate::install::writer::Writer;
use crate::plan::{Encap, EndRow, SetRef, TunnelRow};
use crate::sys::{BACKS, BARE_UDP, ENDINGS, ENDPOINTS, OUTERS, TUNNELS, Table};
use loxi_core::net::{PortName, TunnelName, VrfName};
use loxi_ebpf_layout::tunnel::{ANY_KEY, BackKey, EndKey, Ending, EndpointKey, OuterKey, Tunnel, kind};
use std::net::IpAddr;

/// Kind, and UDP port in network order.
pub(crate) fn encap_of(encap: Encap) -> (u8, u16) {
    match encap {
        Encap::Vxlan(port) => (kind::VXLAN, port.to_be()),
        Encap::Ipip => (kind::IPIP, 0),
    }
}

/// A VNI as it is in the header.
pub(crate) fn vni_of(vni: u32) -> u32 {
    (vni << 8).to_be()
}

/// Bytes that an encapsulation adds to an inner L3 packet: outer IP, UDP, VXLAN, inner Ethernet.
pub(crate) fn overhead(encap: Encap, remote: IpAddr) -> u16 {
    let header = if remote.is_ipv4() { 20 } else { 40 };
    match encap {
        Encap::Vxlan(_) => header + 8 + 8 + 14,
        Encap::Ipip => header,
    }
}

pub(super) fn put_endpoint(w: &mut Writer, addr: IpAddr) -> Written {
    let (known, number) = (w.names.endpoints.number(&addr), w.number(|names| &mut names.endpoints, &addr)?);
    if known.is_none() {
        // What was learned of another address is not about this one.
        w.word(Table::PathMtus, number as usize * 8, 0)?;
    }
    let (family, addr) = addr_of(addr);
    Ok(w.put(ENDPOINTS, &EndpointKey { family: family.into(), addr }, &number)?)
}

pub(super) fn delete_endpoint(w: &mut Writer, addr: IpAddr) -> Written {
    let (family, key) = addr_of(addr);
    w.unset(ENDPOINTS, &EndpointKey { family: family.into(), addr: key })?;
    w.retire_later(|names| &mut names.endpoints, &addr);
    Ok(())
}

pub(super) fn put_tunnel(w: &mut Writer, name: &TunnelName, row: &TunnelRow) -> Written {
    let number = w.number(|names| &mut names.tunnels, name)?;
    let (kind, port) = encap_of(row.encap);
    let ((family, remote), (_, local)) = (addr_of(row.remote), addr_of(row.local));
    let value = Tunnel {
        local,
        remote,
        kind,
        family,
        flags: row.flags,
        vni: vni_of(row.vni),
        port,
        first: row.source_ports.first(),
        last: row.source_ports.last(),
        ttl: row.ttl,
        tos: row.tos,
        in_port: w.number(|names| &mut names.ports, &row.port)? as u16,
        vrf: w.number(|names| &mut names.vrfs, &row.vrf)? as u16,
        mtu: row.mtu,
        overhead: overhead(row.encap, row.remote),
        inner_dst: row.inner_dst.octets(),
        inner_src: row.inner_src.octets(),
        endpoint: w.number(|names| &mut names.endpoints, &row.remote)?,
        exists: 1,
        reserved: 0,
    };
    let was = w.current(TUNNELS, number);
    if was.exists != 0 && was != value {
        w.leave_short_ways(was.endpoint);
        w.leave_short_ways(value.endpoint);
    }
    Ok(w.flip(TUNNELS, number, &value)?)
}

pub(super) fn delete_tunnel(w: &mut Writer, name: &TunnelName) -> Written {
    if let Some(number) = w.names.tunnels.number(name) {
        w.flip(TUNNELS, number, &Tunnel::default())?;
        w.retire_later(|names| &mut names.tunnels, name);
    }
    Ok(())
}

fn back_key(w: &mut Writer, port: &PortName, remote: IpAddr) -> Written<BackKey> {
    let (family, remote) = addr_of(remote);
    Ok(BackKey { port: w.number(|names| &mut names.ports, port)? as u16, family: family.into(), remote })
}

pub(super) fn put_back(w: &mut Writer, port: &PortName, remote: IpAddr, name: &TunnelName) -> Written {
    let key = back_key(w, port, remote)?;
    let number = w.number(|names| &mut names.tunnels, name)?;
    Ok(w.put(BACKS, &key, &number)?)
}

pub(super) fn delete_back(w: &mut Writer, port: &PortName, remote: IpAddr) -> Written {
    let key = back_key(w, port, remote)?;
    Ok(w.unset(BACKS, &key)?)
}

fn outer_key(
    w: &mut Writer,
    vrf: &VrfName,
    encap: Encap,
    (local, remote): (IpAddr, IpAddr),
) -> Written<OuterKey> {
    let (kind, port) = encap_of(encap);
    let ((family, remote), (_, local)) = (addr_of(remote), addr_of(local));
    let vrf = w.number(|names| &mut names.vrfs, vrf)? as u16;
    Ok(OuterKey { vrf, port, family, kind, reserved: 0, local, remote })
}

pub(super) fn put_outer(
    w: &mut Writer,
    vrf: &VrfName,
    encap: Encap,
    addrs: (IpAddr, IpAddr),
    name: &TunnelName,
) -> Written {
    let key = outer_key(w, vrf, encap, addrs)?;
    let number = w.number(|names| &mut names.tunnels, name)?;
    Ok(w.put(OUTERS, &key, &number)?)
}

pub(super) fn delete_outer(w: &mut Writer, vrf: &VrfName, encap: Encap, addrs: (IpAddr, IpAddr)) -> Written {
    let key = outer_key(w, vrf, encap, addrs)?;
    Ok(w.unset(OUTERS, &key)?)
}

pub(super) fn put_bare_udp(w: &mut Writer, port: u16) -> Written {
    Ok(w.put(BARE_UDP, &u32::from(port.to_be()), &1)?)
}

pub(super) fn delete_bare_udp(w: &mut Writer, port: u16) -> Written {
    Ok(w.unset(BARE_UDP, &u32::from(port.to_be()))?)
}

fn end_key(w: &mut Writer, vrf: &VrfName, dst: IpAddr, encap: Encap) -> Written<EndKey> {
    let (kind, port) = encap_of(encap);
    let (family, dst) = addr_of(dst);
    let vrf = w.number(|names| &mut names.vrfs, vrf)? as u16;
    Ok(EndKey { vrf, port, family, kind, reserved: 0, vni: 0, dst })
}

pub(super) fn put_end(
    w: &mut Writer,
    vrf: &VrfName,
    dst: IpAddr,
    (encap, vni): (Encap, u32),
    row: &EndRow,
) -> Written {
    let key = EndKey { vni: vni_of(vni), ..end_key(w, vrf, dst, encap)? };
    let port = w.number(|names| &mut names.ports, &row.port)? as u16;
    let peers = set_of(w, &SetRef::Peers(row.name.clone()))?;
    Ok(w.put(ENDINGS, &key, &Ending { port, exclusive: 0, peers })?)
}

pub(super) fn delete_end(w: &mut Writer, vrf: &VrfName, dst: IpAddr, (encap, vni): (Encap, u32)) -> Written {
    let key = EndKey { vni: vni_of(vni), ..end_key(w, vrf, dst, encap)? };
    Ok(w.unset(ENDINGS, &key)?)
}

pub(super) fn put_end_any(
    w: &mut Writer,
    vrf: &VrfName,
    dst: IpAddr,
    encap: Encap,
    exclusive: u32,
) -> Written {
    let key = end_key(w, vrf, dst, encap)?;
    let key = EndKey { kind: key.kind | ANY_KEY, ..key };
    Ok(w.put(ENDINGS, &key, &Ending { port: 0, exclusive: exclusive as u16, peers: 0 })?)
}

pub(super) fn delete_end_any(w: &mut Writer, vrf: &VrfName, dst: IpAddr, encap: Encap) -> Written {
    let key = end_key(w, vrf, dst, encap)?;
    Ok(w.unset(ENDINGS, &EndKey { kind: key.kind | ANY_KEY, ..key })?)
}
