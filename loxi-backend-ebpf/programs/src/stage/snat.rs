//! Stages 11 and 12: TTL, then MTU; the source of a new flow.

use crate::ctx::{Ctx, read};
use crate::maps::{NAT_POOL, PORT_POLICY, VRFS};
use crate::parse::Step;
use crate::stage::conntrack::key_of;
use crate::stage::forward::interface_of;
use crate::stage::service::{address_hash, mapped, matches, rule_of};
use crate::stage::{answered, bounds, choose, go, is_link_protocol, packet};
use crate::table::{Family, Key, V4, V6, taken_apart, work};
use loxi_ebpf_layout::code::{drop, program, punt};
use loxi_ebpf_layout::flow::rest;
use loxi_ebpf_layout::l3::{NatRule, Vrf, interface, nat};
use loxi_ebpf_layout::limits::{NAT_RULES as MOST_RULES, PORT_TRIES};
use loxi_ebpf_layout::scratch::{Packet, choice, flag, l4, tracking};
use loxi_ebpf_layout::{Addr, family};

/// Lowest port that a translation gives by itself.
const UNPRIVILEGED: u16 = 1024;

/// TTL, MTU, source.
#[inline(always)]
pub fn snat<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = stages(ctx, p);
    go(ctx, p, program::SNAT, result)
}

#[inline(always)]
fn stages<C: Ctx>(ctx: C, p: &mut Packet) -> Step<u32> {
    fits(ctx, p)?;
    if p.tracking == tracking::NEW {
        p.stages |= 1 << 12;
        if p.family == family::V4 { source::<V4>(p)? } else { source::<V6>(p)? }
    }
    // SCTP's checksum covers the whole packet.
    if p.protocol == 132
        && (p.sport, p.dport) != (p.new_sport, p.new_dport)
        && p.tracking != tracking::RELATED
    {
        return Err(punt::CHECKSUM);
    }
    let applies = p.tracking == tracking::NEW || p.tracking == tracking::UNTRACKED && !is_link_protocol(p);
    let guarded = PORT_POLICY.get(&(p.subject as u32)).is_some_and(|policy| policy.groups >> 32 != 0);
    Ok(if applies && guarded && p.family != 0 { program::INGRESS_POLICY } else { program::COMMIT })
}

/// Stage 11.
#[inline(always)]
fn fits<C: Ctx>(ctx: C, p: &mut Packet) -> Step {
    if p.family == 0 {
        let len = p.end.saturating_sub(p.l3 as u32);
        return if len > p.mtu as u32 { Err(drop::MTU) } else { Ok(()) };
    }
    p.stages |= 1 << 11;
    if p.routed != 0 && p.ttl <= 1 {
        return Err(answered(p, drop::TTL));
    }
    if size(ctx, p) <= p.mtu as u32 {
        return Ok(());
    }
    if p.routed == 0 {
        return Err(drop::MTU);
    }
    Err(if p.flags & flag::DF == 0 { punt::FRAGMENTATION } else { answered(p, drop::MTU) })
}

/// Length of the IP packet, or of the largest that it will be cut into by whoever sends it.
#[inline(always)]
pub fn size<C: Ctx>(ctx: C, p: &Packet) -> u32 {
    let segment = ctx.segment();
    if segment == 0 {
        return p.ip_len;
    }
    let header = if p.kind == l4::TCP {
        read::<C, u8>(ctx, p.l4 as usize + 12).map_or(20, |offset| (offset >> 4) as u32 * 4)
    } else {
        8
    };
    (p.l4 - p.l3) as u32 + header + segment
}

/// What becomes of a source.
#[derive(Clone, Copy)]
struct Source {
    addr: Addr,
    first: u16,
    last: u16,
    hairpin: bool,
    fixed: bool,
}

/// Stage 12.
#[inline(always)]
fn source<F: Family>(p: &mut Packet) -> Step {
    let unchanged =
        Source { addr: p.new_src, first: UNPRIVILEGED, last: u16::MAX, hairpin: false, fixed: false };
    let source = match decide(p)? {
        Some(source) => source,
        // Two flows may come to the same tuple by their destinations' translation alone.
        None => unchanged,
    };
    let sport = unique::<F>(p, &source)?;
    let paired = p.protocol == 1 || p.protocol == 58;
    if source.addr == p.new_src && sport == p.new_sport {
        return Ok(());
    }
    p.new_src = source.addr;
    p.new_sport = sport;
    if paired {
        p.new_dport = sport;
    }
    p.hairpin = source.hairpin as u8;
    p.flags |= flag::NAT;
    Ok(())
}

