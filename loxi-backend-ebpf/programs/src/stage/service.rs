//! Stages 7 and 8: services, addresses on which they live, destination NAT by rules.

use crate::ctx::Ctx;
use crate::maps::{
    AFFINITY, BACKEND_FLOWS, BACKENDS, HASHES, LISTS, NAT_RULES, SERVICE_RANGES, SERVICES, TURNS, VERSIONS,
    VIPS, VRFS,
};
use crate::parse::Step;
use crate::stage::conntrack::{has_egress_policy, stranger_dropped};
use crate::stage::forward::is_hosts;
use crate::stage::{answer, answered, choose, go, in_set, packet, port_of};
use loxi_ebpf_layout::code::{self, Fate, drop, program, punt};
use loxi_ebpf_layout::flow::translation;
use loxi_ebpf_layout::l2::port;
use loxi_ebpf_layout::l3::{NatRule, VrfAddr, nat, nat_counts};
use loxi_ebpf_layout::lb::{
    AffinityKey, Backend, Choice, RANGE_FIXED_BITS, RangeKey, Service, ServiceKey, algorithm, hash_word,
    mode, scope, vip,
};
use loxi_ebpf_layout::limits::NAT_RULES as MOST_RULES;
use loxi_ebpf_layout::scratch::{Packet, choice, flag, l4, tracking};
use loxi_ebpf_layout::{Addr, family};

/// Services, then NAT rules, for new connections to us.
#[inline(always)]
pub fn service<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = stages(p);
    go(ctx, p, program::SERVICE, result)
}

#[inline(always)]
fn stages(p: &mut Packet) -> Step<u32> {
    let new = p.tracking == tracking::NEW;
    let here = VrfAddr { vrf: p.vrf as u32, family: p.family as u32, addr: p.dst };
    let next = if has_egress_policy(p) { program::EGRESS_POLICY } else { program::FORWARD };
    if let Some((kind, place)) = vip(p, &here) {
        if !new {
            let shared = kind & vip::EXCLUSIVE == 0 && place.is_none();
            return Err(if shared { punt::NOT_OURS_SHARED } else { stranger_dropped(p) });
        }
        p.stages |= 1 << 7;
        if let Some(place) = place {
            let Some(service) = VERSIONS.get(&place) else { return Err(drop::NO_SERVICE) };
            serve(p, service, place)?;
            return Ok(next);
        }
        if kind & vip::EXCLUSIVE == 0 {
            return Err(punt::NOT_OURS_SHARED);
        }
        let asks = p.kind == l4::REQUEST && (p.detail == 8 || p.detail == 128);
        if asks && kind & vip::ECHO != 0 {
            return Err(punt::ICMP_TO_BUILD);
        }
        return Err(if kind & vip::REJECT != 0 { rejected(p, drop::NO_SERVICE) } else { drop::NO_SERVICE });
    }
    if !new {
        return if is_hosts(p) { Ok(next) } else { Err(stranger_dropped(p)) };
    }
    dnat(p);
    Ok(next)
}

/// The address's kind, and the place of the service that claims the packet. Of a shared address only the services are
/// ours, and where the port leaves the rest to the local stack also what becomes of that.
#[inline(always)]
fn vip(p: &Packet, here: &VrfAddr) -> Option<(u32, Option<u32>)> {
    let kind = *VIPS.get(here)?;
    let place = claims(p, kind);
    let punts = || port_of(p.port).is_some_and(|port| port.flags & port::PUNT != 0);
    if kind & vip::EXCLUSIVE != 0 || place.is_some() || punts() { Some((kind, place)) } else { None }
}

/// A drop that is answered: TCP by a reset (but a reset itself), anything else by an ICMP error.
#[inline(always)]
fn rejected(p: &Packet, reason: Fate) -> Fate {
    if p.kind == l4::TCP { punt::ICMP_TO_BUILD } else { answered(p, reason) }
}

