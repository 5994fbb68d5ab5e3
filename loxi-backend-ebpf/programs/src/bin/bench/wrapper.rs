//! The wrapper: it makes the next flow's frame and leaves beside it what a port's stub would.
//!
//! The kernel repeats a test run on one and the same frame. So the headers are
//! written anew each time, with the next flow's source in them.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use loxi_ebpf_layout::bench::{Frames, STEP, WORDS_AT, number, shape, source};
use loxi_ebpf_programs::ctx::{Ctx, at};
use loxi_ebpf_programs::maps::Table;
use loxi_ebpf_programs::parse::fold;

/// The frames.
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "FRAMES")]
pub static FRAMES: Table<u32, Frames> = Table::new(BPF_MAP_TYPE_ARRAY, 1, BPF_F_MMAPABLE);

/// Makes the next frame. `None`: it can't be, and nothing is measured.
#[inline(always)]
pub fn next<C: Ctx>(ctx: C, resize: impl FnOnce(&Frames) -> bool) -> Option<&'static Frames> {
    // SAFETY: one processor runs the benchmark.
    let frames = unsafe { &mut *FRAMES.ptr(&0)? };
    frames.state = frames.state.wrapping_mul(STEP.0).wrapping_add(STEP.1);
    if !resize(frames) {
        return None;
    }
    match frames.shape {
        0 => fill::<C, 0, 8>(ctx, frames),
        1 => fill::<C, 1, 9>(ctx, frames),
        2 => fill::<C, 2, 16>(ctx, frames),
        _ => fill::<C, 3, 16>(ctx, frames),
    }
}

/// Writes the headers of a shape, as many words as it has.
#[inline(always)]
fn fill<C: Ctx, const SHAPE: usize, const WORDS: usize>(
    ctx: C,
    frames: &'static Frames,
) -> Option<&'static Frames> {
    let shape = shape::ALL[SHAPE];
    let (port, addr) = source(number(frames.state, frames.mask));
    let (port, addr) = (port.to_be(), addr.to_be());
    let ip_check = !fold(frames.ip_sum as u64 + addr as u64);
    let l4_check = !fold(frames.l4_sum as u64 + addr as u64 + port as u64);
    let frame: *mut u8 =
        if WORDS < 10 { at::<C, [u8; 78]>(ctx, 0)?.cast() } else { at::<C, [u8; 134]>(ctx, 0)?.cast() };
    // SAFETY: `at` has checked as many bytes as are written.
    unsafe {
        frame.cast::<u64>().write_unaligned(frames.head);
        let mut n = 0;
        while n < WORDS {
            let differs = part(n, shape.port, port)
                | part(n, shape.addr, addr)
                | part(n, shape.l4_check, l4_check)
                | if shape.ip_check == 0 { 0 } else { part(n, shape.ip_check, ip_check) };
            *frame.add(WORDS_AT + 8 * n).cast::<u64>() = frames.words[n] | differs;
            n += 1;
        }
    }
    Some(frames)
}

/// What two bytes at an offset of the frame are to a word.
#[inline(always)]
fn part(word: usize, offset: usize, value: u16) -> u64 {
    let at = offset.wrapping_sub(WORDS_AT + 8 * word);
    if at < 8 { (value as u64) << (8 * at) } else { 0 }
}
