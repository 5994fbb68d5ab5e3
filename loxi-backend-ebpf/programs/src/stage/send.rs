//! Stage 16: rewrite, encapsulate, send. Only here is the frame changed.

use crate::ctx::{Ctx, Grow, UNTAGGED, globals, read, write};
use crate::fast::difference;
use crate::finish::{count, count_sent, open, tell_asker};
use crate::maps::PORT_VLANS;
use crate::parse::{ETH, LESS_HOP, Step, add32, ethertype, fold, older};
use crate::stage::forward::{interface_of, tunnel_of_way};
use crate::stage::service::hash_of;
use crate::stage::{answer, choose, go, packet, port_of};
use loxi_ebpf_layout::code::{self, drop, program};
use loxi_ebpf_layout::l2::{Port, PortVlan, carried, exit, port};
use loxi_ebpf_layout::l3::interface;
use loxi_ebpf_layout::scratch::{Packet, choice, flag, l4, tracking, way};
use loxi_ebpf_layout::tunnel::{self, Tunnel};
use loxi_ebpf_layout::{Addr, family};

/// Rewrites the packet, and sends it unless it is to be encapsulated.
#[inline(always)]
pub fn send<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    p.stages |= 1 << 16;
    let ready = is_open(p);
    if let Err(fate) = ready {
        return go(ctx, p, program::SEND, Err(fate));
    }
    if !rewritten(ctx, p) {
        return go(ctx, p, program::SEND, Err(drop::TUNNEL_NO_HEADROOM));
    }
    if p.way != way::PORT {
        ctx.jump(program::ENCAPSULATE);
        return C::DROP;
    }
    let Some(egress) = port_of(p.out_port) else { return C::DROP };
    let tag = tag_for(p, egress);
    leave(ctx, p, egress, tag, 0)
}

/// Whether the ports of the way are open.
#[inline(always)]
fn is_open(p: &Packet) -> Step {
    if p.way == way::TUNNEL {
        let Some(tunnel) = tunnel_of_way(p) else { return Err(drop::EGRESS_DOWN) };
        if open(tunnel.in_port).is_none() {
            return Err(drop::EGRESS_DOWN);
        }
    }
    if open(p.out_port).is_none() { Err(drop::EGRESS_DOWN) } else { Ok(()) }
}

/// The tag with which the packet leaves a port of a bridge: of the VLAN of the interface by which it is routed, or
/// of the one it came in.
#[inline(always)]
fn tag_for(p: &Packet, egress: &Port) -> u16 {
    if egress.flags & port::TRUNK == 0 {
        return UNTAGGED;
    }
    let vlan = if p.routed == 0 {
        p.vlan
    } else {
        match interface_of(p.out_interface) {
            Some(own) if own.flags & interface::ON_BRIDGE != 0 => own.link.vlan,
            _ => return UNTAGGED,
        }
    };
    let how = PORT_VLANS.get(&PortVlan { port: p.out_port, vlan }).copied().unwrap_or(0);
    if how == 0 || how & carried::NATIVE != 0 {
        return UNTAGGED;
    }
    let priority = if p.tag == UNTAGGED { 0 } else { p.tag & 0xe000 };
    priority | vlan
}

/// Everything that happens to the packet itself.
#[inline(always)]
fn rewritten<C: Ctx>(ctx: C, p: &mut Packet) -> bool {
    let strip = (p.l3 as u32).wrapping_sub(ETH as u32) & 0xff;
    if p.ended != 0 {
        if !ctx.shrink(strip, p.family) {
            return false;
        }
    } else if p.tag != UNTAGGED && !ctx.untag() {
        return false;
    }
    p.end = p.end.wrapping_sub(strip);
    p.l4 = p.l4.wrapping_sub(strip as u16);
    p.l3 = ETH as u16;
    if p.tag != UNTAGGED && p.ended == 0 && strip == 0 {
        // It was beside the frame, so no byte of it has moved.
        p.l3 = ETH as u16;
    }
    let wanted = if p.routed != 0 { ETH as u32 + p.ip_len } else { p.end };
    if ctx.len() > wanted && !ctx.resize(wanted) {
        return false;
    }
    if p.flags & flag::ECN != 0 && !congestion(ctx, p) {
        return false;
    }
    let changed = p.tracking == tracking::NEW || p.tracking == tracking::ESTABLISHED;
    if p.flags & flag::NAT != 0 && changed && !translate(ctx, p) {
        return false;
    }
    if p.routed != 0 && !hop(ctx, p) {
        return false;
    }
    if p.routed != 0 || p.ended != 0 {
        return write(ctx, 0, [p.new_dmac, p.new_smac]) && write(ctx, 12, p.ethertype);
    }
    true
}

