//! ARP (RFC 826) and neighbour discovery (RFC 4861), inside stage 10.
//!
//! Answers are built here, in the frame that asked, so that a pod finds its
//! gateway also while the daemon is away. Questions are the daemon's.

use crate::ctx::{Ctx, UNTAGGED, read, write};
use crate::finish::{count, count_sent, open, tell_asker};
use crate::life::{has_room, keep};
use crate::maps::{BRIDGES, LINK_ADDRS, NEIGHBORS, PORT_VLANS, PROXIES};
use crate::parse::{ETH, Step, ethertype, fold, is_unicast};
use crate::stage::forward::{interface_of, learn, outdate};
use crate::stage::{SECOND, answer, go, packet, port_of};
use loxi_ebpf_layout::code::{consumed, drop, program, punt};
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::l2::{Link, LinkAddr, PortVlan, bridge, carried, kind, port};
use loxi_ebpf_layout::l3::{Neighbor, NeighborKey, interface, neighbor};
use loxi_ebpf_layout::limits::{LEARNED_NEIGHBORS, ND_OPTIONS};
use loxi_ebpf_layout::scratch::{Packet, flag, l4};
use loxi_ebpf_layout::{Addr, family};

/// Length of an ARP packet for IPv4 over Ethernet.
const ARP: usize = 28;
/// Length of an advertisement with its option.
const ADVERT: usize = 32;

/// What a link's stations say about their addresses. Passes what is not for us.
#[inline(always)]
pub fn neighbor<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    p.stages |= 1 << 10;
    let mut told = Answer { target: Addr::ZERO, asker: Addr::ZERO, mac: [0; 6], own: false, wanted: false };
    match stages(ctx, p, &mut told) {
        Err(fate) => go(ctx, p, program::NEIGHBOR, Err(fate)),
        Ok(()) if told.wanted => tell(ctx, p, &told),
        Ok(()) => go(ctx, p, program::NEIGHBOR, Ok(program::FORWARD)),
    }
}

/// An answer to be sent: who has the address.
struct Answer {
    target: Addr,
    asker: Addr,
    mac: [u8; 6],
    /// It is our own address, not one that we answer for.
    own: bool,
    /// There is one.
    wanted: bool,
}

#[inline(always)]
fn stages<C: Ctx>(ctx: C, p: &mut Packet, told: &mut Answer) -> Step {
    let Some(ingress) = port_of(p.port) else { return Err(drop::PORT_DOWN) };
    learn(p, ingress);
    if p.kind == l4::ARP {
        let Some(mac) = read::<C, [u8; 6]>(ctx, p.l3 as usize + 8) else { return Err(drop::TRUNCATED) };
        let is_answer = p.detail == 2;
        let (sender, target) = (p.src, p.dst);
        heard(p, family::V4, &target, &sender, mac, is_answer)?;
        return if is_answer { Ok(()) } else { asked(p, family::V4, target, sender, told) };
    }
    if p.detail == 133 && ingress.kind == kind::POD {
        return Err(drop::ROUTER_SOLICITATION);
    }
    if p.detail != 135 && p.detail != 136 {
        return Ok(());
    }
    let at = p.l4 as usize;
    let end = p.l3 as usize + p.ip_len as usize;
    let Some(target) = read::<C, [u32; 4]>(ctx, at + 8).filter(|_| at + 24 <= end).map(Addr) else {
        return Ok(());
    };
    let (src, dst, mac) = (p.src, p.dst, p.smac);
    if p.detail == 135 {
        if src != Addr::ZERO {
            heard(p, family::V6, &target, &src, mac, false)?;
        }
        return asked(p, family::V6, target, src, told);
    }
    let mut mac = mac;
    target_mac(ctx, p, at + 24, &mut mac)?;
    heard(p, family::V6, &dst, &target, mac, true)
}

