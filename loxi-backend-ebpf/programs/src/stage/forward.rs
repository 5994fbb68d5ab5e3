//! Stage 10: route what is for our MAC, bridge the rest.
//!
//! A way that makes copies, and a next hop that must be asked for, are the slow
//! path's. What rests on something learned is marked, so that no flow keeps it
//! for longer than about a second.

use crate::atomic;
use crate::ctx::Ctx;
use crate::life::{cold_of, has_room, keep};
use crate::maps::{
    BRIDGES, ENDPOINTS, GLOBALS, GROUPS, INTERFACES, LOCAL_ADDRS, NEIGHBORS, NEXT_HOPS, PATH_MTUS, ROUTES,
    STATION_COUNT, STATIONS, TUNNELS, VRFS,
};
use crate::parse::Step;
use crate::stage::service::hash_of;
use crate::stage::{SECOND, answered, go, is_group, is_link_local, packet, port_of, tick, unclaimed, width};
use crate::table::{Family, V4, V6, at};
use loxi_ebpf_layout::code::{drop, program, punt};
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::flow::{Cold, translation};
use loxi_ebpf_layout::l2::{Link, Port, Station, StationAt, bridge, exit, kind, port};
use loxi_ebpf_layout::l3::{
    FIXED_BITS, Group, Interface, NeighborKey, NextHop, Route, TO_GROUP, VrfAddr, hop, interface, neighbor,
};
use loxi_ebpf_layout::limits::{GROUP_MEMBERS, LEARNED_STATIONS};
use loxi_ebpf_layout::scratch::{Packet, flag, l4, tracking, way};
use loxi_ebpf_layout::tunnel::{EndpointKey, Tunnel, outer_mtu};
use loxi_ebpf_layout::{Addr, family};

/// Where to.
#[inline(always)]
pub fn forward<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = stages(p);
    let result = if C::XDP && result.is_ok() && !reaches(p) {
        if tc_follows() {
            // Nothing has been counted yet: TC begins anew.
            crate::finish::give_back(p);
            return C::PASS;
        }
        Err(drop::UNSUPPORTED)
    } else {
        result
    };
    go(ctx, p, program::FORWARD, result)
}

/// Whether a program at TC gets what XDP leaves.
#[inline(always)]
pub fn tc_follows() -> bool {
    crate::ctx::globals().is_some_and(|globals| globals.xdp_only == 0)
}

/// Whether XDP may send by the port of the way. Whoever asks wants to know what would be sent.
#[inline(always)]
fn reaches(p: &Packet) -> bool {
    p.flags & flag::ASKED != 0 || port_of(p.out_port).is_some_and(|port| port.exit & exit::XDP != 0)
}

#[inline(always)]
fn stages(p: &mut Packet) -> Step<u32> {
    p.stages |= 1 << 10;
    let Some(port) = port_of(p.port) else { return Err(drop::PORT_DOWN) };
    learn(p, port);
    if p.flags & flag::TO_US == 0 {
        if p.bridge == 0 {
            // A routed port knows no other stations.
            let foreign = p.family == 0 && p.kind != l4::ARP;
            return Err(unclaimed(port, if foreign { drop::UNSUPPORTED_L2 } else { drop::WRONG_MAC }));
        }
        bridged(p, port)?;
    } else if p.family == 0 {
        return Err(unclaimed(port, drop::NO_L3));
    } else {
        routed(p, port)?;
    }
    if p.way == way::TUNNEL {
        under_tunnel(p)?;
    } else if p.way == way::IPIP {
        under_ipip(p)?;
    }
    Ok(program::SNAT)
}

