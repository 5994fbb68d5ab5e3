//! From rows to table entries.
//!
//! One function for each kind of row writes it, one takes it out. What a row refers to
//! by name gets its number here, also before it is written itself.

mod l2;
mod l3;
pub(crate) mod lb;
mod policy;
pub(crate) mod tunnel;

use super::attached::Attached;
use super::writer::{WriteError, Writer};
use crate::plan::{LinkRef, Row, RowKey, SetRef};
use crate::sys::SETS;
use loxi_core::net::IpPrefix;
use loxi_ebpf_layout::l2::Link;
use loxi_ebpf_layout::l3::{FIXED_BITS, Member};
use loxi_ebpf_layout::{Addr, family};
use std::net::IpAddr;

/// Result of writing.
pub(crate) type Written<T = ()> = Result<T, WriteError>;

/// Which number a set of addresses has where it is about to be replaced.
pub(crate) type SetNumber = Option<u32>;

/// Writes a row. `attached` says which ports have a device.
pub(crate) fn put(w: &mut Writer, attached: &Attached, key: &RowKey, row: &Row) -> Written {
    match (key, row) {
        (RowKey::Zone(name), Row::Zone(row)) => l3::put_zone(w, name, row),
        (RowKey::Vrf(name), Row::Vrf(row)) => l3::put_vrf(w, name, row),
        (RowKey::Bridge(name), Row::Bridge(row)) => l2::put_bridge(w, name, row),
        (RowKey::Member(set, prefix), Row::Present) => put_member(w, set, *prefix),
        (RowKey::Interface(name), Row::Interface(row)) => l3::put_interface(w, name, row),
        (RowKey::FirstOn(on), Row::Is(interface)) => l2::put_first(w, on, interface),
        (RowKey::Admit(on, mac), Row::Is(interface)) => l2::put_admit(w, on, *mac, interface),
        (RowKey::LinkAddr(on, addr), Row::Is(interface)) => l2::put_link_addr(w, on, *addr, interface),
        (RowKey::Proxy(on, addr), Row::Is(interface)) => l2::put_proxy(w, on, *addr, interface),
        (RowKey::LocalAddr(vrf, addr), Row::Is(interface)) => l3::put_local(w, vrf, *addr, interface),
        (RowKey::Neighbor(key), Row::Mac(mac)) => l3::put_neighbor(w, key, *mac),
        (RowKey::Endpoint(addr), Row::Present) => tunnel::put_endpoint(w, *addr),
        (RowKey::Tunnel(name), Row::Tunnel(row)) => tunnel::put_tunnel(w, name, row),
        (RowKey::Back(port, remote), Row::By(name)) => tunnel::put_back(w, port, *remote, name),
        (RowKey::Outer(vrf, encap, local, remote), Row::By(name)) => {
            tunnel::put_outer(w, vrf, *encap, (*local, *remote), name)
        }
        (RowKey::BareUdp(port), Row::Present) => tunnel::put_bare_udp(w, *port),
        (RowKey::Station(key), Row::At(port, behind)) => l2::put_station(w, key, port, behind.as_ref()),
        (RowKey::NextHop(name), Row::NextHop(row)) => l3::put_next_hop(w, name, row),
        (RowKey::Group(name), Row::Group(row)) => l3::put_group(w, name, row),
        (RowKey::Route(key), row) => l3::put_route(w, key, row),
        (RowKey::Nat(vrf), Row::Nat(rules)) => l3::put_nat(w, vrf, rules),
        (RowKey::Backend(name), Row::Backend(row)) => lb::put_backend(w, name, row),
        (RowKey::Vip(key), Row::Flags(flags)) => lb::put_vip(w, key, *flags),
        (RowKey::Service(key), Row::Service(row)) => lb::put_service(w, key, row),
        (RowKey::Rules(digest), Row::Rules(row)) => policy::put_rules(w, *digest, row),
        (RowKey::PeerRules(digest, class), Row::Bits(bits)) => {
            policy::put_peer_rules(w, *digest, *class, bits)
        }
        (RowKey::PortRules(digest, protocol, port), Row::Bits(bits)) => {
            policy::put_port_rules(w, *digest, *protocol, *port, bits)
        }
        (RowKey::Peer(prefix), Row::Class(class)) => policy::put_peer(w, *prefix, *class),
        (RowKey::PortPolicy(port), Row::PortPolicy(row)) => policy::put_port_policy(w, port, row),
        (RowKey::End(vrf, dst, encap, vni), Row::End(row)) => {
            tunnel::put_end(w, vrf, *dst, (*encap, *vni), row)
        }
        (RowKey::EndAny(vrf, dst, encap), Row::Flags(flags)) => {
            tunnel::put_end_any(w, vrf, *dst, *encap, *flags)
        }
        (RowKey::PortVlan(port, vlan), Row::Flags(flags)) => l2::put_vlan(w, port, *vlan, *flags),
        (RowKey::PortMac(port, mac), Row::Present) => l2::put_guard_mac(w, port, *mac),
        (RowKey::Port(name), Row::Port(row)) => l2::put_port(w, attached, name, row),
        (key, row) => Err(WriteError::Missing(format!("{key:?}: {row:?}"))),
    }
}

