//! Stages 5 and 6: fragments, and the flow that a packet belongs to.

use crate::ctx::Ctx;
use crate::life::{cold_of, has_room, zone_of};
use crate::maps::{FRAGMENTS, PORT_POLICY};
use crate::parse::Step;
use crate::stage::{go, is_group, is_link_protocol, packet};
use crate::table::{Family, Key, V4, V6, find_apart};
use loxi_ebpf_layout::code::{self, Fate, drop, program, punt};
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::family;
use loxi_ebpf_layout::flow::{BUSY, Cold, REPLY, rest, state, translation};
use loxi_ebpf_layout::l3::{FragmentKey, Zone};
use loxi_ebpf_layout::limits::FRAGMENTS as MOST_FRAGMENTS;
use loxi_ebpf_layout::scratch::{Packet, flag, l4, tracking};

/// TCP flags.
pub mod tcp {
    #![allow(missing_docs)] // RFC 9293's own names
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// Fragments and flows.
#[inline(always)]
pub fn conntrack<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = stages(p);
    go(ctx, p, program::CONNTRACK, result)
}

#[inline(always)]
fn stages(p: &mut Packet) -> Step<u32> {
    if p.zone == 0 {
        return Ok(untracked(p));
    }
    let group = is_group(p.family, &p.dst);
    if p.flags & flag::FRAGMENT != 0 && !group {
        p.stages |= 1 << 5;
        fragment(p)?;
    }
    // Link protocols and groups have no connections.
    if is_link_protocol(p) || group {
        return Ok(untracked(p));
    }
    p.stages |= 1 << 6;
    if p.kind == l4::ERROR {
        return Ok(program::RELATED);
    }
    if p.kind == l4::ICMP_OTHER {
        return stranger(p);
    }
    p.flags |= flag::TUPLE;
    let key = key_of(p);
    if p.family == family::V4 { look_up::<V4>(p, &key) } else { look_up::<V6>(p, &key) }
}

/// The key of the packet as it came.
#[inline(always)]
pub fn key_of(p: &Packet) -> Key {
    Key { src: p.src, dst: p.dst, rest: rest::key(p.sport, p.dport, p.protocol, p.zone) }
}

/// What comes after conntrack for a packet that isn't tracked.
#[inline(always)]
fn untracked(p: &mut Packet) -> u32 {
    p.tracking = tracking::UNTRACKED;
    p.new_src = p.src;
    p.new_dst = p.dst;
    (p.new_sport, p.new_dport) = (p.sport, p.dport);
    if p.kind == l4::ND {
        program::NEIGHBOR
    } else if !is_link_protocol(p) && has_egress_policy(p) {
        program::EGRESS_POLICY
    } else {
        program::FORWARD
    }
}

/// Whether the port's connections are subject to rules.
#[inline(always)]
pub fn has_egress_policy(p: &Packet) -> bool {
    PORT_POLICY.get(&(p.port as u32)).is_some_and(|policy| policy.groups as u32 != 0)
}

/// Gives a later fragment the tuple of its first.
#[inline(always)]
fn fragment(p: &mut Packet) -> Step {
    if p.fragment_offset == 0 {
        // The slow path forgets those that are over, or says that there are too many.
        let full = !has_room(kept::FRAGMENTS, MOST_FRAGMENTS) && FRAGMENTS.get(&fragment_key(p)).is_none();
        return if full { Err(punt::FRAGMENT) } else { Ok(()) };
    }
    let Some(record) = FRAGMENTS.get(&fragment_key(p)) else { return Err(drop::FRAGMENT_NO_FIRST) };
    if record.expires <= p.now {
        return Err(drop::FRAGMENT_TIMEOUT);
    }
    if record.reason != 0 {
        return Err(code::fate(record.reason as u8));
    }
    (p.sport, p.dport) = (record.sport, record.dport);
    Ok(())
}

/// The key of a fragmented packet.
#[inline(always)]
pub fn fragment_key(p: &Packet) -> FragmentKey {
    FragmentKey {
        zone: p.zone,
        family: p.family,
        protocol: p.protocol,
        reserved: 0,
        id: p.fragment_id,
        src: p.src,
        dst: p.dst,
    }
}

/// Looks at a word that somebody writes until he has done so: some hundred nanoseconds at most.
#[inline(always)]
fn settled<F: Family>(entry: *mut F::Entry) -> Option<u64> {
    for _ in 0..PATIENCE {
        // SAFETY: as above.
        let word = unsafe { F::rest(entry).read_volatile() };
        if rest::flags(word) & BUSY == 0 {
            return Some(word);
        }
    }
    None
}

/// Looks at a busy entry before it is given up.
const PATIENCE: u32 = 256;