/// The place of the service that claims the packet; the most specific scope wins.
#[inline(always)]
fn claims(p: &Packet, kind: u32) -> Option<u32> {
    let external = port_of(p.port).is_some_and(|port| port.flags & port::EXTERNAL != 0);
    let own = if external { scope::EXTERNAL } else { scope::INTERNAL };
    of_scope(p, kind, own).or_else(|| of_scope(p, kind, scope::ANY))
}

#[inline(always)]
fn of_scope(p: &Packet, kind: u32, scope: u16) -> Option<u32> {
    let key =
        ServiceKey { vrf: p.vrf, port: p.dport, family: p.family, protocol: p.protocol, scope, addr: p.dst };
    if let Some(place) = SERVICES.get(&key) {
        let place = *place;
        // A place that was given to another service meanwhile is not this one's.
        if VERSIONS.get(&place).is_some_and(|version| version.key == key) {
            return Some(place);
        }
    }
    if kind & vip::RANGES == 0 {
        return None;
    }
    let key = RangeKey {
        bits: RANGE_FIXED_BITS + 16,
        vrf: p.vrf,
        family: p.family,
        protocol: p.protocol,
        scope: scope as u32,
        addr: p.dst,
        port: p.dport as u32,
    };
    let place = SERVICE_RANGES.get(&key).copied()?;
    let version = VERSIONS.get(&place)?;
    let k = &version.key;
    let same = k.vrf == p.vrf && k.family == p.family && k.protocol == p.protocol && k.addr == p.dst;
    (same && k.scope == scope).then_some(place)
}

#[inline(always)]
fn serve(p: &mut Packet, service: &Service, place: u32) -> Step {
    if service.sources != 0 && !in_set(service.sources, p.family, &p.src) {
        return Err(drop::SOURCE_RANGE);
    }
    if service.refusal != 0 {
        let reason = code::fate(service.refusal);
        return Err(if service.reject != 0 { rejected(p, reason) } else { reason });
    }
    let choice = match remembered(p, service) {
        Some(choice) => choice,
        None => pick(p, service, place).ok_or(drop::NO_BACKEND)?,
    };
    let Some(chosen) = BACKENDS.get(&choice.backend) else { return Err(drop::NO_BACKEND) };
    let chosen = chosen.of_generation(choice.generation);
    p.service = service.id;
    p.backend = choice.backend;
    p.backend_generation = chosen.generation;
    p.affinity = service.affinity;
    match service.mode {
        mode::NAT | mode::FULL_NAT => {
            p.full_nat = (service.mode == mode::FULL_NAT) as u8;
            p.new_dst = chosen.addr;
            if chosen.port != 0 {
                p.new_dport = chosen.port;
            }
            p.flags |= flag::NAT;
        }
        other => {
            p.translation = if other == mode::DSR_IPIP { translation::DSR_IPIP } else { translation::DSR_L2 };
            p.dsr_target = chosen.addr;
            p.outer_family = chosen.family;
        }
    }
    Ok(())
}

/// An endpoint's attributes.
#[inline(always)]
pub fn backend_of(number: u32) -> Option<&'static Backend> {
    BACKENDS.get(&number).map(loxi_ebpf_layout::pair::Pair::current)
}

/// The endpoint that the client had before, while it may be used.
#[inline(always)]
fn remembered(p: &Packet, service: &Service) -> Option<&'static Choice> {
    if service.affinity == 0 {
        return None;
    }
    let key = AffinityKey { service: service.id, family: p.family as u32, client: p.src };
    let entry = AFFINITY.get(&key)?;
    let (backend, generation, expires) = (entry.backend, entry.generation, entry.expires);
    if expires <= p.now {
        return None;
    }
    // It must be among those that may be used now, and still be what it was.
    for n in 0..MOST_SEARCHED {
        if n >= service.count {
            return None;
        }
        let choice = LISTS.get(&(service.list + n))?;
        if choice.backend == backend {
            return (choice.generation == generation).then_some(choice);
        }
    }
    None
}

/// Endpoints among which a remembered one is looked for; beyond them affinity is forgotten.
const MOST_SEARCHED: u32 = 256;

/// Steps of a search that halves: lists are shorter than 2^18.
const HALVINGS: u32 = 18;