/// One hop less.
#[inline(always)]
fn hop<C: Ctx>(ctx: C, p: &Packet) -> bool {
    if p.family == family::V4 {
        match read::<C, u32>(ctx, ETH + 8) {
            Some(word) => write(ctx, ETH + 8, older(word)),
            None => false,
        }
    } else {
        whole_sum(ctx, p, LESS_HOP);
        write(ctx, ETH + 7, p.ttl.wrapping_sub(1))
    }
}

/// Tells the checksum that a device took of all of a frame that the packet has changed by a difference. Of IPv4
/// there is none: its header makes up for what changes in it.
#[inline(always)]
fn whole_sum<C: Ctx>(ctx: C, p: &Packet, difference: u32) {
    if port_of(p.outer_port).is_some_and(|port| port.exit & exit::SUMS != 0) {
        ctx.whole_sum(difference);
    }
}

/// The congestion field that the outer packet's left.
#[inline(always)]
fn congestion<C: Ctx>(ctx: C, p: &Packet) -> bool {
    let Some(word) = read::<C, u32>(ctx, ETH) else { return false };
    if p.family == family::V4 {
        // TOS is the second byte; the header's checksum follows it.
        let new = word & 0xffff_00ff | (p.tos as u32) << 8;
        let Some(check) = read::<C, u16>(ctx, ETH + 10) else { return false };
        let sum = (!check) as u64 + (!word & 0xffff) as u64 + (new & 0xffff) as u64;
        write(ctx, ETH, new) && write(ctx, ETH + 10, !fold(sum))
    } else {
        let new = (u32::from_be(word) & 0xf00f_ffff | (p.tos as u32) << 20).to_be();
        whole_sum(ctx, p, add32(!word, new));
        write(ctx, ETH, new)
    }
}

/// Gives the packet its new addresses and ports.
#[inline(always)]
fn translate<C: Ctx>(ctx: C, p: &Packet) -> bool {
    let v4 = p.family == family::V4;
    let words = if v4 { 1 } else { 4 };
    let addrs = add32(difference(&p.src, &p.new_src, words), difference(&p.dst, &p.new_dst, words));
    let moved = p.src != p.new_src || p.dst != p.new_dst;
    let l4 = p.l4 as usize;
    let id = p.protocol == 1 || p.protocol == 58;
    let query = p.kind == l4::REQUEST || p.kind == l4::REPLY;
    let has_ports = matches!(p.kind, l4::TCP | l4::UDP | l4::SCTP);
    let first = p.kind != l4::LATER;
    if first {
        let old = p.sport as u32 | (p.dport as u32) << 16;
        let new = p.new_sport as u32 | (p.new_dport as u32) << 16;
        let ports = if old == new || !(query || has_ports) {
            0
        } else if id {
            (!old & 0xffff) + (new & 0xffff)
        } else {
            add32(!old, new)
        };
        let field = match p.protocol {
            6 => 16,
            17 => 6,
            1 | 58 => 2,
            _ => 0,
        };
        // ICMP for IPv4 has no pseudo header.
        let pseudo = if p.protocol == 1 || !moved { 0 } else { addrs };
        if field != 0 && !ctx.checksum((l4 + field) as u32, pseudo, ports, p.protocol == 17) {
            return false;
        }
        if query && !write(ctx, l4 + 4, p.new_sport) {
            return false;
        }
        if has_ports && !write(ctx, l4, new) {
            return false;
        }
    }
    if !moved {
        return true;
    }
    if v4 {
        let Some(check) = read::<C, u16>(ctx, ETH + 10) else { return false };
        let sum = (!check) as u64 + addrs as u64;
        write(ctx, ETH + 10, !fold(sum)) && write(ctx, ETH + 12, [p.new_src.0[0], p.new_dst.0[0]])
    } else {
        whole_sum(ctx, p, addrs);
        write(ctx, ETH + 8, [p.new_src.0, p.new_dst.0])
    }
}

