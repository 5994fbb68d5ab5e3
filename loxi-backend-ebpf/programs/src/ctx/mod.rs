//! The hook that a program runs at: what of a frame can be read, and how it is changed and sent.
//!
//! # Contract
//! - Pointers into the frame are good until the next call that changes it.
//! - Offsets that come from the frame are masked before they are used: the
//!   verifier must see their range.

mod tc;
mod xdp;

pub use tc::Tc;
pub use xdp::{Xdp, ask};

use crate::maps::GLOBALS;
use core::ffi::c_void;
use loxi_ebpf_layout::l2::Port;
use loxi_ebpf_layout::scratch::{Beside, Globals};

/// Offsets of headers in a frame are below this.
pub const OFFSET: usize = 0x1ff;

/// No tag.
pub const UNTAGGED: u16 = 0xffff;

/// A frame at a hook.
pub trait Ctx: Copy {
    /// Whether this is XDP: no segments, no partial checksums, no metadata.
    const XDP: bool;
    /// What lets the frame go on to the next program or the stack.
    const PASS: i32;
    /// What drops it.
    const DROP: i32;

    /// What helpers take.
    fn raw(self) -> *mut c_void;
    /// Where it begins.
    fn data(self) -> usize;
    /// Where what can be read of it ends.
    fn data_end(self) -> usize;
    /// Its length.
    fn len(self) -> u32;
    /// The 802.1Q tag that was taken out of it, or [`UNTAGGED`].
    fn tag(self) -> u16;
    /// What the stub, or whoever asks, says beside it.
    fn beside(self) -> Beside;
    /// Mark that another program of ours has given it; 0: none.
    fn mark(self) -> u32;
    /// Takes the mark away.
    fn unmark(self);
    /// Payload of its segments; 0: it is one packet.
    fn segment(self) -> u32;
    /// Makes the first `n` bytes readable. Pointers are void.
    fn pull(self, n: u32);

    /// Changes a checksum by the difference of the pseudo header and of the rest. `udp`: 0 stays 0.
    fn checksum(self, at: u32, pseudo: u32, rest: u32, udp: bool) -> bool;
    /// Adds a difference to the checksum that a device has taken of all of the frame, if there is one.
    fn whole_sum(self, difference: u32);
    /// Takes out the tag that is in the frame.
    fn untag(self) -> bool;
    /// Puts a tag in, or beside it.
    fn push_tag(self, tci: u16) -> bool;
    /// Takes `n` bytes out behind the first 14; the inner packet's family.
    fn shrink(self, n: u32, family: u8) -> bool;
    /// Puts `n` bytes in behind the first 14, for an encapsulation.
    fn grow(self, n: u32, how: Grow) -> bool;
    /// Puts `n` bytes in front of everything.
    fn push(self, n: u32) -> bool;
    /// Cuts it to `n` bytes, or makes it longer; what is new is to be written.
    fn resize(self, n: u32) -> bool;
    /// Sends it by a port from a program of `side`; what the program is to return.
    fn send(self, port: u16, to: &Port, side: u8, globals: &Globals) -> i32;
    /// Sends it to the slow path's device.
    fn send_to_slow_path(self, side: u8, globals: &Globals) -> i32;
    /// Jumps to another program; returns if there is none.
    fn jump(self, program: u32);
    /// The clock that can be read at this price, ns.
    fn clock(self) -> u64;
}

/// What an encapsulation puts in.
#[derive(Clone, Copy)]
pub struct Grow {
    /// Outer header is IPv6.
    pub v6: bool,
    /// UDP, VXLAN and an inner Ethernet header follow it.
    pub vxlan: bool,
    /// The inner packet's family; 0: it is no IP.
    pub inner: u8,
}

/// A value in the frame. `None`: it isn't all there.
#[inline(always)]
pub fn at<C: Ctx, T>(ctx: C, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + (offset & OFFSET);
    let mut end = start + size_of::<T>();
    if size_of::<T>() == 1 {
        // SAFETY: adds nothing. The compiler would turn a comparison of one byte more into one
        // that tells the verifier nothing.
        unsafe { core::arch::asm!("{0} += 0", inout(reg) end, options(pure, nomem, nostack)) };
    }
    if end > ctx.data_end() { None } else { Some(start as *mut T) }
}

/// Reads a value of the frame.
#[inline(always)]
pub fn read<C: Ctx, T: Copy>(ctx: C, offset: usize) -> Option<T> {
    // SAFETY: the whole value lies within the frame, as `at` has just checked; packets
    // may be read at any alignment here.
    at::<C, T>(ctx, offset).map(|place| unsafe { *place })
}

/// Writes a value of the frame; whether it is there.
#[inline(always)]
pub fn write<C: Ctx, T: Copy>(ctx: C, offset: usize, value: T) -> bool {
    match at::<C, T>(ctx, offset) {
        Some(place) => {
            // SAFETY: as for `read`.
            unsafe { *place = value };
            true
        }
        None => false,
    }
}

/// What every packet reads.
#[inline(always)]
pub fn globals() -> Option<&'static Globals> {
    GLOBALS.get(&0)
}
