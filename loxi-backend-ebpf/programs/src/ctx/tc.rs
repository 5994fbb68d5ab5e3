//! A socket buffer at TC.

use super::{Ctx, Grow, UNTAGGED};
use crate::maps::PROGRAMS;
use crate::parse::{ETH, ethertype, fold};
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::*;
use aya_ebpf::helpers::*;
use core::ffi::c_void;
use loxi_ebpf_layout::count::CROSSING;
use loxi_ebpf_layout::l2::{Port, exit, side};
use loxi_ebpf_layout::scratch::{Beside, Globals};

/// A socket buffer.
#[derive(Clone, Copy)]
pub struct Tc(pub *mut __sk_buff);

/// TCX_NEXT, and TC_ACT_UNSPEC before it: the next program decides.
const NEXT: i32 = -1;

impl Tc {
    /// Shrinks where the kernel does not know how to take another family's header away: the last 20 bytes go, or
    /// come, by a change of protocol, by which the buffer is known to hold the other family from then on.
    #[inline(always)]
    fn shrink_before_6_3(self, n: u32, v6: bool) -> bool {
        const HEADER: u32 = 20;
        let plain = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
        let protocol = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
        // SAFETY: the helpers check everything; the header has room on the stack.
        unsafe {
            if (*self.0).protocol == protocol as u32 {
                return bpf_skb_adjust_room(self.0, -(n as i32), BPF_ADJ_ROOM_MAC, plain) == 0;
            }
            if !v6 {
                return bpf_skb_adjust_room(self.0, HEADER as i32 - n as i32, BPF_ADJ_ROOM_MAC, plain) == 0
                    && bpf_skb_change_proto(self.0, protocol, 0) == 0;
            }
            // What comes anew is zeroes, in place of the beginning of the header that is to be there.
            let mut header = [0u32; HEADER as usize / 4];
            let at = header.as_mut_ptr().cast::<c_void>();
            bpf_skb_load_bytes(self.0.cast(), ETH as u32 + n, at, HEADER) == 0
                && bpf_skb_adjust_room(self.0, -((n + HEADER) as i32), BPF_ADJ_ROOM_MAC, plain) == 0
                && bpf_skb_change_proto(self.0, protocol, 0) == 0
                && bpf_skb_store_bytes(self.0, ETH as u32, at, HEADER, 0) == 0
        }
    }

    /// Marks a frame whose fate is sealed and sends it over to the other namespace.
    #[inline(always)]
    fn cross(self, port: u16, device: u32) -> i32 {
        // SAFETY: the context is the program's own; the kernel checks the field.
        unsafe {
            (*self.0).mark = CROSSING | port as u32;
            bpf_redirect_peer(device, 0) as i32
        }
    }

    #[inline(always)]
    fn for_us(self) {
        // SAFETY: as above. A frame that a device took for somebody else's would be dropped
        // by the stack that gets it.
        unsafe {
            if (*self.0).pkt_type != PACKET_HOST {
                bpf_skb_change_type(self.0, PACKET_HOST);
            }
        }
    }
}

/// `PACKET_HOST` of linux/if_packet.h.
const PACKET_HOST: u32 = 0;

impl Ctx for Tc {
    const XDP: bool = false;
    const PASS: i32 = NEXT;
    const DROP: i32 = TC_ACT_SHOT as i32;

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
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn tag(self) -> u16 {
        unsafe { if (*self.0).vlan_present == 0 { UNTAGGED } else { (*self.0).vlan_tci as u16 } }
    }

    #[inline(always)]
    fn beside(self) -> Beside {
        unsafe {
            let cb = &(*self.0).cb;
            Beside { port: cb[0], flags: cb[1], now: [cb[2], cb[3]], nonce: cb[4] }
        }
    }

    #[inline(always)]
    fn mark(self) -> u32 {
        unsafe { (*self.0).mark }
    }

    #[inline(always)]
    fn unmark(self) {
        unsafe { (*self.0).mark = 0 };
    }

    #[inline(always)]
    fn segment(self) -> u32 {
        unsafe { (*self.0).gso_size }
    }

    #[inline(always)]
    fn pull(self, n: u32) {
        unsafe { bpf_skb_pull_data(self.0, n) };
    }

