//! Stages 9 and 13: policies of the local source and of the local destination.
//!
//! Three look-ups decide, however many rules there are: the class of the peer,
//! the group's rules that mean that class, the group's rules that mean protocol
//! and port. Of the rules that both mean, the lowest in each tier counts.

use crate::ctx::Ctx;
use crate::life::cold_of;
use crate::maps::{PEER_RULES, PEERS, POLICIES, PORT_POLICY, PORT_RULES, VRFS};
use crate::parse::Step;
use crate::stage::{go, in_set, is_link_protocol, packet, port_of, width};
use crate::table::{Family, Key, V4, V6, at, work};
use loxi_ebpf_layout::code::{Fate, drop, program};
use loxi_ebpf_layout::flow::{rest, translation};
use loxi_ebpf_layout::l2::kind;
use loxi_ebpf_layout::limits::{POLICY_WORDS, VRFS as MOST_VRFS};
use loxi_ebpf_layout::policy::{GroupClass, GroupPort, NO_CLASS, PEER_FIXED_BITS, PROTOCOL_BITS, PeerKey};
use loxi_ebpf_layout::scratch::{Packet, flag, tracking};
use loxi_ebpf_layout::{Addr, family};

/// Stage 9.
#[inline(always)]
pub fn egress<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let group = PORT_POLICY.get(&(p.port as u32)).map_or(0, |policy| policy.groups as u32);
    let result = if p.src == p.new_dst {
        Ok(program::FORWARD)
    } else {
        p.stages |= 1 << 9;
        let peer = p.new_dst;
        evaluate(group, p.family, &peer, p.protocol, p.new_dport).map(|()| program::FORWARD)
    };
    go(ctx, p, program::EGRESS_POLICY, result)
}

/// Stage 13.
#[inline(always)]
pub fn ingress<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = ingress_rules(p).map(|()| program::COMMIT);
    go(ctx, p, program::INGRESS_POLICY, result)
}

#[inline(always)]
fn ingress_rules(p: &mut Packet) -> Step {
    let applies = p.tracking == tracking::NEW || p.tracking == tracking::UNTRACKED && !is_link_protocol(p);
    if p.family == 0 || !applies || p.subject == 0 || p.src == p.new_dst {
        return Ok(());
    }
    let group = PORT_POLICY.get(&(p.subject as u32)).map_or(0, |policy| (policy.groups >> 32) as u32);
    if group == 0 || is_node_local(p) {
        return Ok(());
    }
    p.stages |= 1 << 13;
    let peer = p.src;
    evaluate(group, p.family, &peer, p.protocol, p.new_dport)
}

/// Whether the node itself sends it.
#[inline(always)]
fn is_node_local(p: &Packet) -> bool {
    if p.vrf == 0 || port_of(p.port).is_none_or(|port| port.kind != kind::HOST) {
        return false;
    }
    let set = VRFS.get(&(p.vrf as u32)).map_or(0, |pair| pair.current().node_local);
    set != 0 && in_set(set, p.family, &p.src)
}

/// What a group says of a connection.
#[inline(always)]
fn evaluate(group: u32, family: u8, peer: &Addr, protocol: u8, dport: u16) -> Step {
    let Some(work) = work() else { return Ok(()) };
    if group == 0 {
        return Ok(());
    }
    work.key = Key { src: *peer, dst: Addr::ZERO, rest: rest::key(0, dport, protocol, 0) };
    work.family = family as u32;
    match Fate::new(policy_verdict(group) as u8) {
        Some(fate) => Err(fate),
        None => Ok(()),
    }
}

/// Looked at by the verifier once: the fate of the work's connection under a group; 0: none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn policy_verdict(group: u32) -> u32 {
    let (Some(p), Some(work)) = (packet(), work()) else { return 0 };
    let key = work.key;
    let (protocol, dport) = (rest::protocol(key.rest), rest::dport(key.rest));
    match judge(p, group, work.family as u8, &key.src, protocol, dport) {
        Ok(()) => 0,
        Err(fate) => fate.get() as u32,
    }
}