#[inline(always)]
fn pick(p: &mut Packet, service: &Service, place: u32) -> Option<&'static Choice> {
    if service.count == 0 {
        return None;
    }
    let index = match service.algorithm {
        algorithm::MAGLEV | algorithm::SOURCE_HASH => {
            if service.size == 0 {
                return None;
            }
            let hash = if service.algorithm == algorithm::MAGLEV {
                flow_hash(0, p, &p.dst, p.sport, p.dport)
            } else {
                address_hash(0, p.family, &p.src)
            };
            let (word, shift) = hash_word(service.table, hash % service.size);
            return by_index(service, (*HASHES.get(&word)? >> shift) as u32 & 0xffff);
        }
        algorithm::ROUND_ROBIN => {
            let turn = if p.flags & flag::DRY != 0 {
                TURNS.get(&service.id).copied()?
            } else {
                let turn = crate::atomic::add(TURNS.ptr(&service.id)?, 1);
                p.flags |= flag::TURN;
                p.service = service.id;
                turn
            };
            let total = if service.total == 0 { 1 } else { service.total as u64 };
            by_weight(service, (turn % total) as u32)?
        }
        algorithm::LEAST_CONNECTIONS => least(service)?,
        _ => u32::MAX,
    };
    let last = service.count as u64 - 1;
    let value = if index == u32::MAX {
        let own = by_weight(service, scaled(p.random, service.total))?;
        choose(p, choice::BACKEND, 0, last, by_weight(service, 0)? as u64, own as u64)
    } else {
        choose(p, choice::BACKEND, 0, last, index as u64, index as u64)
    };
    if p.flags & flag::ASKED != 0
        && let Some(answer) = answer()
    {
        answer.service = place + 1;
        answer.preferred = index;
    }
    by_index(service, value as u32)
}

/// A number below `limit` from 32 random bits.
#[inline(always)]
fn scaled(random: u32, limit: u32) -> u32 {
    ((random as u64 * limit as u64) >> 32) as u32
}

#[inline(always)]
fn by_index(service: &Service, index: u32) -> Option<&'static Choice> {
    if index >= service.count {
        return None;
    }
    LISTS.get(&(service.list + index))
}