#[inline(always)]
fn vrf_of(p: &Packet) -> Option<&'static Vrf> {
    VRFS.get(&(p.vrf as u32)).map(loxi_ebpf_layout::pair::Pair::current)
}

/// The VRF's own source address.
#[inline(always)]
fn snat_address(vrf: &Vrf, family: u8) -> Option<Addr> {
    let addr = if family == family::V4 { Addr([vrf.snat_v4, 0, 0, 0]) } else { vrf.snat_v6 };
    (addr != Addr::ZERO).then_some(addr)
}

/// An interface's first address of a family.
#[inline(always)]
fn own_address(number: u16, family: u8) -> Option<Addr> {
    if number == 0 {
        return None;
    }
    let own = interface_of(number)?;
    if family == family::V4 {
        (own.flags & interface::V4 != 0).then_some(Addr([own.v4, 0, 0, 0]))
    } else {
        (own.flags & interface::V6 != 0).then_some(own.v6)
    }
}

#[inline(always)]
fn decide(p: &Packet) -> Step<Option<Source>> {
    if p.vrf == 0 || p.routed == 0 {
        return Ok(None);
    }
    let Some(vrf) = vrf_of(p) else { return Ok(None) };
    let any = |addr| Source { addr, first: UNPRIVILEGED, last: u16::MAX, hairpin: false, fixed: false };
    let moved = p.new_dst != p.dst || p.new_dport != p.dport;
    if moved && p.subject == p.port {
        let own = own_address(p.interface, p.family);
        let own = if own.is_some() { own } else { snat_address(vrf, p.family) };
        return Ok(own.map(|addr| Source { hairpin: true, ..any(addr) }));
    }
    if p.full_nat != 0 {
        return match snat_address(vrf, p.family) {
            Some(addr) => Ok(Some(any(addr))),
            None => Err(drop::UNSUPPORTED),
        };
    }
    if vrf.nat_count == 0 {
        return Ok(None);
    }
    let found = nat_source(vrf.nat_base, vrf.nat_count);
    if found == 0 {
        return Ok(None);
    }
    let Some(work) = work() else { return Ok(None) };
    let (first, last) = (found as u16, (found >> 16) as u16);
    let fixed = found & FIXED != 0;
    Ok(Some(Source { addr: work.key.src, first, last, hairpin: false, fixed }))
}

/// Set in what [`nat_source`] returns where there is a source.
const SOURCE: u64 = 1 << 32;
/// Set where the port must stay.
const FIXED: u64 = 1 << 33;

/// Looked at by the verifier once: the source that a VRF's rules give the packet, left in the
/// work's key, with the lowest and highest port; 0: they leave it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_source(base: u32, count: u32) -> u64 {
    let (Some(p), Some(work)) = (packet(), work()) else { return 0 };
    let egress = if p.egress == 0 { u32::MAX } else { p.egress as u32 };
    for n in 0..MOST_RULES {
        if n >= count {
            break;
        }
        let Some(rule) = rule_of(base + n) else { break };
        if !matches(rule, p.family, &p.new_src, &p.new_dst, p.protocol, p.new_dport, egress) {
            continue;
        }
        if rule.action == nat::NO_NAT {
            return 0;
        }
        if let Some(source) = by_rule(p, rule) {
            work.key.src = source.addr;
            let fixed = if source.fixed { FIXED } else { 0 };
            return SOURCE | fixed | (source.last as u64) << 16 | source.first as u64;
        }
    }
    0
}