/// Remembers where the source is.
#[inline(always)]
pub fn learn(p: &Packet, ingress: &Port) {
    if ingress.flags & port::LEARN == 0 || p.flags & flag::DRY != 0 {
        return;
    }
    let number = p.bridge as u32;
    let Some(config) = BRIDGES.get(&number).map(loxi_ebpf_layout::pair::Pair::current) else { return };
    let key = Station { link: Link { id: p.bridge, vlan: p.vlan }, mac: p.smac, reserved: 0 };
    let new = StationAt { port: p.port, tunnel: p.back, fixed: 0, expires: p.now + config.ageing };
    let Some(known) = STATIONS.ptr(&key) else {
        let Some(count) = STATION_COUNT.ptr(&number) else { return };
        // SAFETY: a word of an array, read at once.
        let few = (unsafe { count.read_volatile() } as i64) < config.max_stations as i64;
        if few && has_room(kept::STATIONS, LEARNED_STATIONS) && STATIONS.put(&key, &new, 1) == 0 {
            atomic::add(count, 1);
            keep(kept::STATIONS);
        }
        return;
    };
    // SAFETY: words of a value that stays while the program runs.
    unsafe {
        if (*known).fixed != 0 {
            return;
        }
        if (*known).port == p.port && (*known).tunnel == p.back {
            (&raw mut (*known).expires).write_volatile(new.expires);
            return;
        }
    }
    // One that was just forgotten is learned by the next packet.
    if STATIONS.put(&key, &new, THERE) == 0 {
        outdate();
    }
}

/// BPF_EXIST: what is counted once must not come back uncounted.
const THERE: u64 = 2;

/// Makes every decision that flows keep stale.
#[inline(always)]
pub fn outdate() {
    if let Some(globals) = GLOBALS.ptr(&0) {
        // SAFETY: a word of an array.
        atomic::add(unsafe { &raw mut (*globals).epoch }, 1);
    }
}

#[inline(always)]
fn bridged(p: &mut Packet, ingress: &Port) -> Step {
    let Some(config) = BRIDGES.get(&(p.bridge as u32)).map(loxi_ebpf_layout::pair::Pair::current) else {
        return Err(drop::WRONG_MAC);
    };
    let [a, b, c, d, e, f] = p.dmac;
    if (a, b, c) == (0x01, 0x80, 0xc2) && (d, e) == (0, 0) && f < 16 {
        return Err(drop::RESERVED_MULTICAST);
    }
    if p.family == 0 && p.kind != l4::ARP && config.flags & bridge::ANY_ETHERTYPE == 0 {
        return Err(unclaimed(ingress, drop::UNSUPPORTED_L2));
    }
    let flood = |bit: u32| if config.flags & bit != 0 { punt::MULTICAST } else { drop::FDB_MISS };
    if p.dmac == [0xff; 6] {
        return Err(flood(bridge::FLOOD_BROADCAST));
    }
    if a & 1 != 0 {
        return Err(flood(bridge::FLOOD_MULTICAST));
    }
    let key = Station { link: Link { id: p.bridge, vlan: p.vlan }, mac: p.dmac, reserved: 0 };
    let Some(station) = station(p, &key) else { return Err(flood(bridge::FLOOD_UNKNOWN)) };
    let Some(egress) = port_of(station.port) else { return Err(flood(bridge::FLOOD_UNKNOWN)) };
    let split = ingress.flags & egress.flags & port::SPLIT != 0 && ingress.split == egress.split;
    if station.port == p.port || split {
        return Err(drop::SPLIT_HORIZON);
    }
    p.ages |= (station.fixed == 0) as u8;
    (p.new_dmac, p.new_smac) = (p.dmac, p.smac);
    if station.tunnel != 0 {
        p.way = way::TUNNEL;
        p.out_tunnel = station.tunnel;
        p.mtu = u16::MAX;
    } else {
        p.way = way::PORT;
        p.out_port = station.port;
        p.subject = station.port;
        // One that is configured no more is closed, not narrow.
        p.mtu = if egress.flags & port::EXISTS == 0 { u16::MAX } else { egress.mtu };
    }
    Ok(())
}

/// A station that hasn't been forgotten.
#[inline(always)]
fn station(p: &Packet, key: &Station) -> Option<StationAt> {
    let station = STATIONS.get(key)?;
    (station.fixed != 0 || station.expires > p.now || !is_attended(p)).then_some(*station)
}

