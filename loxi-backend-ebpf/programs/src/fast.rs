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

use crate::ctx::{Ctx, UNTAGGED, at};
use crate::finish::open;
use crate::maps::{ANSWERS, BRIDGES, COUNTERS, INTERFACES, PATH_MTUS, PORTS, STATIONS};
use crate::outer::ip_in_ip;
use crate::parse::{ETH, add32, ethertype, fold};
use crate::stage::forward::half_of_tunnel;
use crate::stage::packet;
use crate::table::{Family, Key, V4, V6, find_apart, find_home};
use core::mem::offset_of;
use loxi_ebpf_layout::flow::{
    AGES, BUSY, EntryV4, EntryV6, FAST, IPIP, NAT, Out, RECHECK, REPLY, ROUTED, TICK_SHIFT, TUNNEL, rest,
    state,
};
use loxi_ebpf_layout::l2::{Link, Port, Station, exit, port};
use loxi_ebpf_layout::l3::Interface;
use loxi_ebpf_layout::scratch::{Beside, Globals, flag, way};
use loxi_ebpf_layout::tunnel::Tunnel;
use loxi_ebpf_layout::{Addr, code, family};

/// TCP flags that move a connection's state, or may: FIN, SYN, RST.
const MOVING: u8 = 0x07;

/// What stays the same while a packet is looked at.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    /// Ingress port.
    pub port: &'a Port,
    /// What was said beside the packet.
    pub beside: Beside,
    /// What every packet reads.
    pub globals: &'a Globals,
    /// Now, ns.
    pub now: u64,
    /// The same in ticks.
    pub tick: u32,
}

