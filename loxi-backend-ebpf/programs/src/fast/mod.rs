//! The short way: an established flow whose decision still holds.
//!
//! Parse, one look-up, a comparison of generations, rewrite, out. Everything
//! that isn't as the last packet of the flow was (another ingress, another MAC,
//! a flag that moves the state, options, fragments, a size over the MTU, a
//! decision that may have aged) goes the long way, which decides anew and
//! leaves a record for the next packet.
//!
//! Lines that a packet touches: its own headers; `GLOBALS`; the ingress and
//! the egress port; the flow's entry; the egress interface where it is routed;
//! the sender's station where the bridge learns; two lines of this processor's
//! counters.
//!
//! What comes out of a tunnel has a short way of its own, behind the outer
//! headers' long one: see [`crate::stage::ingress`].

mod heads;
mod record;
mod rewrite;

pub use heads::{Heads, MOVING, heads_v4, heads_v6};
pub use record::{Arrival, Decided, decided, note, word};
pub use rewrite::{difference, translate};

use crate::ctx::{Ctx, UNTAGGED, at};
use crate::maps::{ANSWERS, COUNTERS};
use crate::outer::ip_in_ip;
use crate::parse::{ETH, ethertype};
use crate::stage::packet;
use crate::table::{Family, Key, V4, V6, look_up};
use loxi_ebpf_layout::flow::{IPIP, NAT, ROUTED, TUNNEL, rest};
use loxi_ebpf_layout::l2::{Port, exit, port};
use loxi_ebpf_layout::scratch::{Globals, flag, way};
use loxi_ebpf_layout::{Addr, code, family};
use record::{Exit, Way};
use rewrite::route;

/// What stays the same while a packet is looked at.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    /// Ingress port.
    pub port: &'a Port,
    /// Its number.
    pub number: u32,
    /// Flags of what was said beside the packet. The rest of that is looked up by whoever needs it: before 6.13 all
    /// that a program keeps shares 512 bytes with what it calls.
    pub flags: u32,
    /// What every packet reads.
    pub globals: &'a Globals,
}

impl Here<'_> {
    /// Now, ns.
    #[inline(always)]
    pub fn now<C: Ctx>(&self, ctx: C) -> u64 {
        if self.flags & flag::ASKED != 0 {
            let [low, high] = ctx.beside().now;
            low as u64 | (high as u64) << 32
        } else {
            ctx.clock() + self.globals.clock_offset
        }
    }
}

/// Handles the packet if it can; what the program is to return then.
#[inline(always)]
pub fn try_fast<C: Ctx>(ctx: C, here: &Here<'_>) -> Option<i32> {
    let flags = here.port.flags;
    if flags & (port::UP | port::TRUNK) != port::UP || here.port.zone == 0 {
        return None;
    }
    if ctx.tag() != UNTAGGED {
        return None;
    }
    // SAFETY: `at` has checked 14 bytes.
    let kind = unsafe { *at::<C, u16>(ctx, 12)? };
    match kind {
        ethertype::IPV4 => {
            let heads = heads_v4(ctx, here.port.zone)?;
            forward::<C, V4>(ctx, here, &heads)
        }
        ethertype::IPV6 => {
            let heads = heads_v6(ctx, here.port.zone)?;
            forward::<C, V6>(ctx, here, &heads)
        }
        _ => None,
    }
}

#[inline(always)]
fn forward<C: Ctx, F: Family>(ctx: C, here: &Here<'_>, heads: &Heads) -> Option<i32> {
    let entry = look_up::<F>(&heads.key)?;
    let dry = here.flags & flag::DRY != 0;
    let arrival = Arrival {
        port: here.number as u16,
        tunnel: 0,
        dmac: heads.dmac,
        smac: heads.smac,
        ttl: heads.ttl,
        epoch: here.globals.epoch as u32,
        // After the look-up: while its line is on the way, the processor looks at the clock.
        now: here.now(ctx),
        dry,
    };
    // SAFETY: a word of the entry, read at once; it is looked at again below.
    let word = unsafe { F::rest(entry).read_volatile() };
    let Decided { flags, out, egress, way: link } = decided::<F>(here.port, &arrival, entry, word)?;
    if C::XDP && egress.exit & exit::XDP == 0 && here.flags & flag::ASKED == 0 {
        // TC may send there, if it follows.
        return if here.globals.xdp_only == 0 { Some(C::PASS) } else { None };
    }
    if flags & ROUTED != 0 && ETH as u32 + heads.len != ctx.len() {
        return None;
    }
    let segment = ctx.segment();
    let size = if segment == 0 { heads.len } else { heads.headers + segment };
    if size > link.mtu {
        return None;
    }
    // Of a packet that leaves in IP in IP the pair is the outer header's, and its own addresses stay.
    let (pair, rest) = (F::pair(entry), F::new_key(entry).rest);
    // What was read above is of one time if the key is still what it was.
    if unsafe { F::rest(entry).read_volatile() } != word || !F::is(entry, &heads.key) {
        return None;
    }
    let length = ctx.len();
    if !dry {
        note::<F>(entry, arrival.now, heads.len);
        if flags & (TUNNEL | IPIP) == 0 {
            count(here.number, out.port as u32, length, length);
        }
    }
    let sums = here.port.exit & exit::SUMS != 0;
    if flags & NAT != 0 && !translate::<C, F>(ctx, heads, &Key { src: pair[0], dst: pair[1], rest }, sums) {
        return Some(C::DROP);
    }
    if flags & ROUTED != 0 && !route::<C, F>(ctx, link.dmac, link.smac, sums) {
        return Some(C::DROP);
    }
    if flags & IPIP != 0 && here.flags & (flag::ASKED | flag::DRY) == 0 {
        if ip_in_ip::<C, F>(ctx, [out.mac, link.outer_smac], &pair, heads.tos) {
            count(here.number, out.port as u32, length, ctx.len());
            return Some(ctx.send(out.port, egress, here.port.side, here.globals));
        }
    }
    if flags & (TUNNEL | IPIP) != 0 {
        return Some(encapsulate::<C, F>(ctx, here, heads, flags, &out, &pair, rest, &link));
    }
    if here.flags & flag::ASKED != 0 {
        return Some(answer(ctx, here, out.port, flags));
    }
    Some(ctx.send(out.port, egress, here.port.side, here.globals))
}