#[inline(always)]
fn routed(p: &mut Packet, ingress: &Port) -> Step {
    if p.vrf == 0 {
        return Err(drop::NO_ROUTE);
    }
    local(p)?;
    if is_group(p.family, &p.new_dst) {
        return Err(unclaimed(ingress, drop::NO_ROUTE));
    }
    if is_link_local(p.family, &p.new_dst) || is_link_local(p.family, &p.new_src) {
        return Err(drop::LINK_LOCAL_ROUTED);
    }
    p.routed = 1;
    let known = p.tracking == tracking::ESTABLISHED || p.tracking == tracking::RELATED;
    if known && p.flags & flag::REPLY != 0 && back(p) {
        return Ok(());
    }
    let mut dst = p.new_dst;
    let mut family = p.family;
    if p.dsr_target != Addr::ZERO && (p.flags & flag::REPLY == 0) {
        if p.translation == translation::DSR_IPIP {
            p.way = way::IPIP;
            return Ok(());
        }
        dst = p.dsr_target;
        family = p.outer_family_or(p.family);
    }
    // A way is chosen by the source as it came: that of a flow's first packet isn't translated yet
    // either. Both ports of an ICMP query are its identifier. ECMP keeps a fragmented packet together:
    // later fragments have no ports, so none counts.
    let whole = p.flags & flag::FRAGMENT == 0;
    let icmp = p.protocol == 1 || p.protocol == 58;
    let dport = if icmp { p.dport } else { p.new_dport };
    let (sport, dport) = if whole { (p.sport, dport) } else { (0, 0) };
    let tuple = Tuple { family, src: p.src, dst, protocol: p.protocol, sport, dport };
    let mut found = NOWHERE;
    resolve(p, p.vrf, &tuple, &mut found)?;
    if found.port != 0 || found.tunnel != 0 {
        return take(p, &found);
    }
    if p.translation == translation::DSR_L2 && p.dsr_target != Addr::ZERO {
        return Err(drop::NO_ROUTE);
    }
    let punts = ingress.flags & port::PUNT != 0;
    Err(if punts { punt::NOT_OURS_UNCLAIMED } else { answered(p, drop::NO_ROUTE) })
}

/// Whether a packet is for an address of an interface that leaves such packets to the host.
#[inline(always)]
pub fn is_hosts(p: &Packet) -> bool {
    let key = VrfAddr { vrf: p.vrf as u32, family: p.family as u32, addr: p.dst };
    let Some(number) = LOCAL_ADDRS.get(&key) else { return false };
    let own = INTERFACES.get(number).map(loxi_ebpf_layout::pair::Pair::current);
    own.is_some_and(|own| own.flags & interface::PUNT != 0)
}

/// Packets for an address of our own.
#[inline(always)]
fn local(p: &Packet) -> Step {
    let key = VrfAddr { vrf: p.vrf as u32, family: p.family as u32, addr: p.new_dst };
    let Some(number) = LOCAL_ADDRS.get(&key) else { return Ok(()) };
    let Some(own) = INTERFACES.get(number).map(loxi_ebpf_layout::pair::Pair::current) else { return Ok(()) };
    if own.flags & interface::PUNT != 0 {
        return Err(punt::NOT_OURS_LOCAL);
    }
    let echo = p.kind == l4::REQUEST && (p.detail == 8 || p.detail == 128);
    if echo && p.flags & flag::FRAGMENT == 0 {
        return Err(punt::ICMP_TO_BUILD);
    }
    Err(if p.kind == l4::TCP { punt::ICMP_TO_BUILD } else { answered(p, drop::NO_SERVICE) })
}

