//! What becomes of a packet's headers: translation, one hop less.

use super::heads::Heads;
use crate::ctx::{Ctx, at};
use crate::parse::{ETH, LESS_HOP, add32, fold, older};
use crate::table::{Family, Key, V4};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::rest;

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
pub fn translate<C: Ctx, F: Family>(ctx: C, heads: &Heads, new: &Key, sums: bool) -> bool {
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
        if sums {
            ctx.whole_sum(addrs);
        }
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

/// A new link layer, one hop less.
#[inline(always)]
pub fn route<C: Ctx, F: Family>(ctx: C, dmac: u64, smac: u64, sums: bool) -> bool {
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
            if sums {
                ctx.whole_sum(LESS_HOP);
            }
        }
    }
    true
}