    #[inline(always)]
    fn checksum(self, at: u32, pseudo: u32, rest: u32, udp: bool) -> bool {
        let zero = if udp { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        // SAFETY: the helper checks the offset. Size 0 takes the difference itself.
        let replace = |difference: u32, flags: u64| unsafe {
            bpf_l4_csum_replace(self.0, at, 0, difference as u64, flags | zero) == 0
        };
        let pseudo_header = BPF_F_PSEUDO_HDR as u64;
        if pseudo == 0 || rest == 0 {
            return (pseudo == 0 || replace(pseudo, pseudo_header)) && (rest == 0 || replace(rest, 0));
        }
        let Some(before) = super::at::<Self, u16>(self, at as usize) else {
            return replace(pseudo, pseudo_header) && replace(rest, 0);
        };
        // SAFETY: two bytes that `at` has checked, here and below.
        let before = unsafe { before.read_volatile() };
        if !replace(pseudo, pseudo_header) {
            return false;
        }
        // What the helper did to the field tells whether it is whole or the pseudo header's sum only, of
        // which the rest is no part. So a second call is seldom needed.
        let Some(place) = super::at::<Self, u16>(self, at as usize) else { return replace(rest, 0) };
        let after = unsafe { place.read_volatile() };
        let whole = !fold((!before) as u64 + pseudo as u64);
        let partial = fold(before as u64 + pseudo as u64);
        if before == 0 || whole == 0 || whole == partial {
            return replace(rest, 0);
        }
        let new = !fold((!whole) as u64 + rest as u64);
        if after == whole && new != 0 {
            unsafe { place.write_volatile(new) };
            return true;
        }
        after == partial || replace(rest, 0)
    }

    #[inline(always)]
    fn whole_sum(self, difference: u32) {
        // SAFETY: the helper refuses where there is no such checksum. Changing a transport checksum with
        // BPF_F_PSEUDO_HDR it takes IPv4's header for granted, in which the addresses' difference comes up once
        // more; its flag for IPv6 is not known to every kernel.
        unsafe { bpf_csum_update(self.0, difference) };
    }

    #[inline(always)]
    fn untag(self) -> bool {
        unsafe { bpf_skb_vlan_pop(self.0) == 0 }
    }

    #[inline(always)]
    fn push_tag(self, tci: u16) -> bool {
        unsafe { bpf_skb_vlan_push(self.0, 0x8100u16.to_be(), tci) == 0 }
    }

    #[inline(always)]
    fn shrink(self, n: u32, family: u8) -> bool {
        let flags = match family {
            4 => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
            6 => BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
            _ => 0,
        };
        let plain = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
        // SAFETY: the helper checks everything.
        let done =
            unsafe { bpf_skb_adjust_room(self.0, -(n as i32), BPF_ADJ_ROOM_MAC, plain | flags as u64) == 0 };
        done || self.shrink_before_6_3(n, family == 6)
    }

    #[inline(always)]
    fn grow(self, n: u32, how: Grow) -> bool {
        let l3 = if how.v6 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 } as u64;
        // The inner Ethernet header's 14 bytes in the flags' upper byte.
        let l4 = if how.vxlan {
            BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64 | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64 | 14 << 56
        } else {
            0
        };
        unsafe {
            let fixed = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
            bpf_skb_adjust_room(self.0, n as i32, BPF_ADJ_ROOM_MAC, l3 | l4 | fixed) == 0
        }
    }

    #[inline(always)]
    fn push(self, n: u32) -> bool {
        unsafe { bpf_skb_change_head(self.0, n, 0) == 0 }
    }

    #[inline(always)]
    fn resize(self, n: u32) -> bool {
        unsafe { bpf_skb_change_tail(self.0, n, 0) == 0 }
    }

    #[inline(always)]
    fn send(self, port: u16, to: &Port, at_side: u8, globals: &Globals) -> i32 {
        if to.side != at_side {
            self.for_us();
            let device =
                if at_side == side::ROOT { globals.crossing_root } else { globals.crossing_dataplane };
            return self.cross(port, device as u32);
        }
        // SAFETY: the kernel checks the device.
        unsafe {
            if to.exit & exit::PEER != 0 {
                self.for_us();
                bpf_redirect_peer(to.ifindex, 0) as i32
            } else {
                bpf_redirect(to.ifindex, 0) as i32
            }
        }
    }

    #[inline(always)]
    fn send_to_slow_path(self, at_side: u8, globals: &Globals) -> i32 {
        if at_side == side::ROOT {
            return self.cross(u16::MAX, globals.crossing_root as u32);
        }
        unsafe { bpf_redirect(globals.slow_path as u32, 0) as i32 }
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