/// A reply leaves where its flow's first packet came in. Whether it does.
#[inline(always)]
fn back(p: &mut Packet) -> bool {
    let cold = if p.family == family::V4 { cold::<V4>(p) } else { cold::<V6>(p) };
    let Some(cold) = cold else { return false };
    let (number, tunnel, mac) = (cold.in_port, cold.in_tunnel, cold.in_mac);
    let Some(egress) = port_of(number) else { return false };
    if egress.flags & port::EXISTS == 0 {
        return false;
    }
    if egress.kind == kind::TUNNEL {
        if tunnel == 0 || tunnel_of(tunnel).is_none_or(|tunnel| tunnel.exists == 0) {
            return false;
        }
        p.way = way::TUNNEL;
        p.out_tunnel = tunnel;
        p.mtu = u16::MAX;
        return true;
    }
    if egress.flags & port::TRUNK != 0 {
        // Of several VLANs the flow doesn't tell which.
        return false;
    }
    let own = egress.interface;
    p.way = way::PORT;
    p.out_port = number;
    p.subject = number;
    (p.out_interface, p.egress) = (own, own);
    p.new_dmac = mac;
    (p.new_smac, p.mtu) = (egress.mac, egress.mtu);
    if own != 0
        && let Some(own) = interface_of(own)
    {
        p.new_smac = own.mac;
        p.mtu = if own.mtu < egress.mtu { own.mtu } else { egress.mtu };
    }
    true
}

#[inline(always)]
fn cold<F: Family>(p: &Packet) -> Option<&'static Cold> {
    let entry = at::<F>(p.place)?;
    // SAFETY: a word of an entry, read at once.
    let word = unsafe { F::rest(entry).read_volatile() };
    cold_of::<F>(word, p.place).map(|(cold, _)| cold)
}

/// A tunnel's attributes.
#[inline(always)]
pub fn tunnel_of(number: u16) -> Option<&'static Tunnel> {
    TUNNELS.get(&(number as u32)).map(loxi_ebpf_layout::pair::Pair::current)
}

/// The attributes by which the tunnel of a packet's way was found.
#[inline(always)]
pub fn tunnel_of_way(p: &Packet) -> Option<&'static Tunnel> {
    TUNNELS.get(&(p.out_tunnel as u32)).map(|pair| pair.half(p.tunnel_half))
}

/// The half of a tunnel that is read, and its number.
#[inline(always)]
pub fn half_of_tunnel(number: u16) -> Option<(&'static Tunnel, u8)> {
    let pair = TUNNELS.get(&(number as u32))?;
    let half = pair.selected();
    Some((pair.half(half), half))
}

/// An interface's attributes.
#[inline(always)]
pub fn interface_of(number: u16) -> Option<&'static Interface> {
    INTERFACES.get(&(number as u32)).map(loxi_ebpf_layout::pair::Pair::current)
}

/// What a route is looked up for.
struct Tuple {
    family: u8,
    src: Addr,
    dst: Addr,
    protocol: u8,
    sport: u16,
    dport: u16,
}

/// Where a route leads.
struct Resolved {
    /// Egress interface; 0: none.
    interface: u16,
    /// Port; 0: none.
    port: u16,
    /// Tunnel; 0: none.
    tunnel: u16,
    /// Whether a tunnel was a next hop, which gives the packet its inner MACs.
    inner: bool,
    /// MACs of the link.
    dmac: [u8; 6],
    smac: [u8; 6],
    /// Largest packet.
    mtu: u16,
    /// Whether it rests on something learned.
    ages: bool,
}

/// Before anything is looked up.
const NOWHERE: Resolved = Resolved {
    interface: 0,
    port: 0,
    tunnel: 0,
    inner: false,
    dmac: [0; 6],
    smac: [0; 6],
    mtu: u16::MAX,
    ages: false,
};

/// Longest prefix, next hop, neighbour, station. No port and no tunnel: no route.
#[inline(always)]
fn resolve(p: &Packet, vrf: u16, tuple: &Tuple, found: &mut Resolved) -> Step {
    let key = Route {
        bits: FIXED_BITS + width(tuple.family),
        vrf: vrf as u32,
        family: tuple.family as u32,
        addr: tuple.dst,
    };
    let Some(target) = ROUTES.get(&key) else { return Ok(()) };
    let place = if *target & TO_GROUP == 0 {
        *target
    } else {
        match GROUPS.get(&(*target & !TO_GROUP)) {
            Some(group) => member(group.current(), tuple),
            None => return Ok(()),
        }
    };
    let Some(next) = NEXT_HOPS.get(&place).map(loxi_ebpf_layout::pair::Pair::current) else { return Ok(()) };
    match next.kind {
        hop::BLACKHOLE => Err(drop::BLACKHOLE),
        hop::HOST => Err(punt::NOT_OURS_ROUTE),
        hop::TUNNEL => {
            found.tunnel = next.via;
            found.inner = true;
            Ok(())
        }
        hop::DIRECT => on_link(p, next, tuple, found),
        _ => Ok(()),
    }
}

