//! The end of a packet that did not leave: counted, told, handed on.

use crate::ctx::{Ctx, globals};
use crate::maps::{COUNTERS, DROPS, FATES, TOLD, TURNS};
use crate::stage::commit::{remember_fragment, touch};
use crate::stage::forward::tc_follows;
use crate::stage::{answer, is_drop, packet, port_of, tick};
use crate::table::{V4, V6};
use aya_ebpf::helpers::bpf_ringbuf_output;
use loxi_ebpf_layout::code::{self, FATES as MOST_FATES};
use loxi_ebpf_layout::count::{Told, punt_tag};
use loxi_ebpf_layout::family;
use loxi_ebpf_layout::flow::RECHECK;
use loxi_ebpf_layout::scratch::{Packet, flag, tracking};

/// Counts the packet's fate and acts on it.
#[inline(always)]
pub fn finish<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let fate = p.fate;
    if p.flags & flag::ASKED != 0 {
        tell_asker(p);
    }
    if code::is_unfinished(fate) {
        return hand_on(ctx, p);
    }
    if C::XDP && fate >= code::PUNTED && p.flags & flag::ASKED == 0 && tc_follows() {
        // Nothing of it has changed: it comes by again, to be counted there.
        return C::PASS;
    }
    if p.tracking == tracking::ESTABLISHED {
        if p.family == family::V4 { touch::<V4>(p) } else { touch::<V6>(p) }
    }
    let reason = if is_drop(fate) { fate } else { 0 };
    if reason != 0 || p.tracking != tracking::UNTRACKED {
        remember_fragment(p, reason);
    }
    count(p, fate);
    if is_drop(fate) {
        tell(p);
    }
    if fate >= code::PUNTED && p.flags & flag::ASKED == 0 { C::PASS } else { C::DROP }
}

/// Counts a packet once by its fate, at its port and at the tunnel port of an inner packet.
#[inline(always)]
pub fn count(p: &Packet, fate: u8) {
    if p.flags & flag::DRY != 0 {
        return;
    }
    count_at(p.outer_port, p.len, fate);
    if p.ended != 0 {
        count_at(p.port, p.len, fate);
    }
}

#[inline(always)]
fn count_at(port: u16, len: u32, fate: u8) {
    if let Some(counters) = COUNTERS.ptr(&(port as u32)) {
        // SAFETY: this processor's own value, here and below.
        unsafe {
            (*counters).rx_packets += 1;
            (*counters).rx_bytes += len as u64;
            if fate == code::FORWARDED {
                (*counters).forwarded += 1;
            }
        }
    }
    if fate != code::FORWARDED
        && let Some(fates) = FATES.ptr(&(port as u32))
    {
        unsafe { (*fates).by_fate[fate as usize] += 1 };
    }
}

/// Counts a frame that leaves.
#[inline(always)]
pub fn count_sent(p: &Packet, port: u16, len: u32) {
    if p.flags & flag::DRY == 0
        && let Some(counters) = COUNTERS.ptr(&(port as u32))
    {
        unsafe {
            (*counters).tx_packets += 1;
            (*counters).tx_bytes += len as u64;
        }
    }
}

/// Tells whoever asks what became of the packet.
#[inline(always)]
pub fn tell_asker(p: &Packet) {
    if let Some(answer) = answer() {
        answer.fate = p.fate;
        answer.by = p.by;
        answer.stages = p.stages;
        answer.choices = p.choices;
        answer.in_tunnel = if p.ended != 0 { p.port } else { 0 };
        (answer.group, answer.word, answer.bit) = (p.group, p.word, p.bit);
    }
}

/// A packet that begins anew elsewhere takes back what it has taken.
#[inline(always)]
pub fn give_back(p: &Packet) {
    if p.flags & flag::TURN != 0
        && let Some(turns) = TURNS.ptr(&p.service)
    {
        crate::atomic::add(turns, u64::MAX);
    }
}

/// Hands the packet, as it came, to the daemon.
#[inline(always)]
fn hand_on<C: Ctx>(ctx: C, p: &Packet) -> i32 {
    give_back(p);
    if p.flags & flag::ASKED != 0 {
        return C::DROP;
    }
    if C::XDP && tc_follows() {
        return C::PASS;
    }
    if let Some(counters) = COUNTERS.ptr(&(p.outer_port as u32)) {
        // SAFETY: this processor's own value.
        unsafe { (*counters).handed_on += 1 };
    }
    let Some(globals) = globals() else { return C::DROP };
    if globals.slow_path == 0 {
        count(p, code::drop::UNSUPPORTED.get());
        return C::DROP;
    }
    if !ctx.push_tag(punt_tag(p.outer_port, p.fate - code::PUNTED)) {
        return C::DROP;
    }
    ctx.send_to_slow_path(p.side, globals)
}

/// Tells of a drop, at most once a second for a port and reason.
#[inline(always)]
fn tell(p: &Packet) {
    if p.flags & flag::DRY != 0 {
        return;
    }
    let Some(last) = TOLD.ptr(&(p.outer_port as u32 * MOST_FATES + p.fate as u32)) else { return };
    let now = tick(p.now);
    // SAFETY: a word of an array.
    unsafe {
        let before = last.read_volatile();
        if before != 0 && now.wrapping_sub(before as u32) < RECHECK {
            return;
        }
        last.write_volatile(now as u64);
    }
    output(&Told {
        at: p.now,
        port: p.outer_port,
        reason: p.fate,
        family: p.family,
        protocol: p.protocol,
        reserved: 0,
        sport: p.sport,
        addrs: [p.src, p.dst],
        macs: [p.smac, p.dmac],
        dport: p.dport,
        padding: 0,
    });
}

#[inline(always)]
fn output(told: &Told) {
    // SAFETY: the whole value is given; nobody listening is no error.
    unsafe {
        bpf_ringbuf_output(
            DROPS.raw(),
            core::ptr::from_ref(told).cast_mut().cast(),
            size_of::<Told>() as u64,
            0,
        );
    }
}

/// The attributes of the port by which a packet leaves, if it is open.
#[inline(always)]
pub fn open(number: u16) -> Option<&'static loxi_ebpf_layout::l2::Port> {
    port_of(number).filter(|port| port.flags & loxi_ebpf_layout::l2::port::OPEN != 0)
}