/// A packet's headers as far as they are needed here.
pub struct Heads {
    /// Its flow.
    pub key: Key,
    dmac: u64,
    smac: u64,
    /// Length of the IP packet.
    pub len: u32,
    /// Length of network and transport header.
    headers: u32,
    ttl: u8,
    tos: u8,
    df: bool,
    /// Where the transport header is.
    l4: usize,
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

/// Ports or identifier and header length of a transport that can go the short way. The length is
/// what follows the IP header.
#[inline(always)]
fn transport<C: Ctx>(ctx: C, protocol: u8, l4: usize, len: u32, v6: bool) -> Option<(u16, u16, u32)> {
    match protocol {
        6 => {
            // SAFETY: `at` has checked these bytes, here and below.
            let words = unsafe { *at::<C, [u16; 8]>(ctx, l4)? };
            let [offset, flags] = words[6].to_ne_bytes();
            let header = (offset >> 4) as u32 * 4;
            if header < 20 || header > len || flags & MOVING != 0 {
                return None;
            }
            Some((words[0], words[1], header))
        }
        17 => {
            let words = unsafe { *at::<C, [u16; 4]>(ctx, l4)? };
            let told = u16::from_be(words[2]) as u32;
            // Without a checksum, IPv6 has rules of its own (RFC 6935).
            if told < 8 || told > len || words[3] == 0 && v6 {
                return None;
            }
            Some((words[0], words[1], 8))
        }
        1 | 58 => {
            let words = unsafe { *at::<C, [u16; 4]>(ctx, l4)? };
            let [kind, _] = words[0].to_ne_bytes();
            let query = if v6 { matches!(kind, 128 | 129) } else { matches!(kind, 0 | 8 | 13 | 14) };
            if len < 8 || !query {
                return None;
            }
            Some((words[2], words[2], 8))
        }
        _ => None,
    }
}

/// The two MACs of a frame.
#[inline(always)]
fn macs<C: Ctx>(ctx: C) -> Option<(u64, u64)> {
    // SAFETY: `at` has checked 12 bytes.
    let [a, b, c] = unsafe { *at::<C, [u32; 3]>(ctx, 0)? };
    Some((a as u64 | (b as u64 & 0xffff) << 32, (b >> 16) as u64 | (c as u64) << 16))
}

/// Reads the headers of an IPv4 packet that can go the short way.
#[inline(always)]
pub fn heads_v4<C: Ctx>(ctx: C, zone: u8) -> Option<Heads> {
    // SAFETY: `at` has checked 20 bytes.
    let w = unsafe { *at::<C, [u32; 5]>(ctx, ETH)? };
    let len = u16::from_be((w[0] >> 16) as u16) as u32;
    let fragment = u16::from_be((w[1] >> 16) as u16);
    let sum = w[0] as u64 + w[1] as u64 + w[2] as u64 + w[3] as u64 + w[4] as u64;
    if w[0] & 0xff != 0x45 || fragment & 0x3fff != 0 || fold(sum) != 0xffff {
        return None;
    }
    if len < 28 || ETH as u32 + len > ctx.len() {
        return None;
    }
    let (ttl, protocol) = (w[2] as u8, (w[2] >> 8) as u8);
    let (sport, dport, l4) = transport(ctx, protocol, ETH + 20, len - 20, false)?;
    let (dmac, smac) = macs(ctx)?;
    let key = Key {
        src: Addr([w[3], 0, 0, 0]),
        dst: Addr([w[4], 0, 0, 0]),
        rest: rest::key(sport, dport, protocol, zone),
    };
    let (tos, df) = ((w[0] >> 8) as u8, fragment & 0x4000 != 0);
    Some(Heads { key, dmac, smac, len, headers: 20 + l4, ttl, tos, df, l4: ETH + 20 })
}

/// Reads the headers of an IPv6 packet that can go the short way.
#[inline(always)]
pub fn heads_v6<C: Ctx>(ctx: C, zone: u8) -> Option<Heads> {
    // SAFETY: `at` has checked 40 bytes.
    let (w, src, dst) = unsafe {
        (*at::<C, [u32; 2]>(ctx, ETH)?, *at::<C, [u32; 4]>(ctx, ETH + 8)?, *at::<C, [u32; 4]>(ctx, ETH + 24)?)
    };
    let payload = u16::from_be(w[1] as u16) as u32;
    if w[0] & 0xf0 != 0x60 || payload < 8 || (ETH + 40) as u32 + payload > ctx.len() {
        return None;
    }
    let (next, ttl) = ((w[1] >> 16) as u8, (w[1] >> 24) as u8);
    let (sport, dport, l4) = transport(ctx, next, ETH + 40, payload, true)?;
    let (dmac, smac) = macs(ctx)?;
    let key = Key { src: Addr(src), dst: Addr(dst), rest: rest::key(sport, dport, next, zone) };
    let tos = (u32::from_be(w[0]) >> 20) as u8;
    let len = 40 + payload;
    Some(Heads { key, dmac, smac, len, headers: 40 + l4, ttl, tos, df: true, l4: ETH + 40 })
}

/// Whether a packet of this kind leaves its flow's state as it is.
#[inline(always)]
fn keeps(word: u64) -> bool {
    match rest::state(word) {
        state::ESTABLISHED | state::CLOSE_WAIT | state::REPLIED => true,
        state::UNREPLIED => rest::flags(word) & REPLY == 0,
        _ => false,
    }
}

#[inline(always)]
fn forward<C: Ctx, F: Family>(ctx: C, here: &Here<'_>, heads: &Heads) -> Option<i32> {
    let entry = match find_home::<F>(&heads.key) {
        Some(entry) => entry,
        None => find_apart::<F>(&heads.key)?.entry,
    };
    // SAFETY: words of the entry, each read at once; what was read is checked again below.
    let word = unsafe { F::rest(entry).read_volatile() };
    let flags = rest::flags(word);
    if flags & (FAST | BUSY) != FAST || !keeps(word) {
        return None;
    }
    let seen = unsafe { &mut *F::seen(entry) };
    if seen.epoch != here.globals.epoch as u32 {
        return None;
    }
    let age = here.tick.wrapping_sub(seen.seen);
    if age >= RECHECK || flags & AGES != 0 && (here.tick ^ seen.seen) / RECHECK != 0 {
        return None;
    }
    // SAFETY: as above.
    let out = unsafe { Exit::of(F::out(entry)) };
    if out.in_port as u32 != here.beside.port || !admitted(here.port, heads, flags, &out) {
        return None;
    }
    if here.port.flags & port::LEARN != 0 && !is_where_it_was(here, heads.smac) {
        return None;
    }
    let egress = PORTS.get(&(out.port as u32))?.pair.current();
    if egress.flags & port::OPEN == 0 {
        return None;
    }
    if C::XDP && egress.exit & exit::XDP == 0 && here.beside.flags & flag::ASKED == 0 {
        // TC may send there, if it follows.
        return if here.globals.xdp_only == 0 { Some(C::PASS) } else { None };
    }
    if flags & ROUTED != 0 && (heads.ttl <= 1 || ETH as u32 + heads.len != ctx.len()) {
        return None;
    }
    let link = link::<F>(egress, flags, &out)?;
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
    if here.beside.flags & flag::DRY == 0 {
        if seen.seen != here.tick {
            seen.seen = here.tick;
        }
        seen.packets += 1;
        seen.bytes += heads.len as u64;
        if flags & (TUNNEL | IPIP) == 0 {
            count(here.beside.port, out.port as u32, length, length);
        }
    }
    if flags & NAT != 0 && !translate::<C, F>(ctx, heads, &Key { src: pair[0], dst: pair[1], rest }) {
        return Some(C::DROP);
    }
    if flags & ROUTED != 0 && !route::<C, F>(ctx, link.dmac, link.smac) {
        return Some(C::DROP);
    }
    if flags & IPIP != 0 && here.beside.flags & (flag::ASKED | flag::DRY) == 0 {
        if ip_in_ip::<C, F>(ctx, [out.mac, link.outer_smac], &pair, heads.tos) {
            count(here.beside.port, out.port as u32, length, ctx.len());
            return Some(ctx.send(out.port, egress, here.port.side, here.globals));
        }
    }
    if flags & (TUNNEL | IPIP) != 0 {
        return Some(encapsulate::<C, F>(ctx, here, heads, flags, &out, &pair, rest, &link));
    }
    if here.beside.flags & flag::ASKED != 0 {
        return Some(answer::<C>(here, out.port, flags));
    }
    Some(ctx.send(out.port, egress, here.port.side, here.globals))
}

/// What the link of a way says.
struct Way {
    /// Largest packet.
    mtu: u32,
    /// Link layer of a routed packet; in a tunnel that of the inner frame.
    dmac: u64,
    smac: u64,
    /// Source of an outer frame.
    outer_smac: u64,
    /// The half of the tunnel that says so.
    half: u8,
}

/// Where packets go: an [`Out`], read in two words.
#[derive(Clone, Copy)]
struct Exit {
    port: u16,
    via: u16,
    in_port: u16,
    mac: u64,
}

const _: () =
    assert!(offset_of!(Out, via) == 2 && offset_of!(Out, in_port) == 4 && offset_of!(Out, mac) == 6);
const _: () = assert!(offset_of!(EntryV4, out) % 8 == 4 && offset_of!(EntryV6, out) % 8 == 4);

impl Exit {
    /// # Safety
    /// It is an entry's.
    #[inline(always)]
    unsafe fn of(out: *const Out) -> Self {
        // SAFETY: an entry's lies half a word before one, as asserted above.
        let (first, second) = unsafe { (*out.cast::<u32>(), *out.cast::<u8>().add(4).cast::<u64>()) };
        Self { port: first as u16, via: (first >> 16) as u16, in_port: second as u16, mac: second >> 16 }
    }
}

#[inline(always)]
fn link<F: Family>(egress: &Port, flags: u8, out: &Exit) -> Option<Way> {
    let mtu = egress.mtu as u32;
    if flags & (ROUTED | TUNNEL | IPIP) == 0 {
        return Some(Way { mtu, dmac: out.mac, smac: 0, outer_smac: 0, half: 0 });
    }
    let number = if flags & TUNNEL == 0 { out.via } else { egress.interface };
    let interface = INTERFACES.get(&(number as u32))?.current();
    let mtu = mtu.min(interface.mtu as u32);
    let smac = word(&interface.mac);
    if flags & IPIP != 0 {
        let header = if F::PLACES == V4::PLACES { 20 } else { 40 };
        return Some(Way { mtu: mtu.saturating_sub(header), dmac: out.mac, smac, outer_smac: smac, half: 0 });
    }
    if flags & TUNNEL == 0 {
        return Some(Way { mtu, dmac: out.mac, smac, outer_smac: smac, half: 0 });
    }
    let (tunnel, half) = half_of_tunnel(out.via)?;
    // A path that got narrower is the long way's to know, and a tunnel that changes.
    if tunnel.exists == 0 || PATH_MTUS.get(&tunnel.endpoint).is_none_or(|lowered| *lowered != 0) {
        return None;
    }
    let inner = open(tunnel.in_port)?;
    let mtu = mtu.saturating_sub(tunnel.overhead as u32).min(inner.mtu as u32);
    Some(Way { mtu, dmac: word(&tunnel.inner_dst), smac: word(&tunnel.inner_src), outer_smac: smac, half })
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
    p.flags = here.beside.flags & (flag::ASKED | flag::DRY) | if heads.df { flag::DF } else { 0 };
    (p.port, p.outer_port, p.side) = (here.beside.port as u16, here.beside.port as u16, here.port.side);
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
        clear_answer(here);
    }
    ctx.jump(code::program::ENCAPSULATE);
    C::DROP
}

