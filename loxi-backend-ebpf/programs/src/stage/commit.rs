//! Stage 14: only now does a flow exist; an existing one takes note of the packet.

use crate::atomic;
use crate::ctx::Ctx;
use crate::life::{count_of, less, uncount, zone_of};
use crate::maps::{AFFINITY, BACKEND_FLOWS, FRAGMENTS, PORT_POLICY, SOURCES};
use crate::parse::Step;
use crate::stage::conntrack::{fragment_key, key_of};
use crate::stage::forward::tunnel_of_way;
use crate::stage::{SECOND, go, packet, port_of, tick};
use crate::table::{
    Family, Found, Key, Refused, V4, V6, at, claim_apart, cold_at, publish, remove_apart, work,
};
use loxi_ebpf_layout::code::{drop, program};
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::flow::{
    self, AGES, BUSY, Cold, FAST, IPIP, NAT, Out, REPLY, ROUTED, Seen, TUNNEL, rest, state, translation,
};
use loxi_ebpf_layout::l2::{kind, port};
use loxi_ebpf_layout::l3::{FRAGMENT_S, Fragment, Source, Zone};
use loxi_ebpf_layout::lb::{Affinity, AffinityKey};
use loxi_ebpf_layout::scratch::{Packet, flag, tracking, way};
use loxi_ebpf_layout::{family, tunnel};

/// Flows and fragments.
#[inline(always)]
pub fn commit<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = if p.family == family::V4 { stages::<V4>(p) } else { stages::<V6>(p) };
    go(ctx, p, program::COMMIT, result.map(|()| program::SEND))
}

#[inline(always)]
fn stages<F: Family>(p: &mut Packet) -> Step {
    match p.tracking {
        tracking::NEW => {
            p.stages |= 1 << 14;
            create::<F>(p)?;
        }
        tracking::ESTABLISHED => {
            touch::<F>(p);
            renew::<F>(p);
        }
        _ => return Ok(()),
    }
    remember_fragment(p, 0);
    Ok(())
}

/// Writes the record of a first fragment; `reason`: it was dropped for that.
#[inline(always)]
pub fn remember_fragment(p: &Packet, reason: u8) {
    let first = p.flags & flag::FRAGMENT != 0 && p.fragment_offset == 0;
    if !first || p.flags & flag::TUPLE == 0 || p.flags & flag::DRY != 0 {
        return;
    }
    let record = Fragment {
        sport: p.sport,
        dport: p.dport,
        reason: reason as u32,
        expires: p.now + FRAGMENT_S * SECOND,
    };
    let key = fragment_key(p);
    if FRAGMENTS.put(&key, &record, NEW) != 0 {
        FRAGMENTS.put(&key, &record, THERE);
    } else {
        crate::life::keep(kept::FRAGMENTS);
    }
}

/// BPF_NOEXIST.
const NEW: u64 = 1;
/// BPF_EXIST: what is counted once must not come back uncounted.
const THERE: u64 = 2;

/// Whether a limit is reached. A count below zero, which lasts while two sides correct it, is no full one.
#[inline(always)]
fn is_full(count: u64, most: u32) -> bool {
    count as i64 >= most as i64
}

/// Takes a place in each count, or says which limit forbids it.
#[inline(always)]
fn within_limits(p: &Packet, zone: &Zone) -> Step {
    let Some(count) = count_of(p.zone) else { return Err(drop::CT_FULL) };
    let half_open = state::is_half_open(p.next_state);
    // SAFETY: words of an array.
    let (flows, open, created) =
        unsafe { (&raw mut (*count).flows, &raw mut (*count).half_open, &raw mut (*count).created) };
    if is_full(atomic::add(flows, 1), zone.max_flows) {
        less(flows);
        return Err(drop::CT_FULL);
    }
    if half_open && is_full(atomic::add(open, 1), zone.max_half_open) {
        less(open);
        less(flows);
        return Err(drop::CT_HALF_OPEN_LIMIT);
    }
    if zone.max_per_source != u32::MAX && !within_source(p, zone) {
        if half_open {
            less(open);
        }
        less(flows);
        return Err(drop::CT_SOURCE_LIMIT);
    }
    atomic::add(created, 1);
    Ok(())
}