/// The target link-layer address option of an advertisement, if it has one.
#[inline(always)]
fn target_mac<C: Ctx>(ctx: C, p: &Packet, first: usize, mac: &mut [u8; 6]) -> Step {
    let end = p.end as usize;
    let mut option = first;
    for _ in 0..ND_OPTIONS {
        if option + 1 >= end {
            return Ok(());
        }
        let Some([kind, units]) = read::<C, [u8; 2]>(ctx, option) else { return Err(punt::PARSE) };
        let length = units as usize * 8;
        if length == 0 || option + length > end {
            return Ok(());
        }
        if kind == 2 {
            if let Some(told) = read::<C, [u8; 6]>(ctx, option + 2) {
                *mac = told;
            }
            return Ok(());
        }
        option += length;
    }
    Err(punt::PARSE)
}

#[inline(always)]
fn link(p: &Packet) -> Link {
    if p.bridge != 0 { Link { id: p.bridge, vlan: p.vlan } } else { Link { id: p.port, vlan: 0 } }
}

/// A station has told its address, to one of ours.
#[inline(always)]
fn heard(p: &Packet, family: u8, ours: &Addr, sender: &Addr, mac: [u8; 6], is_answer: bool) -> Step {
    let key = LinkAddr { link: link(p), family: family as u32, addr: *ours };
    let Some(number) = LINK_ADDRS.get(&key) else { return Ok(()) };
    let number = *number;
    let key = NeighborKey { interface: number, family: family as u32, addr: *sender };
    let usable = is_unicast(mac) && *sender != Addr::ZERO && *sender != *ours;
    let known = NEIGHBORS.get(&key);
    let fixed = known.is_some_and(|known| known.state == neighbor::FIXED);
    // An answer that nobody asked for teaches nothing (RFC 4861 section 7.2.5).
    if usable && !fixed && (known.is_some() || !is_answer) && p.flags & flag::DRY == 0 {
        let moved = known.is_some_and(|known| known.state == neighbor::REACHABLE && known.mac != mac);
        let entry = Neighbor {
            mac,
            state: neighbor::REACHABLE,
            asked: p.now,
            expires: p.now + neighbor::KEPT_S * SECOND,
        };
        let there = known.is_some() && NEIGHBORS.put(&key, &entry, 2) == 0;
        if !there && has_room(kept::NEIGHBORS, LEARNED_NEIGHBORS) && NEIGHBORS.put(&key, &entry, 1) == 0 {
            keep(kept::NEIGHBORS);
        }
        if moved {
            outdate();
        }
    }
    if !is_answer {
        return Ok(());
    }
    let punts = interface_of(number as u16).is_some_and(|own| own.flags & interface::PUNT != 0);
    Err(if punts { punt::NOT_OURS_LOCAL } else { consumed::NEIGHBOR_LEARNED })
}

/// A station asks who has an address.
#[inline(always)]
fn asked(p: &Packet, family: u8, target: Addr, asker: Addr, told: &mut Answer) -> Step {
    let key = LinkAddr { link: link(p), family: family as u32, addr: target };
    if let Some(number) = LINK_ADDRS.get(&key) {
        let Some(own) = interface_of(*number as u16) else { return Ok(()) };
        if own.flags & interface::PUNT != 0 {
            return Err(punt::NOT_OURS_LOCAL);
        }
        *told = Answer { target, asker, mac: own.mac, own: true, wanted: true };
        return Ok(());
    }
    let proxies = p.bridge != 0
        && BRIDGES.get(&(p.bridge as u32)).is_some_and(|pair| pair.current().flags & bridge::PROXY != 0);
    if !proxies {
        return Ok(());
    }
    let Some(number) = PROXIES.get(&key) else { return Ok(()) };
    let key = NeighborKey { interface: *number, family: family as u32, addr: target };
    // Its own station asks whether anybody else has the address.
    if let Some(known) = NEIGHBORS.get(&key)
        && known.state == neighbor::FIXED
        && known.mac != p.smac
    {
        *told = Answer { target, asker, mac: known.mac, own: false, wanted: true };
    }
    Ok(())
}