/// A MAC as a number. Byte by byte, copying and comparing it would take ten instructions more.
#[inline(always)]
fn word(mac: &[u8; 6]) -> u64 {
    let halves: *const u16 = mac.as_ptr().cast();
    // SAFETY: six bytes; MACs in tables lie at even offsets.
    unsafe { *halves as u64 | (*halves.add(1) as u64) << 16 | (*halves.add(2) as u64) << 32 }
}

/// The octets of a MAC.
#[inline(always)]
fn octets(mac: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = mac.to_ne_bytes();
    [a, b, c, d, e, f]
}

const _: () = assert!(offset_of!(Port, mac) % 2 == 0 && offset_of!(Port, gateway) % 2 == 0);
const _: () = assert!(offset_of!(Interface, mac) % 2 == 0);
const _: () = assert!(offset_of!(Tunnel, inner_dst) % 2 == 0 && offset_of!(Tunnel, inner_src) % 2 == 0);

/// Whether the frame's link layer is that of the packet for which this was decided.
#[inline(always)]
fn admitted(ingress: &Port, heads: &Heads, flags: u8, out: &Exit) -> bool {
    let source = if ingress.flags & port::GUARDED != 0 {
        heads.smac == word(&ingress.mac)
    } else {
        heads.smac != 0 && heads.smac & 1 == 0
    };
    let wanted = if flags & ROUTED != 0 { word(&ingress.gateway) } else { out.mac };
    source && heads.dmac == wanted
}