/// Whether there is a place in each count; none is taken.
#[inline(always)]
fn would_fit(p: &Packet, zone: &Zone) -> Step {
    let Some(count) = count_of(p.zone) else { return Err(drop::CT_FULL) };
    // SAFETY: words of an array, each read at once.
    let (flows, open) = unsafe {
        ((&raw const (*count).flows).read_volatile(), (&raw const (*count).half_open).read_volatile())
    };
    let over = (p.flags & flag::OVER != 0) as u64;
    if is_full(flows.wrapping_sub(over), zone.max_flows) {
        return Err(drop::CT_FULL);
    }
    if state::is_half_open(p.next_state) && is_full(open, zone.max_half_open) {
        return Err(drop::CT_HALF_OPEN_LIMIT);
    }
    let key = Source { zone: p.zone as u32, family: p.family as u32, addr: p.src };
    let limited = zone.max_per_source != u32::MAX;
    if limited && is_full(SOURCES.get(&key).copied().unwrap_or(0), zone.max_per_source) {
        return Err(drop::CT_SOURCE_LIMIT);
    }
    Ok(())
}

#[inline(always)]
fn within_source(p: &Packet, zone: &Zone) -> bool {
    let key = Source { zone: p.zone as u32, family: p.family as u32, addr: p.src };
    let flows = match SOURCES.ptr(&key) {
        Some(flows) => flows,
        None => {
            SOURCES.put(&key, &0, 1);
            match SOURCES.ptr(&key) {
                Some(flows) => flows,
                None => return false,
            }
        }
    };
    if is_full(atomic::add(flows, 1), zone.max_per_source) {
        less(flows);
        return false;
    }
    true
}

#[inline(always)]
fn create<F: Family>(p: &mut Packet) -> Step {
    let Some(zone) = zone_of(p.zone) else { return Ok(()) };
    if p.flags & flag::DRY != 0 {
        return would_fit(p, zone);
    }
    within_limits(p, zone)?;
    if p.backend != 0
        && let Some(flows) = BACKEND_FLOWS.ptr(&p.backend)
    {
        atomic::add(flows, 1);
    }
    match insert::<F>(p) {
        Ok(()) => {
            remember_client(p);
            Ok(())
        }
        Err(refused) => {
            uncount(p, p.next_state, p.backend, &p.src);
            if let Some(count) = count_of(p.zone) {
                // SAFETY: a word of an array.
                less(unsafe { &raw mut (*count).created });
            }
            Err(match refused {
                Refused::Taken(_) => drop::PORTS_EXHAUSTED,
                Refused::Full => drop::CT_FULL,
                Refused::Contended => drop::CT_CONTENDED,
            })
        }
    }
}

#[inline(always)]
fn remember_client(p: &Packet) {
    if p.affinity == 0 || p.backend == 0 {
        return;
    }
    let key = AffinityKey { service: p.service, family: p.family as u32, client: p.src };
    let entry =
        Affinity { backend: p.backend, generation: p.backend_generation, expires: p.now + p.affinity };
    AFFINITY.put(&key, &entry, 0);
}

/// Both directions' entries and what they share. The original one is published last.
#[inline(always)]
fn insert<F: Family>(p: &mut Packet) -> Result<(), Refused> {
    let Some(work) = work() else { return Err(Refused::Full) };
    let flags = decision(p, &mut work.out);
    work.key = key_of(p);
    work.new = translated(p);
    work.seen = Seen { epoch: p.epoch, seen: tick(p.now), packets: 1, bytes: p.ip_len as u64 };
    let first = renewed::<F>(p, flags)?;
    if flags & IPIP != 0 {
        F::set_pair(first.entry, [p.outer_src, p.dsr_target]);
    }
    let mut partner = first.number;
    let mut other = None;
    if !is_own_reply(p) {
        work.key = translated(p).reversed();
        work.new = key_of(p).reversed();
        work.seen = Seen { epoch: 0, seen: tick(p.now), packets: 0, bytes: 0 };
        work.out = Out::default();
        match renewed::<F>(p, REPLY | flags & NAT) {
            Ok(second) => {
                partner = second.number;
                share::<F>(partner, &Cold { partner: first.number, ..Cold::default() });
                other = Some(second.entry);
            }
            Err(refused) => {
                remove_apart::<F>(first.number, &key_of(p));
                return Err(refused);
            }
        }
    }
    share::<F>(first.number, &record(p, partner));
    (p.place, p.original) = (first.number, first.number);
    if let Some(other) = other {
        publish::<F>(other);
    }
    publish::<F>(first.entry);
    Ok(())
}