/// Counts the packet and lets it go.
#[inline(always)]
fn leave<C: Ctx>(ctx: C, p: &mut Packet, egress: &Port, tag: u16, out_tunnel: u16) -> i32 {
    let Some(globals) = globals() else { return C::DROP };
    p.fate = code::FORWARDED;
    count(p, code::FORWARDED);
    count_sent(p, p.out_port, ctx.len() + if tag == UNTAGGED { 0 } else { 4 });
    if p.flags & flag::ASKED != 0 {
        p.by = program::SEND as u8;
        tell_asker(p);
        if let Some(answer) = answer() {
            (answer.sent, answer.out_port, answer.tag) = (1, p.out_port, tag);
            answer.out_tunnel = out_tunnel;
        }
        return C::DROP;
    }
    if tag != UNTAGGED && !ctx.push_tag(tag) {
        return C::DROP;
    }
    ctx.send(p.out_port, egress, p.side, globals)
}

/// Puts the outer headers of a tunnel, or of IP in IP, before the packet.
#[inline(always)]
pub fn encapsulate<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let Some(egress) = port_of(p.out_port) else { return C::DROP };
    let (done, subject) = if p.way == way::IPIP {
        (ip_in_ip(ctx, p), 0)
    } else {
        let Some(tunnel) = tunnel_of_way(p) else { return C::DROP };
        let inner = ctx.len();
        let subject = tunnel.in_port;
        let done = if tunnel.kind == tunnel::kind::VXLAN {
            vxlan(ctx, p, tunnel)
        } else {
            by_tunnel(ctx, p, tunnel)
        };
        if done {
            count_sent(p, subject, inner);
        }
        (done, subject)
    };
    if !done {
        return go(ctx, p, program::ENCAPSULATE, Err(drop::TUNNEL_NO_HEADROOM));
    }
    leave(ctx, p, egress, UNTAGGED, subject)
}

/// Fields of an outer IP header.
#[derive(Clone, Copy)]
struct Outer {
    v6: bool,
    src: Addr,
    dst: Addr,
    protocol: u8,
    ttl: u8,
    tos: u8,
    df: bool,
    /// Bytes that follow the header.
    payload: u32,
}

/// Writes an outer Ethernet and IP header.
#[inline(always)]
fn outer_header<C: Ctx>(ctx: C, p: &mut Packet, o: &Outer) -> bool {
    let macs = write(ctx, 0, [p.outer_dmac, p.outer_smac]);
    if o.v6 {
        let head = [
            (0x6000_0000 | (o.tos as u32) << 20).to_be(),
            ((o.payload & 0xffff) << 16 | (o.protocol as u32) << 8 | o.ttl as u32).to_be(),
        ];
        return macs
            && write(ctx, 12, ethertype::IPV6)
            && write(ctx, ETH, head)
            && write(ctx, ETH + 8, [o.src.0, o.dst.0]);
    }
    // What may not be fragmented needs no identification (RFC 6864 section 4.1).
    let id = if o.df {
        0
    } else {
        let random = (p.random >> 16) as u64;
        choose(p, choice::IDENTIFICATION, 0, 0xffff, 0, random) as u32
    };
    let length = (20 + o.payload) & 0xffff;
    let flags = if o.df { 0x4000 } else { 0 };
    let mut words = [
        (0x4500_0000 | (o.tos as u32) << 16 | length).to_be(),
        (id << 16 | flags).to_be(),
        ((o.ttl as u32) << 24 | (o.protocol as u32) << 16).to_be(),
        o.src.0[0],
        o.dst.0[0],
    ];
    let sum = words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64 + words[4] as u64;
    words[2] |= (!fold(sum) as u32) << 16;
    macs && write(ctx, 12, ethertype::IPV4) && write(ctx, ETH, words)
}

/// Protocol number of the inner packet in IP in IP.
#[inline(always)]
fn inner_protocol(p: &Packet) -> u8 {
    if p.family == family::V4 { 4 } else { 41 }
}