/// Sends the answer back where the question came from.
#[inline(always)]
fn tell<C: Ctx>(ctx: C, p: &mut Packet, told: &Answer) -> i32 {
    let arp = p.kind == l4::ARP;
    let fate = if arp { consumed::ARP_REPLY } else { consumed::ND_ADVERT };
    p.fate = fate.get();
    p.by = program::NEIGHBOR as u8;
    // Nothing leaves by a tunnel port, nor by one that is closed.
    let egress = if p.ended == 0 { open(p.port) } else { None };
    let (Some(egress), Some(globals)) = (egress, crate::ctx::globals()) else {
        return go(ctx, p, program::NEIGHBOR, Err(fate));
    };
    if p.tag != UNTAGGED && !ctx.untag() {
        return C::DROP;
    }
    let built = if arp { arp_reply(ctx, p, told) } else { advert(ctx, p, told) };
    if !built {
        return C::DROP;
    }
    count(p, p.fate);
    let mut tag = UNTAGGED;
    if egress.flags & port::TRUNK != 0 {
        let key = PortVlan { port: p.port, vlan: p.vlan };
        let how = PORT_VLANS.get(&key).copied().unwrap_or(0);
        if how & carried::NATIVE == 0 {
            let priority = if p.tag == UNTAGGED { 0 } else { p.tag & 0xe000 };
            tag = priority | p.vlan;
        }
    }
    count_sent(p, p.port, ctx.len() + if tag == UNTAGGED { 0 } else { 4 });
    if p.flags & flag::ASKED != 0 {
        tell_asker(p);
        if let Some(answer) = answer() {
            (answer.sent, answer.out_port, answer.tag) = (1, p.port, tag);
        }
        return C::DROP;
    }
    if tag != UNTAGGED && !ctx.push_tag(tag) {
        return C::DROP;
    }
    ctx.send(p.port, egress, p.side, globals)
}

#[inline(always)]
fn arp_reply<C: Ctx>(ctx: C, p: &Packet, told: &Answer) -> bool {
    let [o0, o1, o2, o3] = told.target.0[0].to_ne_bytes();
    let [a0, a1, a2, a3] = told.asker.0[0].to_ne_bytes();
    let m = told.mac;
    let s = p.smac;
    ctx.resize((ETH + ARP) as u32)
        && write(ctx, 0, [s, m])
        && write(ctx, ETH + 6, 2u16.to_be())
        && write(ctx, ETH + 8, [m[0], m[1], m[2], m[3], m[4], m[5], o0, o1, o2, o3])
        && write(ctx, ETH + 18, [s[0], s[1], s[2], s[3], s[4], s[5], a0, a1, a2, a3])
}

#[inline(always)]
fn advert<C: Ctx>(ctx: C, p: &Packet, told: &Answer) -> bool {
    let dad = told.asker == Addr::ZERO;
    // DAD is answered to all nodes, unsolicited (RFC 4861 section 7.2.4).
    let (dst, dmac) = if dad {
        (Addr([0xff02_0000u32.to_be(), 0, 0, 1u32.to_be()]), [0x33, 0x33, 0, 0, 0, 1])
    } else {
        (told.asker, p.smac)
    };
    let own = told.own as u32;
    let flags = own << 31 | (!dad as u32) << 30 | own << 29;
    let m = told.mac;
    let option = [u32::from_ne_bytes([2, 1, m[0], m[1]]), u32::from_ne_bytes([m[2], m[3], m[4], m[5]])];
    let head = u32::from_ne_bytes([136, 0, 0, 0]);
    let mut sum = head as u64 + flags.to_be() as u64 + option[0] as u64 + option[1] as u64;
    // The target is in the message and, as the source, in the pseudo header.
    for n in 0..4 {
        sum += 2 * told.target.0[n] as u64 + dst.0[n] as u64;
    }
    sum += (ADVERT as u32).to_be() as u64 + 58u32.to_be() as u64;
    let head = head | (!fold(sum) as u32) << 16;
    let ip = [0x6000_0000u32.to_be(), ((ADVERT as u32) << 16 | 58 << 8 | 255).to_be()];
    ctx.resize((ETH + 40 + ADVERT) as u32)
        && write(ctx, 0, [dmac, m])
        && write(ctx, 12, ethertype::IPV6)
        && write(ctx, ETH, ip)
        && write(ctx, ETH + 8, told.target.0)
        && write(ctx, ETH + 24, dst.0)
        && write(ctx, ETH + 40, [head, flags.to_be()])
        && write(ctx, ETH + 48, told.target.0)
        && write(ctx, ETH + 64, option)
}
