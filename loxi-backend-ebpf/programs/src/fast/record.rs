//! What a flow's record says of a packet, and whether that still holds.

use crate::finish::open;
use crate::maps::{BRIDGES, INTERFACES, PATH_MTUS, PORTS, STATIONS};
use crate::stage::forward::half_of_tunnel;
use crate::stage::tick;
use crate::table::{Family, V4};
use core::mem::offset_of;
use loxi_ebpf_layout::flow::{
    AGES, BUSY, EntryV4, EntryV6, FAST, IPIP, Out, RECHECK, REPLY, ROUTED, TICK_SHIFT, TUNNEL, rest, state,
};
use loxi_ebpf_layout::l2::{Link, Port, Station, port};
use loxi_ebpf_layout::l3::Interface;
use loxi_ebpf_layout::tunnel::Tunnel;

/// What is compared with the packet for which a record was decided.
pub struct Arrival {
    /// Ingress port.
    pub port: u16,
    /// The tunnel back to where it comes from; 0: none.
    pub tunnel: u16,
    /// Destination MAC.
    pub dmac: u64,
    /// Source MAC.
    pub smac: u64,
    /// TTL.
    pub ttl: u8,
    /// Epoch of the configuration.
    pub epoch: u32,
    /// Now, ns.
    pub now: u64,
    /// Nothing may be written.
    pub dry: bool,
}

/// What becomes of the packet.
pub struct Decided<'a> {
    /// The record's flags.
    pub flags: u8,
    /// Where to.
    pub out: Exit,
    /// The port by which it leaves.
    pub egress: &'a Port,
    /// What the link of that says.
    pub way: Way,
}

/// What a record says, if that holds for a packet that came in by `ingress`. `word` was read from the record;
/// the caller looks at it again when it has read what it wants.
#[inline(always)]
pub fn decided<'a, F: Family>(
    ingress: &Port,
    arrival: &Arrival,
    entry: *mut F::Entry,
    word: u64,
) -> Option<Decided<'a>> {
    let flags = rest::flags(word);
    if flags & (FAST | BUSY) != FAST || !keeps(word) {
        return None;
    }
    let tick = tick(arrival.now);
    // SAFETY: words of the entry, each read at once, here and below.
    let seen = unsafe { &*F::seen(entry) };
    if seen.epoch != arrival.epoch {
        return None;
    }
    let age = tick.wrapping_sub(seen.seen);
    if age >= RECHECK || flags & AGES != 0 && (tick ^ seen.seen) / RECHECK != 0 {
        return None;
    }
    let out = unsafe { Exit::of(F::out(entry)) };
    if out.in_port != arrival.port || !admitted(ingress, arrival, flags, &out) {
        return None;
    }
    if ingress.flags & port::LEARN != 0 && !is_where_it_was(ingress, arrival) {
        return None;
    }
    let egress = PORTS.get(&(out.port as u32))?.pair.current();
    if egress.flags & port::OPEN == 0 {
        return None;
    }
    if flags & ROUTED != 0 && arrival.ttl <= 1 {
        return None;
    }
    let way = link::<F>(egress, flags, &out)?;
    Some(Decided { flags, out, egress, way })
}

/// The flow takes note of a packet.
#[inline(always)]
pub fn note<F: Family>(entry: *mut F::Entry, now: u64, bytes: u32) {
    let tick = tick(now);
    // SAFETY: words of the entry, written by whoever handles the packet.
    let seen = unsafe { &mut *F::seen(entry) };
    if seen.seen != tick {
        seen.seen = tick;
    }
    seen.packets += 1;
    seen.bytes += bytes as u64;
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

/// What the link of a way says.
pub struct Way {
    /// Largest packet.
    pub mtu: u32,
    /// Link layer of a routed packet; in a tunnel that of the inner frame.
    pub dmac: u64,
    /// See `dmac`.
    pub smac: u64,
    /// Source of an outer frame.
    pub outer_smac: u64,
    /// The half of the tunnel that says so.
    pub half: u8,
}

/// Where packets go: an [`Out`], read in two words.
#[derive(Clone, Copy)]
pub struct Exit {
    /// Port by which they leave.
    pub port: u16,
    /// Interface or tunnel.
    pub via: u16,
    in_port: u16,
    /// Destination MAC.
    pub mac: u64,
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

/// A MAC as a number. Byte by byte, copying and comparing it would take ten instructions more.
#[inline(always)]
pub fn word(mac: &[u8; 6]) -> u64 {
    let halves: *const u16 = mac.as_ptr().cast();
    // SAFETY: six bytes; MACs in tables lie at even offsets.
    unsafe { *halves as u64 | (*halves.add(1) as u64) << 16 | (*halves.add(2) as u64) << 32 }
}

const _: () = assert!(offset_of!(Port, mac) % 2 == 0 && offset_of!(Port, gateway) % 2 == 0);
const _: () = assert!(offset_of!(Interface, mac) % 2 == 0);
const _: () = assert!(offset_of!(Tunnel, inner_dst) % 2 == 0 && offset_of!(Tunnel, inner_src) % 2 == 0);

/// Whether the frame's link layer is that of the packet for which this was decided.
#[inline(always)]
fn admitted(ingress: &Port, arrival: &Arrival, flags: u8, out: &Exit) -> bool {
    let source = if ingress.flags & port::GUARDED != 0 {
        arrival.smac == word(&ingress.mac)
    } else {
        arrival.smac != 0 && arrival.smac & 1 == 0
    };
    let wanted = if flags & ROUTED != 0 { word(&ingress.gateway) } else { out.mac };
    source && arrival.dmac == wanted
}

/// Whether a learning bridge has the sender where the packet comes from; then it is seen there again. Its
/// record is written once a tick at most, so that the line stays every processor's.
#[inline(always)]
fn is_where_it_was(ingress: &Port, arrival: &Arrival) -> bool {
    let [a, b, c, d, e, f, ..] = arrival.smac.to_ne_bytes();
    let link = Link { id: ingress.bridge, vlan: ingress.vlan };
    let Some(known) = STATIONS.ptr(&Station { link, mac: [a, b, c, d, e, f], reserved: 0 }) else {
        return false;
    };
    // SAFETY: words of a value that stays while the program runs.
    unsafe {
        if (*known).fixed != 0 {
            return true;
        }
        let expires = (&raw const (*known).expires).read_volatile();
        let there = (*known).port == arrival.port && (*known).tunnel == arrival.tunnel;
        if !there || expires <= arrival.now {
            return false;
        }
        let Some(bridge) = BRIDGES.get(&(ingress.bridge as u32)) else { return false };
        let again = arrival.now + bridge.current().ageing;
        if (again ^ expires) >> TICK_SHIFT != 0 && !arrival.dry {
            (&raw mut (*known).expires).write_volatile(again);
        }
    }
    true
}