/// Leaves the packet to the program that puts outer headers before it.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // inlined into its one caller
fn encapsulate<C: Ctx, F: Family>(
    ctx: C,
    here: &Here<'_>,
    heads: &Heads,
    flags: u8,
    out: &Exit,
    pair: &[Addr; 2],
    ports: u64,
    link: &Way,
) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let family = if F::PLACES == V4::PLACES { family::V4 } else { family::V6 };
    p.flags = here.flags & (flag::ASKED | flag::DRY) | if heads.df { flag::DF } else { 0 };
    (p.port, p.outer_port, p.side) = (here.number as u16, here.number as u16, here.port.side);
    (p.len, p.ended, p.choices) = (ctx.len(), 0, 0);
    (p.family, p.protocol, p.tos, p.ttl) = (family, rest::protocol(ports), heads.tos, heads.ttl);
    p.routed = (flags & ROUTED != 0) as u8;
    (p.new_sport, p.new_dport) = (rest::sport(ports), rest::dport(ports));
    (p.out_port, p.out_tunnel, p.tunnel_half) = (out.port, out.via, link.half);
    (p.outer_dmac, p.outer_smac) = (octets(out.mac), octets(link.outer_smac));
    if flags & TUNNEL != 0 {
        p.way = way::TUNNEL;
        [p.new_src, p.new_dst] = *pair;
    } else {
        p.way = way::IPIP;
        p.outer_family = family;
        (p.new_src, p.new_dst) = (heads.key.src, heads.key.dst);
        [p.outer_src, p.dsr_target] = *pair;
    }
    if p.flags & flag::ASKED != 0 {
        p.stages = met(here, flags);
        p.group = 0;
        clear_answer(ctx);
    }
    ctx.jump(code::program::ENCAPSULATE);
    C::DROP
}

/// The octets of a MAC.
#[inline(always)]
pub fn octets(mac: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = mac.to_ne_bytes();
    [a, b, c, d, e, f]
}

/// Counts a packet that is forwarded, with its lengths as it came and as it leaves.
#[inline(always)]
fn count(ingress: u32, egress: u32, came: u32, leaves: u32) {
    if let Some(counters) = COUNTERS.ptr(&ingress) {
        // SAFETY: this processor's own value, here and below.
        unsafe {
            (*counters).rx_packets += 1;
            (*counters).rx_bytes += came as u64;
            (*counters).forwarded += 1;
        }
    }
    if let Some(counters) = COUNTERS.ptr(&egress) {
        unsafe {
            (*counters).tx_packets += 1;
            (*counters).tx_bytes += leaves as u64;
        }
    }
}

/// Parse, port, source guard, conntrack, forward, TTL where routed, send.
#[inline(always)]
fn met(here: &Here<'_>, flags: u8) -> u32 {
    1 << 0
        | 1 << 1
        | 1 << 6
        | 1 << 10
        | 1 << 16
        | if here.port.flags & port::GUARDED != 0 { 1 << 3 } else { 0 }
        | if flags & ROUTED != 0 { 1 << 11 } else { 0 }
}

/// Begins an answer that another program will complete.
#[inline(always)]
fn clear_answer<C: Ctx>(ctx: C) {
    if let Some(answer) = ANSWERS.ptr(&0) {
        // SAFETY: this processor's own value, for which all zeroes is one.
        unsafe {
            *answer = core::mem::zeroed();
            (*answer).nonce = ctx.beside().nonce;
            (*answer).preferred = u32::MAX;
        }
    }
}

/// Tells whoever asks.
#[inline(always)]
fn answer<C: Ctx>(ctx: C, here: &Here<'_>, out_port: u16, flags: u8) -> i32 {
    if let Some(answer) = ANSWERS.ptr(&0) {
        // SAFETY: this processor's own value.
        unsafe {
            (*answer).nonce = ctx.beside().nonce;
            (*answer).fate = code::FORWARDED;
            (*answer).sent = 1;
            (*answer).choices = 0;
            (*answer).by = code::program::ENTRY as u8;
            (*answer).out_port = out_port;
            (*answer).tag = UNTAGGED;
            (*answer).in_tunnel = 0;
            (*answer).out_tunnel = 0;
            (*answer).group = 0;
            (*answer).stages = met(here, flags);
        }
    }
    C::DROP
}