#[inline(always)]
fn ip_in_ip<C: Ctx>(ctx: C, p: &mut Packet) -> bool {
    let v6 = p.outer_family == family::V6;
    let outer = Outer {
        v6,
        src: p.outer_src,
        dst: p.dsr_target,
        protocol: inner_protocol(p),
        ttl: 64,
        tos: p.tos,
        df: true,
        payload: ctx.len() - ETH as u32,
    };
    let grow = Grow { v6, vxlan: false, inner: p.family };
    ctx.grow(if v6 { 40 } else { 20 }, grow) && outer_header(ctx, p, &outer)
}

/// TTL, TOS and DF of a tunnel's outer header.
#[inline(always)]
fn outer_of(p: &Packet, tunnel: &Tunnel, protocol: u8, payload: u32) -> Outer {
    let ip = p.family != 0;
    let tos = if ip { p.tos } else { 0 };
    let dscp = if tunnel.flags & tunnel::flag::DSCP_INHERIT != 0 { tos & 0xfc } else { tunnel.tos };
    let now = if p.routed != 0 { p.ttl.wrapping_sub(1) } else { p.ttl };
    let ttl = if tunnel.flags & tunnel::flag::TTL_INHERIT == 0 {
        tunnel.ttl
    } else if ip {
        now
    } else {
        64
    };
    let inherits = tunnel.flags & tunnel::flag::DF_INHERIT != 0 && ip && p.flags & flag::DF != 0;
    Outer {
        v6: tunnel.family == family::V6,
        src: tunnel.local,
        dst: tunnel.remote,
        protocol,
        ttl,
        tos: dscp | tos & 3,
        df: tunnel.flags & tunnel::flag::DF != 0 || inherits,
        payload,
    }
}

#[inline(always)]
fn by_tunnel<C: Ctx>(ctx: C, p: &mut Packet, tunnel: &Tunnel) -> bool {
    let outer = outer_of(p, tunnel, inner_protocol(p), ctx.len() - ETH as u32);
    let grow = Grow { v6: outer.v6, vxlan: false, inner: p.family };
    ctx.grow(if outer.v6 { 40 } else { 20 }, grow) && outer_header(ctx, p, &outer)
}

/// UDP and VXLAN headers.
const VXLAN: usize = 16;

#[inline(always)]
fn vxlan<C: Ctx>(ctx: C, p: &mut Packet, tunnel: &Tunnel) -> bool {
    let (first, last, vni, port) = (tunnel.first, tunnel.last, tunnel.vni, tunnel.port);
    // Never 0, which the compiler can't know.
    let span = (last as u32).wrapping_sub(first as u32).wrapping_add(1).max(1);
    let hashed = first as u64 + (entropy(p) % span) as u64;
    let source = choose(p, choice::ENTROPY, first as u64, last as u64, hashed, hashed) as u16;
    crate::stage::bounds(p, first, last, 0);
    let inner = ctx.len();
    let outer = outer_of(p, tunnel, 17, inner + VXLAN as u32);
    let header = if outer.v6 { 40 } else { 20 };
    let Some(ethernet) = read::<C, [u16; 7]>(ctx, 0) else { return false };
    let grow = Grow { v6: outer.v6, vxlan: true, inner: p.family };
    let grown = (header + VXLAN + ETH) as u32;
    let made = if p.family == 0 { ctx.push(grown) } else { ctx.grow(grown, grow) };
    let at = ETH + header;
    let length = (inner + VXLAN as u32) & 0xffff;
    let udp = [
        source.to_be() as u32 | (port as u32) << 16,
        (length as u16).to_be() as u32,
        0x0800_0000u32.to_be(),
        vni,
    ];
    made && outer_header(ctx, p, &outer) && write(ctx, at, udp) && write(ctx, at + VXLAN, ethernet)
}

/// What the outer source port depends on: the inner flow. Fragments have no ports, so none counts any.
#[inline(always)]
fn entropy(p: &Packet) -> u32 {
    if p.family == 0 {
        let ports = ((p.smac[5] as u16).to_be(), (p.dmac[5] as u16).to_be());
        return hash_of(0, family::V4, &Addr::ZERO, &Addr::ZERO, ports.0, ports.1, 0);
    }
    let whole = p.flags & flag::FRAGMENT == 0;
    let (sport, dport) = if whole { (p.new_sport, p.new_dport) } else { (0, 0) };
    hash_of(0, p.family, &p.new_src, &p.new_dst, sport, dport, p.protocol)
}