#[inline(always)]
fn look_up<F: Family>(p: &mut Packet, key: &Key) -> Step<u32> {
    let Some(zone) = zone_of(p.zone) else { return Ok(untracked(p)) };
    let Some(found) = find_apart::<F>(key) else { return opens(p, zone) };
    let Some(word) = settled::<F>(found.entry) else { return Err(drop::CT_CONTENDED) };
    if F::alive_apart(found.number) == 0 {
        F::forget_apart(found.number);
        return opens(p, zone);
    }
    let Some((cold, original)) = cold_of::<F>(word, found.number) else { return Err(drop::CT_CONTENDED) };
    // A reply that is nobody's any more, or a flow that is over.
    let broken = original != found.number && cold.partner != found.number;
    if broken || is_over(p, word, cold) {
        F::forget_apart(found.number);
        return opens(p, zone);
    }
    let reply = rest::flags(word) & REPLY != 0;
    p.tracking = tracking::ESTABLISHED;
    (p.place, p.original) = (found.number, original);
    p.state = rest::state(word);
    p.translation = translation::kind(cold.translation);
    p.outer_family = translation::family(cold.translation);
    p.next_state = next(p, reply, p.translation != translation::NAT);
    p.hairpin = cold.hairpin;
    if reply {
        p.flags |= flag::REPLY;
    } else {
        p.dsr_target = cold.dsr_target;
    }
    let new = F::new_key(found.entry);
    (p.new_src, p.new_dst) = (new.src, new.dst);
    (p.new_sport, p.new_dport) = (rest::sport(new.rest), rest::dport(new.rest));
    if new.src != p.src || new.dst != p.dst || new.rest != key.rest {
        p.flags |= flag::NAT;
    }
    (p.source_generation, p.destination_generation) = (cold.source_generation, cold.destination_generation);
    // SAFETY: as above.
    if unsafe { (*F::seen(found.entry)).epoch } != p.epoch {
        p.flags |= flag::STALE;
        return Ok(program::REVALIDATE);
    }
    Ok(program::FORWARD)
}

/// Whether a flow is to be replaced: a UDP one whose endpoint is another by now, or an ended TCP
/// connection that is opened anew.
#[inline(always)]
fn is_over(p: &Packet, word: u64, cold: &Cold) -> bool {
    if p.protocol == 17 && cold.backend != 0 {
        return crate::stage::service::backend_of(cold.backend)
            .is_none_or(|b| b.outdates(cold.backend_generation));
    }
    let ended = matches!(rest::state(word), state::TIME_WAIT | state::CLOSE);
    ended && p.kind == l4::TCP && p.detail & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK) == tcp::SYN
}

/// What a packet without a flow may do.
#[inline(always)]
fn opens(p: &mut Packet, zone: &Zone) -> Step<u32> {
    let Some(opening) = opening(p, zone) else { return stranger(p) };
    p.tracking = tracking::NEW;
    (p.state, p.next_state) = (opening, opening);
    (p.new_src, p.new_dst) = (p.src, p.dst);
    (p.new_sport, p.new_dport) = (p.sport, p.dport);
    Ok(after_opening(p))
}

/// What fits no flow and may open none. Whether its address is the host's too, and the packet may
/// be of a connection that nobody here has seen begin, is known where services are.
#[inline(always)]
pub fn stranger(p: &mut Packet) -> Step<u32> {
    if p.flags & flag::TO_US == 0 || p.vrf == 0 {
        return Err(stranger_dropped(p));
    }
    p.tracking = tracking::UNTRACKED;
    (p.new_src, p.new_dst) = (p.src, p.dst);
    (p.new_sport, p.new_dport) = (p.sport, p.dport);
    Ok(program::SERVICE)
}

/// Why what fits no flow is dropped.
#[inline(always)]
pub fn stranger_dropped(p: &Packet) -> Fate {
    if p.kind == l4::ERROR { drop::ICMP_WITHOUT_FLOW } else { drop::CT_INVALID }
}

#[inline(always)]
fn after_opening(p: &Packet) -> u32 {
    if p.flags & flag::TO_US != 0 && p.vrf != 0 {
        program::SERVICE
    } else if has_egress_policy(p) {
        program::EGRESS_POLICY
    } else {
        program::FORWARD
    }
}

/// The state of a flow that this packet opens, if it may open one.
#[inline(always)]
pub fn opening(p: &Packet, zone: &Zone) -> Option<u8> {
    match p.kind {
        l4::TCP => {
            let flags = p.detail & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK);
            if flags == tcp::SYN {
                Some(state::SYN_SENT)
            } else if zone.pickup != 0 && flags & (tcp::SYN | tcp::RST) == 0 {
                Some(state::ESTABLISHED)
            } else {
                None
            }
        }
        l4::SCTP => (p.detail == 1).then_some(state::SCTP_SETUP),
        l4::REQUEST | l4::UDP | l4::OTHER => Some(state::UNREPLIED),
        _ => None,
    }
}

/// The state after a packet. `one_way`: replies don't pass here.
#[inline(always)]
fn next(p: &Packet, reply: bool, one_way: bool) -> u8 {
    match p.kind {
        l4::TCP if p.state <= state::CLOSE => next_tcp(p.state, p.detail, reply, one_way),
        l4::SCTP if p.state <= state::SCTP_SHUTDOWN => match p.detail {
            11 if p.state == state::SCTP_SETUP => state::SCTP_ESTABLISHED,
            6 | 7 | 8 | 14 => state::SCTP_SHUTDOWN,
            _ => p.state,
        },
        _ if p.state == state::UNREPLIED && reply => state::REPLIED,
        _ => p.state,
    }
}

#[inline(always)]
fn next_tcp(now: u8, flags: u8, reply: bool, one_way: bool) -> u8 {
    let (fin, syn, ack) = (flags & tcp::FIN != 0, flags & tcp::SYN != 0, flags & tcp::ACK != 0);
    if flags & tcp::RST != 0 {
        return state::CLOSE;
    }
    match now {
        state::SYN_SENT if reply && syn => state::SYN_RECEIVED,
        state::SYN_SENT if one_way && ack && !syn => state::ESTABLISHED,
        state::SYN_RECEIVED if !reply && ack && !syn && !fin => state::ESTABLISHED,
        state::SYN_RECEIVED | state::ESTABLISHED if fin => state::FIN_WAIT,
        state::FIN_WAIT | state::CLOSE_WAIT if fin => state::LAST_ACK,
        state::FIN_WAIT if ack && !syn => state::CLOSE_WAIT,
        state::LAST_ACK if ack && !syn && !fin => state::TIME_WAIT,
        other => other,
    }
}