/// Whether a learning bridge has the sender at this port; then it is seen there again. Its record
/// is written once a tick at most, so that the line stays every processor's.
#[inline(always)]
fn is_where_it_was(here: &Here<'_>, smac: u64) -> bool {
    let [a, b, c, d, e, f, ..] = smac.to_ne_bytes();
    let link = Link { id: here.port.bridge, vlan: here.port.vlan };
    let Some(known) = STATIONS.ptr(&Station { link, mac: [a, b, c, d, e, f], reserved: 0 }) else {
        return false;
    };
    // SAFETY: words of a value that stays while the program runs.
    unsafe {
        if (*known).fixed != 0 {
            return true;
        }
        let expires = (&raw const (*known).expires).read_volatile();
        if (*known).port as u32 != here.beside.port || (*known).tunnel != 0 || expires <= here.now {
            return false;
        }
        let Some(bridge) = BRIDGES.get(&(here.port.bridge as u32)) else { return false };
        let again = here.now + bridge.current().ageing;
        if (again ^ expires) >> TICK_SHIFT != 0 && here.beside.flags & flag::DRY == 0 {
            (&raw mut (*known).expires).write_volatile(again);
        }
    }
    true
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

/// The difference that replacing words makes to a checksum.
#[inline(always)]
pub fn difference(old: &Addr, new: &Addr, words: usize) -> u32 {
    let mut sum = 0u64;
    for n in 0..4 {
        if n < words {
            sum += (!old.0[n]) as u64 + new.0[n] as u64;
        }
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// Gives the packet the addresses and ports of its flow's translation.
#[inline(always)]
pub fn translate<C: Ctx, F: Family>(ctx: C, heads: &Heads, new: &Key) -> bool {
    let words = if F::PLACES == V4::PLACES { 1 } else { 4 };
    let old = &heads.key;
    let sources = difference(&old.src, &new.src, words);
    let addrs = add32(sources, difference(&old.dst, &new.dst, words));
    let (old_ports, new_ports) = (old.rest as u32, new.rest as u32);
    let protocol = rest::protocol(old.rest);
    // An identifier is one word, not a pair of ports.
    let icmp = protocol == 1 || protocol == 58;
    let ports =
        if icmp { (!old_ports & 0xffff) + (new_ports & 0xffff) } else { add32(!old_ports, new_ports) };
    let ports = if old_ports == new_ports { 0 } else { ports };
    let field = heads.l4
        + match protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        };
    // ICMP for IPv4 has no pseudo header (RFC 792).
    let pseudo = if protocol == 1 || old.src == new.src && old.dst == new.dst { 0 } else { addrs };
    if !ctx.checksum(field as u32, pseudo, ports, protocol == 17) {
        return false;
    }
    if words == 1 {
        let Some(ip) = at::<C, [u32; 5]>(ctx, ETH) else { return false };
        // SAFETY: `at` has checked 20 bytes.
        unsafe {
            let check = ((*ip)[2] >> 16) as u16;
            let sum = (!check) as u64 + addrs as u64;
            (*ip)[2] = (*ip)[2] & 0xffff | (!fold(sum) as u32) << 16;
            (*ip)[3] = new.src.0[0];
            (*ip)[4] = new.dst.0[0];
        }
    } else {
        let Some(ip) = at::<C, [[u32; 4]; 2]>(ctx, ETH + 8) else { return false };
        // SAFETY: as above, 32 bytes.
        unsafe { *ip = [new.src.0, new.dst.0] };
    }
    if icmp {
        let Some(id) = at::<C, u16>(ctx, heads.l4 + 4) else { return false };
        // SAFETY: as above, 2 bytes.
        unsafe { *id = new_ports as u16 };
    } else {
        let Some(ports) = at::<C, u32>(ctx, heads.l4) else { return false };
        // SAFETY: as above, 4 bytes.
        unsafe { *ports = new_ports };
    }
    true
}

/// The word of TTL, protocol and checksum, one hop later (RFC 1624): the TTL is its first byte, so
/// the checksum grows by one in this machine's order. All ones is zero.
#[inline(always)]
pub fn older(word: u32) -> u32 {
    let check = (word >> 16) + 1;
    let check = if check >= 0xffff { check + 1 } else { check };
    (word & 0xffff) - 1 | check << 16
}

/// A new link layer, one hop less.
#[inline(always)]
fn route<C: Ctx, F: Family>(ctx: C, dmac: u64, smac: u64) -> bool {
    let Some(frame) = at::<C, [u8; ETH + 12]>(ctx, 0) else { return false };
    let frame: *mut u8 = frame.cast();
    // SAFETY: `at` has checked 26 bytes.
    unsafe {
        *frame.cast::<[u32; 3]>() = [dmac as u32, (dmac >> 32 | smac << 16) as u32, (smac >> 16) as u32];
        if F::PLACES == V4::PLACES {
            let word = frame.add(ETH + 8).cast::<u32>();
            let old = *word;
            *word = older(old);
        } else {
            *frame.add(ETH + 7) -= 1;
        }
    }
    true
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
fn clear_answer(here: &Here<'_>) {
    if let Some(answer) = ANSWERS.ptr(&0) {
        // SAFETY: this processor's own value, for which all zeroes is one.
        unsafe {
            *answer = core::mem::zeroed();
            (*answer).nonce = here.beside.nonce;
            (*answer).preferred = u32::MAX;
        }
    }
}

/// Tells whoever asks.
#[inline(always)]
fn answer<C: Ctx>(here: &Here<'_>, out_port: u16, flags: u8) -> i32 {
    if let Some(answer) = ANSWERS.ptr(&0) {
        // SAFETY: this processor's own value.
        unsafe {
            (*answer).nonce = here.beside.nonce;
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
