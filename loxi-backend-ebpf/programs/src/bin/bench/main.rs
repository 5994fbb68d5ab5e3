//! The programs of the benchmarks, for both kinds of hooks.
//!
//! A test run repeats `run`, which makes a frame and jumps to the program to be measured. Around `empty` it
//! costs the same: the difference is the measured program's.
#![no_std]
#![no_main]

mod floor;
mod wrapper;

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::*;
use aya_ebpf::helpers::*;
use floor::{Array, Hash, Lru, floor, floor_flows};
use loxi_ebpf_layout::bench::{Frames, resize};
use loxi_ebpf_layout::scratch::Beside;
use loxi_ebpf_programs::ctx::{Ctx, Tc, Xdp};
use loxi_ebpf_programs::maps::{BESIDE, Table};
use wrapper::next;

/// The program to be measured.
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "MEASURED_TC")]
static MEASURED_TC: Table<u32, u32> = Table::new(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY, 1, 0);
/// The program to be measured.
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "MEASURED_XDP")]
static MEASURED_XDP: Table<u32, u32> = Table::new(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY, 1, 0);

macro_rules! programs {
    ($section:literal, $frame:ty, $ctx:path: $($name:ident => $run:expr),+ $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            #[unsafe(link_section = $section)]
            fn $name(frame: *mut $frame) -> i32 {
                $run($ctx(frame))
            }
        )+
    };
}

programs! {
    "classifier", __sk_buff, Tc:
    tc_run => run_tc,
    tc_empty => |_| Tc::PASS,
    tc_floor_array => floor::<Tc, Array>,
    tc_floor_hash => floor::<Tc, Hash>,
    tc_floor_lru => floor::<Tc, Lru>,
    tc_floor_flows => floor_flows::<Tc>,
}

programs! {
    "xdp", xdp_md, Xdp:
    xdp_run => run_xdp,
    xdp_empty => |_| Xdp::PASS,
    xdp_floor_array => floor::<Xdp, Array>,
    xdp_floor_hash => floor::<Xdp, Hash>,
    xdp_floor_lru => floor::<Xdp, Lru>,
    xdp_floor_flows => floor_flows::<Xdp>,
}

/// `PACKET_OTHERHOST` of linux/if_packet.h: what a device says of a frame to another MAC than its own,
/// as nearly every frame is at a port.
const PACKET_OTHERHOST: u32 = 3;

#[inline(always)]
fn run_tc(ctx: Tc) -> i32 {
    let resized = |frames: &Frames| {
        let more = ctx.len() as i32 - frames.len as i32;
        // SAFETY: the helper checks everything.
        more == 0
            || frames.resize != resize::NONE
                && unsafe {
                    bpf_skb_adjust_room(ctx.0, -more, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO as u64)
                } == 0
    };
    let Some(frames) = next(ctx, resized) else { return Tc::DROP };
    // SAFETY: the context is the program's own.
    unsafe {
        bpf_skb_change_type(ctx.0, PACKET_OTHERHOST);
        (*ctx.0).cb[0] = frames.port;
        (*ctx.0).cb[1] = 0;
        bpf_tail_call(ctx.raw(), MEASURED_TC.raw(), 0);
    }
    Tc::DROP
}

#[inline(always)]
fn run_xdp(ctx: Xdp) -> i32 {
    let resized = |frames: &Frames| {
        // Always, so that around an empty program this costs as much.
        // SAFETY: the helper checks everything.
        frames.resize == resize::NONE
            || unsafe { bpf_xdp_adjust_head(ctx.0, ctx.len() as i32 - frames.len as i32) } == 0
    };
    let Some(frames) = next(ctx, resized) else { return Xdp::DROP };
    let Some(beside) = BESIDE.ptr(&0) else { return Xdp::DROP };
    // SAFETY: this processor's own value.
    unsafe {
        *beside = Beside { port: frames.port, ..Beside::default() };
        bpf_tail_call(ctx.raw(), MEASURED_XDP.raw(), 0);
    }
    Xdp::DROP
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier admits no program that could.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