/// The key of the packet as it leaves.
#[inline(always)]
fn translated(p: &Packet) -> Key {
    Key { src: p.new_src, dst: p.new_dst, rest: rest::key(p.new_sport, p.new_dport, p.protocol, p.zone) }
}

/// Whether replies have the packet's own key.
#[inline(always)]
fn is_own_reply(p: &Packet) -> bool {
    p.new_dst == p.src && p.new_src == p.dst && p.new_dport == p.sport && p.new_sport == p.dport
}

/// Claims a place for the work's key; an entry of that key that has ended makes room.
#[inline(always)]
fn renewed<F: Family>(p: &Packet, flags: u8) -> Result<Found<F>, Refused> {
    let Some(work) = work() else { return Err(Refused::Full) };
    work.bits = (p.next_state as u64) << rest::STATE | (flags as u64) << rest::FLAGS;
    match claim_apart::<F>() {
        Err(Refused::Taken(number)) => {
            if F::alive_apart(number) != 0 {
                return Err(Refused::Taken(number));
            }
            // What ends it uses the work's key.
            let key = work.key;
            F::forget_apart(number);
            work.key = key;
            claim_apart::<F>()
        }
        other => other,
    }
}

#[inline(always)]
fn share<F: Family>(number: u32, record: &Cold) {
    if let Some(cold) = cold_at::<F>(number) {
        // SAFETY: the place is this program's while its entry is busy.
        unsafe { *cold = *record };
    }
}

#[inline(always)]
fn record(p: &Packet, partner: u32) -> Cold {
    let generation = |port: u16| PORT_POLICY.get(&(port as u32)).map_or(0, |policy| policy.generation as u32);
    Cold {
        created: p.now,
        partner,
        service: p.service,
        backend: p.backend,
        backend_generation: p.backend_generation,
        source_generation: generation(p.port),
        destination_generation: if p.subject == 0 { 0 } else { generation(p.subject) },
        source_port: p.port,
        destination_port: p.subject,
        in_port: p.port,
        in_tunnel: p.back,
        in_mac: p.smac,
        translation: translation::with(p.translation, if p.translation == 0 { 0 } else { p.outer_family }),
        hairpin: p.hairpin,
        dsr_target: p.dsr_target,
    }
}

/// Whether the next packet like this one may go the short way, and where.
#[inline(always)]
fn decision(p: &Packet, out: &mut Out) -> u8 {
    let mut flags = if p.flags & flag::NAT != 0 { NAT } else { 0 };
    if p.routed != 0 {
        flags |= ROUTED;
    }
    if p.ages != 0 {
        flags |= AGES;
    }
    let via = match p.way {
        way::TUNNEL => {
            flags |= TUNNEL;
            p.out_tunnel
        }
        way::IPIP => {
            if p.outer_family == p.family {
                flags |= IPIP;
            }
            p.out_interface
        }
        _ => p.out_interface,
    };
    let mac = if p.way == way::PORT { p.new_dmac } else { p.outer_dmac };
    *out = Out { port: p.out_port, via, in_port: p.port, mac };
    if is_short(p) { flags | FAST } else { flags }
}

/// What the short way can do.
#[inline(always)]
fn is_short(p: &Packet) -> bool {
    let Some(egress) = port_of(p.out_port) else { return false };
    let Some(ingress) = port_of(p.port) else { return false };
    let plain = p.flags & flag::FRAGMENT == 0 && p.tag == crate::ctx::UNTAGGED;
    // Out of one tunnel into another is a long way.
    let inner = p.ended != 0;
    let once = inner == (ingress.kind == kind::TUNNEL) && (!inner || p.way == way::PORT);
    let untagged = egress.flags & port::TRUNK == 0;
    let known = p.routed == 0 || p.dmac == ingress.gateway;
    let tracked = matches!(p.protocol, 1 | 6 | 17 | 58);
    let by = match p.way {
        way::PORT => p.routed == 0 || p.out_interface != 0,
        // What it doesn't say itself must be what the underlay's first interface says.
        way::TUNNEL => p.lowered == 0 && egress.interface == p.out_interface && tunnels(p),
        _ => p.lowered == 0 && p.outer_family == p.family && p.out_interface != 0,
    };
    plain && once && untagged && known && tracked && by
}