/// What a matching rule does; `None`: the search goes on.
#[inline(always)]
fn by_rule(p: &Packet, rule: &NatRule) -> Option<Source> {
    let of = |addr| Source { addr, first: rule.low, last: rule.high, hairpin: false, fixed: false };
    match rule.action {
        nat::SNAT => {
            let v4 = p.family == family::V4;
            let count = if v4 { rule.pool_v4 } else { rule.pool_v6 };
            if count == 0 {
                return None;
            }
            let index = address_hash(0, p.family, &p.new_src) % count;
            let base = if v4 { rule.pool } else { rule.pool + rule.pool_v4 };
            NAT_POOL.get(&(base + index)).map(|addr| of(*addr))
        }
        nat::MASQUERADE => own_address(p.egress, p.family).map(of),
        nat::ONE_TO_ONE if rule.family == p.family as u32 => {
            let addr = mapped(&p.new_src, &rule.inside, &rule.outside, rule.length)?;
            Some(Source { addr, first: 0, last: u16::MAX, hairpin: false, fixed: true })
        }
        _ => None,
    }
}

/// A source port (network order) with which the reply's tuple is unique.
#[inline(always)]
fn unique<F: Family>(p: &mut Packet, source: &Source) -> Step<u16> {
    let own = key_of(p);
    let paired = p.protocol == 1 || p.protocol == 58;
    let with = |p: &Packet, port: u16| {
        let dport = if paired { port } else { p.new_dport };
        // Reversed: what the replies have.
        Key { src: p.new_dst, dst: source.addr, rest: rest::key(dport, port, p.protocol, p.zone) }
    };
    let free = |key: &Key| {
        let same = key.src == own.src && key.dst == own.dst && key.rest == own.rest & rest::KEY;
        !taken_apart::<F>(key) && (!same || own.is_own_reverse())
    };
    // The tuple as it is: of ICMP the identifier counts once.
    let plain = Key {
        src: p.new_dst,
        dst: source.addr,
        rest: rest::key(p.new_dport, p.new_sport, p.protocol, p.zone),
    };
    if free(&plain) {
        return Ok(p.new_sport);
    }
    let has_ports = matches!(p.protocol, 6 | 17 | 132);
    if source.fixed || !(has_ports || paired) {
        return Err(drop::PORTS_EXHAUSTED);
    }
    let (first, last) = if paired { (0, u16::MAX) } else { (source.first, source.last) };
    let count = last as u32 - first as u32 + 1;
    let wanted = u16::from_be(p.new_sport);
    // The search starts behind the port itself, or at the range's start, and goes round once.
    let start = if wanted >= first && wanted <= last { wanted as u32 - first as u32 + 1 } else { 0 };
    if let Some(work) = work() {
        work.key = plain;
    }
    let found = F::free_port_apart(start, first as u32, count);
    if found > u16::MAX as u32 {
        return Err(if count > PORT_TRIES { punt::FIRST_PACKET } else { drop::PORTS_EXHAUSTED });
    }
    let preferred = found as u16;
    let kind = if source.hairpin { choice::HAIRPIN_PORT } else { choice::SNAT_PORT };
    let value = choose(p, kind, first as u64, last as u64, preferred as u64, preferred as u64) as u16;
    bounds(p, first, last, preferred);
    // A choice whose tuple is taken is not admissible.
    if value != preferred && free(&with(p, value.to_be())) {
        return Ok(value.to_be());
    }
    Ok(preferred.to_be())
}

/// The first port from `start` on, going round once in `count` ports from `first`, with
/// which the work's key (that of replies) is nobody's; above 65535: none of those tried.
#[inline(always)]
pub fn free_port<F: Family>(start: u32, first: u32, count: u32) -> u32 {
    let (Some(p), Some(work)) = (packet(), work()) else { return u32::MAX };
    let own = key_of(p);
    let paired = p.protocol == 1 || p.protocol == 58;
    let reply = work.key;
    for n in 0..PORT_TRIES {
        if n >= count {
            break;
        }
        let mut at = start + n;
        if at >= count {
            at -= count;
        }
        let port = (first + at) as u16;
        let dport = if paired { port.to_be() } else { rest::sport(reply.rest) };
        work.key.rest = rest::key(dport, port.to_be(), p.protocol, p.zone);
        if F::taken_apart() != 0 {
            continue;
        }
        let same = reply.src == own.src && reply.dst == own.dst && work.key.rest == own.rest & rest::KEY;
        if !same || own.is_own_reverse() {
            return port as u32;
        }
    }
    u32::MAX
}