/// Takes a row out. `set`: the number of the set that it belongs to, where that isn't the
/// set's number any more.
pub(crate) fn delete(w: &mut Writer, key: &RowKey, set: SetNumber) -> Written {
    match key {
        RowKey::Zone(name) => l3::delete_zone(w, name),
        RowKey::Vrf(name) => l3::delete_vrf(w, name),
        RowKey::Bridge(name) => l2::delete_bridge(w, name),
        RowKey::Member(of, prefix) => delete_member(w, of, *prefix, set),
        RowKey::Interface(name) => l3::delete_interface(w, name),
        RowKey::FirstOn(on) => l2::delete_first(w, on),
        RowKey::Admit(on, mac) => l2::delete_admit(w, on, *mac),
        RowKey::LinkAddr(on, addr) => l2::delete_link_addr(w, on, *addr),
        RowKey::Proxy(on, addr) => l2::delete_proxy(w, on, *addr),
        RowKey::LocalAddr(vrf, addr) => l3::delete_local(w, vrf, *addr),
        RowKey::Neighbor(key) => l3::delete_neighbor(w, key),
        RowKey::Endpoint(addr) => tunnel::delete_endpoint(w, *addr),
        RowKey::Tunnel(name) => tunnel::delete_tunnel(w, name),
        RowKey::Back(port, remote) => tunnel::delete_back(w, port, *remote),
        RowKey::Outer(vrf, encap, local, remote) => tunnel::delete_outer(w, vrf, *encap, (*local, *remote)),
        RowKey::BareUdp(port) => tunnel::delete_bare_udp(w, *port),
        RowKey::Station(key) => l2::delete_station(w, key),
        RowKey::NextHop(name) => l3::delete_next_hop(w, name),
        RowKey::Group(name) => l3::delete_group(w, name),
        RowKey::Route(key) => l3::delete_route(w, key),
        RowKey::Nat(vrf) => l3::delete_nat(w, vrf),
        RowKey::Backend(name) => lb::delete_backend(w, name),
        RowKey::Vip(key) => lb::delete_vip(w, key),
        RowKey::Service(key) => lb::delete_service(w, key),
        RowKey::Rules(digest) => policy::delete_rules(w, *digest),
        RowKey::PeerRules(digest, class) => policy::delete_peer_rules(w, *digest, *class),
        RowKey::PortRules(digest, protocol, port) => policy::delete_port_rules(w, *digest, *protocol, *port),
        RowKey::Peer(prefix) => policy::delete_peer(w, *prefix),
        RowKey::PortPolicy(port) => policy::delete_port_policy(w, port),
        RowKey::End(vrf, dst, encap, vni) => tunnel::delete_end(w, vrf, *dst, (*encap, *vni)),
        RowKey::EndAny(vrf, dst, encap) => tunnel::delete_end_any(w, vrf, *dst, *encap),
        RowKey::PortVlan(port, vlan) => l2::delete_vlan(w, port, *vlan),
        RowKey::PortMac(port, mac) => l2::delete_guard_mac(w, port, *mac, set),
        RowKey::Port(name) => l2::delete_port(w, name),
    }
}

/// Family and address as the tables have them.
pub(crate) fn addr_of(addr: IpAddr) -> (u8, Addr) {
    match addr {
        IpAddr::V4(v4) => (family::V4, Addr::v4(v4.octets())),
        IpAddr::V6(v6) => (family::V6, Addr::v6(v6.octets())),
    }
}

/// The number of a set of addresses.
fn set_of(w: &mut Writer, set: &SetRef) -> Written<u32> {
    w.number(|names| &mut names.sets, set)
}

/// Key of a prefix in a set.
fn member(set: u32, prefix: IpPrefix) -> Member {
    let (family, addr) = addr_of(prefix.addr());
    Member { bits: FIXED_BITS + u32::from(prefix.len()), set, family: family.into(), addr }
}

fn put_member(w: &mut Writer, set: &SetRef, prefix: IpPrefix) -> Written {
    let set = set_of(w, set)?;
    Ok(w.put(SETS, &member(set, prefix), &1)?)
}

fn delete_member(w: &mut Writer, of: &SetRef, prefix: IpPrefix, set: SetNumber) -> Written {
    match set.or_else(|| w.names.sets.number(of)) {
        Some(set) => Ok(w.unset(SETS, &member(set, prefix))?),
        None => Ok(()),
    }
}

/// A link as the tables have it.
fn link(w: &mut Writer, on: &LinkRef) -> Written<Link> {
    Ok(match on {
        LinkRef::Vlan(bridge, vlan) => {
            Link { id: w.number(|names| &mut names.bridges, bridge)? as u16, vlan: *vlan }
        }
        LinkRef::Port(port) => Link { id: w.number(|names| &mut names.ports, port)? as u16, vlan: 0 },
    })
}

/// The number of what may not be named; 0: nothing.
fn optional<T: super::Named>(
    w: &mut Writer,
    space: fn(&mut super::Names) -> &mut super::Space<T>,
    name: Option<&T>,
) -> Written<u32> {
    match name {
        Some(name) => w.number(space, name),
        None => Ok(0),
    }
}