/// The place of the next hop to which a group's hash leads.
#[inline(always)]
fn member(group: &Group, tuple: &Tuple) -> u32 {
    let hash =
        hash_of(group.seed, tuple.family, &tuple.src, &tuple.dst, tuple.sport, tuple.dport, tuple.protocol);
    let point = ((hash as u64 * group.total) >> 32) as u32;
    for n in 0..GROUP_MEMBERS as usize {
        if n as u32 >= group.count {
            break;
        }
        if point < group.up_to[n] {
            return group.hops[n];
        }
    }
    0
}

/// The neighbour on an interface's link.
#[inline(always)]
fn on_link(p: &Packet, next: &NextHop, tuple: &Tuple, found: &mut Resolved) -> Step {
    let Some(own) = interface_of(next.via) else { return Err(drop::NEIGHBOR_UNRESOLVED) };
    let (family, addr) =
        if next.family == 0 { (tuple.family as u32, tuple.dst) } else { (next.family, next.gateway) };
    let key = NeighborKey { interface: next.via as u32, family, addr };
    let Some(known) = NEIGHBORS.get(&key) else { return Err(punt::NEIGHBOR) };
    let fixed = known.state == neighbor::FIXED;
    if !fixed {
        let (state, asked, expires) = (known.state, known.asked, known.expires);
        // One that isn't known is asked for; one that is in use is asked for again in time.
        let attended = is_attended(p);
        if state != neighbor::REACHABLE || expires <= p.now && attended {
            return Err(punt::NEIGHBOR);
        }
        if p.now >= asked + neighbor::BELIEVED_S * SECOND && attended {
            refresh(p, &key, asked)?;
        }
    }
    found.ages = !fixed;
    found.interface = next.via;
    (found.dmac, found.smac, found.mtu) = (known.mac, own.mac, own.mtu);
    let mut out = own.link.id;
    if own.flags & interface::ON_BRIDGE != 0 {
        let key = Station { link: own.link, mac: found.dmac, reserved: 0 };
        let Some(station) = station(p, &key) else {
            let floods = BRIDGES
                .get(&(own.link.id as u32))
                .is_some_and(|pair| pair.current().flags & bridge::FLOOD_UNKNOWN != 0);
            return Err(if floods { punt::MULTICAST } else { drop::FDB_MISS });
        };
        found.ages |= station.fixed == 0;
        if station.tunnel != 0 {
            found.tunnel = station.tunnel;
            return Ok(());
        }
        out = station.port;
    }
    found.port = out;
    if let Some(egress) = port_of(out)
        && egress.flags & port::EXISTS != 0
        && egress.mtu < found.mtu
    {
        found.mtu = egress.mtu;
    }
    Ok(())
}

/// A neighbour in use that wasn't heard of for a while: one of its packets goes by the slow path,
/// which asks for it.
#[inline(always)]
fn refresh(p: &Packet, key: &NeighborKey, asked: u64) -> Step {
    if p.flags & flag::ASKED != 0 {
        return Err(punt::NEIGHBOR);
    }
    let Some(known) = NEIGHBORS.ptr(key) else { return Ok(()) };
    // SAFETY: a word of a value that stays while the program runs.
    let first = atomic::replace(unsafe { &raw mut (*known).asked }, asked, p.now);
    if first { Err(punt::NEIGHBOR) } else { Ok(()) }
}

/// Whether somebody finishes what is handed on. While nobody does, what was learned is believed
/// for longer: better an old way than none.
#[inline(always)]
fn is_attended(p: &Packet) -> bool {
    p.flags & flag::ASKED != 0 || crate::ctx::globals().is_some_and(|globals| globals.attended > p.now)
}

