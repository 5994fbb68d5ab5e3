//! A frame at XDP.

use super::{Ctx, Grow, UNTAGGED, at};
use crate::maps::{BESIDE, DEVICES, PROGRAMS};
use aya_ebpf::bindings::{xdp_action::*, xdp_md};
use aya_ebpf::helpers::*;
use core::ffi::c_void;
use loxi_ebpf_layout::code::program;
use loxi_ebpf_layout::l2::Port;
use loxi_ebpf_layout::limits;
use loxi_ebpf_layout::scratch::{Beside, Globals};

/// A frame.
#[derive(Clone, Copy)]
pub struct Xdp(pub *mut xdp_md);

impl Xdp {
    /// Moves the two MACs, 12 bytes, from one offset to another.
    #[inline(always)]
    fn move_macs(self, from: usize, to: usize) -> bool {
        let Some(old) = at::<Self, [u32; 3]>(self, from) else { return false };
        // SAFETY: 12 bytes that `at` has checked.
        let macs = unsafe { *old };
        let Some(new) = at::<Self, [u32; 3]>(self, to) else { return false };
        // SAFETY: as above.
        unsafe { *new = macs };
        true
    }

    #[inline(always)]
    fn adjust(self, n: i32) -> bool {
        unsafe { bpf_xdp_adjust_head(self.0, n) == 0 }
    }
}

/// Begins the entry program with what lies before the frame in place of what its stub would say.
#[inline(always)]
pub fn ask(ctx: Xdp) -> i32 {
    // SAFETY: reads of the context's own fields; the kernel checks both.
    let (meta, data) = unsafe { ((*ctx.0).data_meta as usize, (*ctx.0).data as usize) };
    if meta + size_of::<Beside>() > data {
        return Xdp::DROP;
    }
    let Some(beside) = BESIDE.ptr(&0) else { return Xdp::DROP };
    // SAFETY: the metadata holds a whole value, as just checked, and the other is this processor's own.
    unsafe { *beside = *(meta as *const Beside) };
    ctx.jump(program::ENTRY);
    Xdp::DROP
}

impl Ctx for Xdp {
    const XDP: bool = true;
    const PASS: i32 = XDP_PASS as i32;
    const DROP: i32 = XDP_DROP as i32;

    #[inline(always)]
    fn raw(self) -> *mut c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn data(self) -> usize {
        // SAFETY: reads of the context's own fields, here and below.
        unsafe { (*self.0).data as usize }
    }

    #[inline(always)]
    fn data_end(self) -> usize {
        unsafe { (*self.0).data_end as usize }
    }

    #[inline(always)]
    fn len(self) -> u32 {
        let (mut length, start) = (self.data_end(), self.data());
        // SAFETY: a subtraction, of whole registers: the compiler would do it in 32 bits, which is
        // no way to treat a pointer.
        unsafe {
            core::arch::asm!("{0} -= {1}", inout(reg) length, in(reg) start, options(pure, nomem, nostack));
        }
        length as u32
    }

    #[inline(always)]
    fn tag(self) -> u16 {
        UNTAGGED
    }

    #[inline(always)]
    fn beside(self) -> Beside {
        BESIDE.get(&0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn mark(self) -> u32 {
        0
    }

    #[inline(always)]
    fn unmark(self) {}

    #[inline(always)]
    fn segment(self) -> u32 {
        0
    }

    #[inline(always)]
    fn pull(self, _n: u32) {}

    #[inline(always)]
    fn checksum(self, offset: u32, pseudo: u32, rest: u32, udp: bool) -> bool {
        let Some(place) = at::<Self, u16>(self, offset as usize) else { return false };
        // SAFETY: two bytes that `at` has checked.
        let before = unsafe { *place };
        if udp && before == 0 {
            return true;
        }
        let total = (!before) as u64 + pseudo as u64 + rest as u64;
        let mut after = !crate::parse::fold(total);
        if udp && after == 0 {
            after = 0xffff;
        }
        // SAFETY: as above.
        unsafe { *place = after };
        true
    }

    #[inline(always)]
    fn whole_sum(self, _difference: u32) {}

    #[inline(always)]
    fn untag(self) -> bool {
        // Backwards: the places overlap.
        self.move_macs(0, 4) && self.adjust(4)
    }

    #[inline(always)]
    fn push_tag(self, tci: u16) -> bool {
        self.adjust(-4)
            && self.move_macs(4, 0)
            && super::write(self, 12, 0x8100u16.to_be())
            && super::write(self, 14, tci.to_be())
    }

    #[inline(always)]
    fn shrink(self, n: u32, _family: u8) -> bool {
        // The Ethernet header is written anew by whoever takes off an encapsulation.
        self.adjust(n as i32)
    }

    #[inline(always)]
    fn grow(self, n: u32, _how: Grow) -> bool {
        self.adjust(-(n as i32))
    }

    #[inline(always)]
    fn push(self, n: u32) -> bool {
        self.adjust(-(n as i32))
    }

    #[inline(always)]
    fn resize(self, n: u32) -> bool {
        let more = n as i32 - self.len() as i32;
        more == 0 || unsafe { bpf_xdp_adjust_tail(self.0, more) == 0 }
    }

    #[inline(always)]
    fn send(self, port: u16, _to: &Port, _side: u8, _globals: &Globals) -> i32 {
        unsafe { bpf_redirect_map(DEVICES.raw(), port as u64, 0) as i32 }
    }

    #[inline(always)]
    fn send_to_slow_path(self, _side: u8, _globals: &Globals) -> i32 {
        unsafe { bpf_redirect_map(DEVICES.raw(), limits::PORTS as u64, 0) as i32 }
    }

    #[inline(always)]
    fn jump(self, program: u32) {
        unsafe { bpf_tail_call(self.raw(), PROGRAMS.raw(), program) };
    }

    #[inline(always)]
    fn clock(self) -> u64 {
        unsafe { bpf_ktime_get_coarse_ns() }
    }
}
