//! IP in IP on the short way: the outer header is put before the packet at once.
//!
//! It has nothing that is chosen (RFC 6864: what may not be fragmented needs no identification), and all of it
//! stands in the flow's record.

use crate::ctx::{Ctx, Grow, at};
use crate::parse::{ETH, ethertype, fold};
use crate::table::{Family, V4};
use loxi_ebpf_layout::{Addr, family};

/// TTL of an outer header.
const TTL: u32 = 64;

/// Puts an outer header of the inner packet's family before it; whether there was room. If not, the frame is as
/// it was.
#[inline(always)]
pub fn ip_in_ip<C: Ctx, F: Family>(ctx: C, macs: [u64; 2], [src, dst]: &[Addr; 2], tos: u8) -> bool {
    let payload = (ctx.len() - ETH as u32) & 0xffff;
    if F::PLACES == V4::PLACES {
        let grow = Grow { v6: false, vxlan: false, inner: family::V4 };
        if !ctx.grow(20, grow) {
            return false;
        }
        let mut words = [
            (0x4500_0000 | (tos as u32) << 16 | (payload + 20) & 0xffff).to_be(),
            // DF.
            0x4000u32.to_be(),
            (TTL << 24 | 4 << 16).to_be(),
            src.0[0],
            dst.0[0],
        ];
        let sum = words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64 + words[4] as u64;
        words[2] |= (!fold(sum) as u32) << 16;
        link::<C>(ctx, macs, ethertype::IPV4) && put(ctx, words)
    } else {
        let grow = Grow { v6: true, vxlan: false, inner: family::V6 };
        if !ctx.grow(40, grow) {
            return false;
        }
        let [a, b, c, d] = src.0;
        let [e, f, g, h] = dst.0;
        let first = (0x6000_0000 | (tos as u32) << 20).to_be();
        let second = (payload << 16 | 41 << 8 | TTL).to_be();
        link::<C>(ctx, macs, ethertype::IPV6) && put(ctx, [first, second, a, b, c, d, e, f, g, h])
    }
}

#[inline(always)]
fn link<C: Ctx>(ctx: C, macs: [u64; 2], kind: u16) -> bool {
    let [dmac, smac] = macs;
    let words = [dmac as u32, (dmac >> 32 | smac << 16) as u32, (smac >> 16) as u32];
    crate::ctx::write(ctx, 0, words) && crate::ctx::write(ctx, 12, kind)
}

#[inline(always)]
fn put<C: Ctx, const N: usize>(ctx: C, words: [u32; N]) -> bool {
    match at::<C, [u32; N]>(ctx, ETH) {
        Some(place) => {
            // SAFETY: `at` has checked as many bytes.
            unsafe { *place = words };
            true
        }
        None => false,
    }
}