/// Whether a tunnel gives all of its packets the same inner link layer, and an outer header without
/// anything chosen.
#[inline(always)]
fn tunnels(p: &Packet) -> bool {
    let Some(tunnel) = tunnel_of_way(p) else { return false };
    let inner = p.routed == 0 || p.new_dmac == tunnel.inner_dst && p.new_smac == tunnel.inner_src;
    inner && (tunnel.family == family::V6 || tunnel.flags & tunnel::flag::DF != 0)
}

/// An existing flow takes note of a packet: time, counters, state.
#[inline(always)]
pub fn touch<F: Family>(p: &Packet) {
    if p.flags & flag::DRY != 0 {
        return;
    }
    let Some(entry) = at::<F>(p.place) else { return };
    // SAFETY: words of an entry, each written at once.
    unsafe {
        let seen = &mut *F::seen(entry);
        seen.seen = tick(p.now);
        seen.packets += 1;
        seen.bytes += p.ip_len as u64;
    }
    if p.next_state != p.state {
        moves::<F>(p);
    }
}

/// The state of both directions.
#[inline(always)]
fn moves<F: Family>(p: &Packet) {
    let partner = if p.place == p.original {
        // SAFETY: a word of a record.
        cold_at::<F>(p.original).map_or(0, |cold| unsafe { (*cold).partner })
    } else {
        p.place
    };
    // Whoever changes the original's state does the accounts.
    if becomes::<F>(p.original, p.state, p.next_state) {
        let was = state::is_half_open(p.state);
        if was
            && !state::is_half_open(p.next_state)
            && let Some(count) = count_of(p.zone)
        {
            // SAFETY: a word of an array.
            less(unsafe { &raw mut (*count).half_open });
        }
    }
    if partner != p.original {
        becomes::<F>(partner, p.state, p.next_state);
    }
}

/// Changes the state of one direction's entry. Whoever writes a decision there is let finish: it
/// keeps the word for some hundred nanoseconds.
#[inline(always)]
fn becomes<F: Family>(number: u32, old: u8, new: u8) -> bool {
    let Some(entry) = at::<F>(number) else { return false };
    for _ in 0..PATIENCE {
        // SAFETY: a word of an entry.
        let word = unsafe { F::rest(entry).read_volatile() };
        if rest::state(word) != old {
            return false;
        }
        let free = rest::flags(word) & BUSY == 0;
        if free && atomic::replace(F::rest(entry), word, rest::revised(word, new, rest::flags(word))) {
            return true;
        }
    }
    false
}

/// Looks at a word that somebody holds, before it is given up.
const PATIENCE: u32 = 64;

/// Writes down what was decided for the packet, for those that follow. Who finds the entry
/// busy leaves it.
#[inline(always)]
fn renew<F: Family>(p: &Packet) {
    if p.flags & flag::DRY != 0 {
        return;
    }
    let Some(entry) = at::<F>(p.place) else { return };
    // SAFETY: words of an entry; the decision is written while the entry is busy.
    unsafe {
        let word = F::rest(entry).read_volatile();
        if rest::flags(word) & BUSY != 0 || !F::is(entry, &key_of(p)) {
            return;
        }
        let mut out = Out::default();
        let flags = decision(p, &mut out) | rest::flags(word) & (REPLY | NAT);
        let busy = rest::revised(word, rest::state(word), flags | BUSY);
        if !atomic::replace(F::rest(entry), word, busy) {
            return;
        }
        *F::out(entry) = out;
        if flags & IPIP != 0 {
            F::set_pair(entry, [p.outer_src, p.dsr_target]);
        } else if rest::flags(word) & IPIP != 0 {
            F::set_pair(entry, [p.new_src, p.new_dst]);
        }
        (*F::seen(entry)).epoch = p.epoch;
        if p.flags & flag::STALE != 0
            && let Some(cold) = cold_at::<F>(p.original)
        {
            (*cold).source_generation = p.source_generation;
            (*cold).destination_generation = p.destination_generation;
        }
        atomic::replace(F::rest(entry), busy, rest::revised(busy, rest::state(busy), flags));
    }
}

const _: () = assert!(flow::BUSY == 128);
