//! The first program: the short way, or the beginning of the long one.

use crate::ctx::{Ctx, UNTAGGED, globals};
use crate::fast::{Here, try_fast};
use crate::maps::{ANSWERS, PORTS, QUESTION};
use crate::parse::parse;
use crate::stage::{go, packet, port_of};
use loxi_ebpf_layout::code::program;
use loxi_ebpf_layout::count::{CROSSING, CROSSING_STUB, SLOW_PATH, of_punt_tag};
use loxi_ebpf_layout::l2::{kind, port, side};
use loxi_ebpf_layout::scratch::{Answer, Globals, Packet, flag};

/// Bytes that must be readable at once: outer headers of IPv6 and VXLAN, inner Ethernet, IPv6, a fragment header, TCP.
const READABLE: u32 = 192;

/// Looks at a frame for the first time.
#[inline(always)]
pub fn entry<C: Ctx>(ctx: C) -> i32 {
    let Some(globals) = globals() else { return C::DROP };
    let beside = ctx.beside();
    let asked = beside.flags & flag::ASKED != 0;
    let Some(port) = PORTS.get(&beside.port).map(|pair| pair.pair.current()) else {
        return if !C::XDP && beside.port == SLOW_PATH { finished(ctx, globals) } else { C::DROP };
    };
    if !C::XDP && !asked && (port.kind == kind::HOST || beside.port == CROSSING_STUB) {
        let mark = ctx.mark();
        if mark & 0xffff_0000 == CROSSING {
            let at = if beside.port == CROSSING_STUB { side::ROOT } else { side::DATAPLANE };
            return deliver(ctx, mark as u16, at, globals);
        }
        if beside.port == CROSSING_STUB {
            return C::PASS;
        }
    }
    if port.flags & port::EXISTS == 0 && !asked {
        return C::PASS;
    }
    let len = ctx.len();
    if !C::XDP && ctx.data() + 64 > ctx.data_end() && ctx.data() + len as usize > ctx.data_end() {
        ctx.pull(if len < READABLE { len } else { READABLE });
    }
    let here = Here { port, number: beside.port, flags: beside.flags, globals };
    if let Some(action) = try_fast(ctx, &here) {
        return action;
    }
    long_way(ctx, &here)
}

/// A frame that the slow path sends. It has counted it.
#[inline(always)]
fn finished<C: Ctx>(ctx: C, globals: &Globals) -> i32 {
    let tag = ctx.tag();
    if tag == UNTAGGED || !ctx.untag() {
        return C::DROP;
    }
    let (number, _) = of_punt_tag(tag);
    match port_of(number) {
        Some(port) => ctx.send(number, port, side::DATAPLANE, globals),
        None => C::DROP,
    }
}

/// A frame whose fate was sealed in the other namespace.
#[inline(always)]
fn deliver<C: Ctx>(ctx: C, number: u16, at: u8, globals: &Globals) -> i32 {
    ctx.unmark();
    if number == u16::MAX {
        return ctx.send_to_slow_path(at, globals);
    }
    match port_of(number) {
        Some(port) if port.side == at => ctx.send(number, port, at, globals),
        _ => C::DROP,
    }
}

/// Random bits for a packet's choices: those that whoever asks has given.
#[inline(always)]
fn random(asked: bool) -> u32 {
    if asked
        && let Some(question) = QUESTION.get(&0)
        && question.seeded != 0
    {
        return question.random;
    }
    super::random()
}

#[inline(always)]
fn long_way<C: Ctx>(ctx: C, here: &Here<'_>) -> i32 {
    let Here { port, number, flags, globals } = *here;
    let Some(p) = packet() else { return C::DROP };
    // SAFETY: all zeroes is a packet: it has integers and arrays of them only.
    *p = unsafe { core::mem::zeroed::<Packet>() };
    p.now = here.now(ctx);
    p.epoch = globals.epoch as u32;
    p.flags = flags & (flag::ASKED | flag::DRY);
    p.port = number as u16;
    p.outer_port = number as u16;
    p.side = port.side;
    p.len = ctx.len();
    p.end = p.len;
    p.tag = ctx.tag();
    p.random = random(p.flags & flag::ASKED != 0);
    p.stages = 1;
    if p.flags & flag::ASKED != 0
        && let Some(answer) = ANSWERS.ptr(&0)
    {
        // SAFETY: this processor's own value, for which all zeroes is one.
        unsafe {
            *answer = core::mem::zeroed::<Answer>();
            (*answer).nonce = ctx.beside().nonce;
            (*answer).preferred = u32::MAX;
        }
    }
    if ctx.data() + READABLE as usize > ctx.data_end() && !C::XDP {
        ctx.pull(if p.len < READABLE { p.len } else { READABLE });
    }
    let parsed = parse(ctx, p).map(|()| program::INGRESS);
    go(ctx, p, program::ENTRY, parsed)
}