/// The first endpoint whose sum of weights is above a point.
#[inline(always)]
fn by_weight(service: &Service, point: u32) -> Option<u32> {
    let (mut low, mut high) = (0, service.count);
    for _ in 0..HALVINGS {
        if low >= high {
            break;
        }
        let middle = (low + high) / 2;
        if LISTS.get(&(service.list + middle))?.up_to > point {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    (low < service.count).then_some(low)
}

/// The endpoint with the fewest flows per weight; of equals the first.
#[inline(always)]
fn least(service: &Service) -> Option<u32> {
    let mut best = 0;
    let (mut best_flows, mut best_weight) = (u64::MAX, 1u64);
    let mut before = 0;
    for n in 0..MOST_SEARCHED {
        if n >= service.count {
            break;
        }
        let choice = LISTS.get(&(service.list + n))?;
        let flows = BACKEND_FLOWS.get(&choice.backend).copied()?;
        let weight = choice.up_to.wrapping_sub(before) as u64;
        before = choice.up_to;
        // a / b < c / d without division; flows are below 2^32.
        if best_flows == u64::MAX || flows * best_weight < best_flows * weight {
            (best, best_flows, best_weight) = (n, flows, weight);
        }
    }
    Some(best)
}

#[inline(always)]
fn mix(hash: u32, word: u32) -> u32 {
    let k = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ k).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[inline(always)]
fn mix_addr(mut hash: u32, family: u8, addr: &Addr) -> u32 {
    hash = mix(hash, u32::from_be(addr.0[0]));
    if family == family::V6 {
        for n in 1..4 {
            hash = mix(hash, u32::from_be(addr.0[n]));
        }
    }
    hash
}

#[inline(always)]
fn finish(mut hash: u32, words: u32) -> u32 {
    hash ^= words * 4;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// The core's hash of a flow: MurmurHash3 x86 32 over addresses, ports, protocol.
#[inline(always)]
pub fn flow_hash(seed: u32, p: &Packet, dst: &Addr, sport: u16, dport: u16) -> u32 {
    hash_of(seed, p.family, &p.src, dst, sport, dport, p.protocol)
}

/// The same of any tuple. Ports in network order.
#[inline(always)]
pub fn hash_of(seed: u32, family: u8, src: &Addr, dst: &Addr, sport: u16, dport: u16, protocol: u8) -> u32 {
    let mut hash = mix_addr(seed, family, src);
    hash = mix_addr(hash, family, dst);
    hash = mix(hash, (u16::from_be(sport) as u32) << 16 | u16::from_be(dport) as u32);
    hash = mix(hash, protocol as u32);
    finish(hash, if family == family::V6 { 10 } else { 4 })
}

/// The core's hash of an address.
#[inline(always)]
pub fn address_hash(seed: u32, family: u8, addr: &Addr) -> u32 {
    finish(mix_addr(seed, family, addr), if family == family::V6 { 4 } else { 1 })
}

/// A NAT rule of a VRF.
#[inline(always)]
pub fn rule_of(place: u32) -> Option<&'static NatRule> {
    NAT_RULES.get(&place)
}

/// Whether a rule is about packets of these addresses that leave by this interface.
#[inline(always)]
pub fn matches(
    rule: &NatRule,
    family: u8,
    src: &Addr,
    dst: &Addr,
    protocol: u8,
    dport: u16,
    egress: u32,
) -> bool {
    let port = u16::from_be(dport);
    (rule.counts & nat_counts::PROTOCOL == 0 || rule.protocol == protocol)
        && (rule.counts & nat_counts::PORTS == 0 || port >= rule.first && port <= rule.last)
        && (rule.egress == 0 || rule.egress == egress)
        && (rule.src == 0 || in_set(rule.src, family, src))
        && (rule.dst == 0 || in_set(rule.dst, family, dst))
}

/// The address at the same offset of another prefix.
#[inline(always)]
pub fn mapped(addr: &Addr, from: &Addr, to: &Addr, length: u32) -> Option<Addr> {
    let mut out = [0u32; 4];
    for n in 0..4 {
        let have = length.saturating_sub(32 * n as u32);
        let mask = if have >= 32 {
            u32::MAX
        } else if have == 0 {
            0
        } else {
            (u32::MAX << (32 - have)).to_be()
        };
        if (addr.0[n] ^ from.0[n]) & mask != 0 {
            return None;
        }
        out[n] = to.0[n] & mask | addr.0[n] & !mask;
    }
    Some(Addr(out))
}

/// Stage 8: the first rule that matches decides.
#[inline(always)]
fn dnat(p: &mut Packet) {
    let Some(vrf) = VRFS.get(&(p.vrf as u32)).map(loxi_ebpf_layout::pair::Pair::current) else { return };
    let (base, count) = (vrf.nat_base, vrf.nat_count);
    if count == 0 {
        return;
    }
    p.stages |= 1 << 8;
    for n in 0..MOST_RULES {
        if n >= count {
            return;
        }
        let Some(rule) = rule_of(base + n) else { return };
        if rule.action != nat::DNAT && rule.action != nat::ONE_TO_ONE {
            continue;
        }
        // A rule without an egress interface only: none is known yet.
        if !matches(rule, p.family, &p.src, &p.dst, p.protocol, p.dport, 0) || rule.egress != 0 {
            continue;
        }
        if rule.action == nat::DNAT {
            p.new_dst = rule.inside;
            if rule.low != 0 {
                p.new_dport = rule.low;
            }
        } else {
            if rule.family != p.family as u32 {
                continue;
            }
            let Some(dst) = mapped(&p.dst, &rule.outside, &rule.inside, rule.length) else { continue };
            p.new_dst = dst;
        }
        p.flags |= flag::NAT;
        return;
    }
}

const _: () = assert!(core::mem::size_of::<Backend>() == 32);