#[inline(always)]
fn take(p: &mut Packet, found: &Resolved) -> Step {
    p.ages |= found.ages as u8;
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
    Ok(())
}

/// The link below a tunnel.
#[inline(always)]
fn under_tunnel(p: &mut Packet) -> Step {
    let Some((tunnel, half)) = half_of_tunnel(p.out_tunnel) else { return Err(drop::NO_ROUTE) };
    p.tunnel_half = half;
    let (vrf, family, local, remote) = (tunnel.vrf, tunnel.family, tunnel.local, tunnel.remote);
    let (overhead, port_mtu, endpoint, subject) =
        (tunnel.overhead, tunnel.mtu, tunnel.endpoint, tunnel.in_port);
    let computes = tunnel.flags & loxi_ebpf_layout::tunnel::flag::CHECKSUM != 0;
    if p.routed != 0 && p.new_dmac == [0; 6] {
        (p.new_dmac, p.new_smac) = (tunnel.inner_dst, tunnel.inner_src);
    }
    let link = underlay(p, vrf, family, local, remote)?;
    // The outer checksum covers the inner packet. Before a flow comes into being: the slow path makes it.
    if computes {
        return Err(punt::CHECKSUM);
    }
    let lowered = PATH_MTUS.get(&endpoint).copied().unwrap_or(0);
    let outer = outer_mtu(lowered, tick(p.now), link);
    let room = outer.saturating_sub(overhead);
    let mtu = if room < port_mtu { room } else { port_mtu };
    if mtu < p.mtu {
        p.mtu = mtu;
    }
    p.lowered = (lowered != 0) as u8;
    p.ages |= p.lowered;
    p.subject = subject;
    Ok(())
}

/// The link on which IP in IP to an endpoint leaves.
#[inline(always)]
fn under_ipip(p: &mut Packet) -> Step {
    let target = p.dsr_target;
    let v4 = p.outer_family_or(p.family) == family::V4;
    let Some(vrf) = VRFS.get(&(p.vrf as u32)).map(loxi_ebpf_layout::pair::Pair::current) else {
        return Err(drop::UNSUPPORTED);
    };
    let src = if v4 { Addr([vrf.snat_v4, 0, 0, 0]) } else { vrf.snat_v6 };
    if src == Addr::ZERO {
        return Err(drop::UNSUPPORTED);
    }
    let outer = if v4 { family::V4 } else { family::V6 };
    p.outer_family = outer;
    p.outer_src = src;
    let link = underlay(p, p.vrf, outer, src, target)?;
    let endpoint = ENDPOINTS.get(&EndpointKey { family: outer as u32, addr: target }).copied().unwrap_or(0);
    let lowered = if endpoint == 0 { 0 } else { PATH_MTUS.get(&endpoint).copied().unwrap_or(0) };
    let header = if v4 { 20 } else { 40 };
    p.mtu = outer_mtu(lowered, tick(p.now), link).saturating_sub(header);
    p.lowered = (lowered != 0) as u8;
    p.ages |= p.lowered;
    p.subject = p.out_port;
    Ok(())
}

/// The port and the MACs towards an outer destination; its MTU.
#[inline(always)]
fn underlay(p: &mut Packet, vrf: u16, family: u8, local: Addr, remote: Addr) -> Step<u16> {
    let tuple = Tuple { family, src: local, dst: remote, protocol: 0, sport: 0, dport: 0 };
    let mut found = NOWHERE;
    if let Err(fate) = resolve(p, vrf, &tuple, &mut found) {
        // An endpoint whose port isn't known is no way.
        return Err(if fate == punt::MULTICAST { drop::NEIGHBOR_UNRESOLVED } else { fate });
    }
    if found.tunnel != 0 {
        return Err(drop::NEIGHBOR_UNRESOLVED);
    }
    if found.port == 0 {
        return Err(drop::NO_ROUTE);
    }
    p.ages |= found.ages as u8;
    p.out_port = found.port;
    p.out_interface = found.interface;
    (p.outer_dmac, p.outer_smac) = (found.dmac, found.smac);
    Ok(found.mtu)
}