#[inline(always)]
fn judge(p: &mut Packet, group: u32, family: u8, peer: &Addr, protocol: u8, dport: u16) -> Step {
    let Some(rules) = POLICIES.get(&group) else { return Ok(()) };
    let key = PeerKey { bits: PEER_FIXED_BITS + width(family), family: family as u32, addr: *peer };
    let class = PEERS.get(&key).copied().unwrap_or(NO_CLASS);
    let [high, low] = dport.to_ne_bytes();
    let port = GroupPort { bits: PROTOCOL_BITS + 16, group, protocol, port: [high, low], reserved: 0 };
    let (Some(by_peer), Some(by_port)) =
        (PEER_RULES.get(&GroupClass { group, class }), PORT_RULES.get(&port))
    else {
        // No rule means them, so what the group says without rules counts.
        return if rules.isolated != 0 { Err(drop::POLICY_ISOLATED) } else { Ok(()) };
    };
    let (admin, network_policy, isolated) = (rules.admin, rules.network_policy, rules.isolated);
    // In `admin` and `baseline` a rule that passes leaves its tier.
    let mut passed = 0u32;
    for n in 0..POLICY_WORDS {
        let at = n as u32;
        let tier = (at >= admin) as u32 + (at >= network_policy) as u32;
        if tier == 2 && isolated != 0 {
            return Err(drop::POLICY_ISOLATED);
        }
        let both = by_peer.words[n] & by_port.words[n];
        if both == 0 || passed == tier + 1 {
            continue;
        }
        let lowest = both & both.wrapping_neg();
        (p.group, p.word, p.bit) = (group, at, lowest);
        if rules.allow.words[n] & lowest != 0 {
            return Ok(());
        }
        if rules.deny.words[n] & lowest != 0 {
            return Err(drop::POLICY_DENIED);
        }
        passed = tier + 1;
    }
    if isolated != 0 && network_policy >= POLICY_WORDS as u32 {
        return Err(drop::POLICY_ISOLATED);
    }
    Ok(())
}

/// An established flow under another configuration than when it was decided: policies whose
/// generation has moved on are looked at again, on the tuple with which the flow began.
#[inline(always)]
pub fn revalidate<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = if p.family == family::V4 { again::<V4>(p) } else { again::<V6>(p) };
    go(ctx, p, program::REVALIDATE, result.map(|()| program::FORWARD))
}

#[inline(always)]
fn generation(port: u16) -> u32 {
    PORT_POLICY.get(&(port as u32)).map_or(0, |policy| policy.generation as u32)
}

#[inline(always)]
fn again<F: Family>(p: &mut Packet) -> Step {
    let number = p.place;
    let Some(entry) = at::<F>(number) else { return Err(drop::CT_CONTENDED) };
    // SAFETY: words of an entry, each read at once.
    let word = unsafe { F::rest(entry).read_volatile() };
    let Some((cold, original)) = cold_of::<F>(word, number) else { return Err(drop::CT_CONTENDED) };
    let (source, destination) = (cold.source_port, cold.destination_port);
    let now = (generation(source), if destination == 0 { 0 } else { generation(destination) });
    let was = (cold.source_generation, cold.destination_generation);
    (p.source_generation, p.destination_generation) = now;
    if now.0 == was.0 && (destination == 0 || now.1 == was.1) {
        return Ok(());
    }
    let Some(first) = at::<F>(original) else { return Err(drop::CT_CONTENDED) };
    let tuple = F::key(first);
    let to = if translation::kind(cold.translation) == translation::NAT { F::new_key(first) } else { tuple };
    let hairpin = cold.hairpin != 0;
    if policies(p, source, destination, &tuple, &to, hairpin).is_err() {
        F::forget_apart(number);
        p.tracking = tracking::NEW;
        return Err(drop::POLICY_REVOKED);
    }
    Ok(())
}

#[inline(always)]
fn policies(p: &mut Packet, source: u16, destination: u16, tuple: &Key, to: &Key, hairpin: bool) -> Step {
    if hairpin || tuple.src == to.dst {
        return Ok(());
    }
    let (family, protocol, dport) = (p.family, rest::protocol(tuple.rest), rest::dport(to.rest));
    p.stages |= 1 << 9;
    let groups = PORT_POLICY.get(&(source as u32)).map_or(0, |policy| policy.groups as u32);
    evaluate(groups, family, &to.dst, protocol, dport)?;
    let groups = PORT_POLICY.get(&(destination as u32)).map_or(0, |policy| (policy.groups >> 32) as u32);
    if destination == 0 || groups == 0 || from_node(source, family, &tuple.src) {
        return Ok(());
    }
    p.stages |= 1 << 13;
    evaluate(groups, family, &tuple.src, protocol, dport)
}

/// Whether a host port sends it from an address that any VRF has as the node's own.
#[inline(always)]
fn from_node(source: u16, family: u8, src: &Addr) -> bool {
    if port_of(source).is_none_or(|port| port.kind != kind::HOST) {
        return false;
    }
    for n in 1..MOST_VRFS {
        let Some(vrf) = VRFS.get(&n).map(loxi_ebpf_layout::pair::Pair::current) else { return false };
        if vrf.node_local != 0 && in_set(vrf.node_local, family, src) {
            return true;
        }
    }
    false
}

const _: () = assert!(flag::STALE != 0);
