//! The headers of a packet that can go the short way.

use crate::ctx::{Ctx, at};
use crate::parse::{ETH, fold};
use crate::table::Key;
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::rest;

/// TCP flags that move a connection's state, or may: FIN, SYN, RST.
pub const MOVING: u8 = 0x07;

/// A packet's headers as far as they are needed here.
pub struct Heads {
    /// Its flow.
    pub key: Key,
    /// Destination MAC.
    pub dmac: u64,
    /// Source MAC.
    pub smac: u64,
    /// Length of the IP packet.
    pub len: u32,
    /// Length of network and transport header.
    pub headers: u32,
    /// TTL.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// It may not be fragmented.
    pub df: bool,
    /// Where the transport header is.
    pub l4: usize,
}

/// Ports or identifier and header length of a transport that can go the short way. The length is
/// what follows the IP header.
#[inline(always)]
fn transport<C: Ctx>(ctx: C, protocol: u8, l4: usize, len: u32, v6: bool) -> Option<(u16, u16, u32)> {
    match protocol {
        6 => {
            // SAFETY: `at` has checked these bytes, here and below.
            let words = unsafe { *at::<C, [u16; 8]>(ctx, l4)? };
            let [offset, flags] = words[6].to_ne_bytes();
            let header = (offset >> 4) as u32 * 4;
            if header < 20 || header > len || flags & MOVING != 0 {
                return None;
            }
            Some((words[0], words[1], header))
        }
        17 => {
            let words = unsafe { *at::<C, [u16; 4]>(ctx, l4)? };
            let told = u16::from_be(words[2]) as u32;
            // Without a checksum, IPv6 has rules of its own (RFC 6935).
            if told < 8 || told > len || words[3] == 0 && v6 {
                return None;
            }
            Some((words[0], words[1], 8))
        }
        1 | 58 => {
            let words = unsafe { *at::<C, [u16; 4]>(ctx, l4)? };
            let [kind, _] = words[0].to_ne_bytes();
            let query = if v6 { matches!(kind, 128 | 129) } else { matches!(kind, 0 | 8 | 13 | 14) };
            if len < 8 || !query {
                return None;
            }
            Some((words[2], words[2], 8))
        }
        _ => None,
    }
}

/// The two MACs of a frame.
#[inline(always)]
fn macs<C: Ctx>(ctx: C) -> Option<(u64, u64)> {
    // SAFETY: `at` has checked 12 bytes.
    let [a, b, c] = unsafe { *at::<C, [u32; 3]>(ctx, 0)? };
    Some((a as u64 | (b as u64 & 0xffff) << 32, (b >> 16) as u64 | (c as u64) << 16))
}

/// Reads the headers of an IPv4 packet that can go the short way.
#[inline(always)]
pub fn heads_v4<C: Ctx>(ctx: C, zone: u8) -> Option<Heads> {
    // SAFETY: `at` has checked 20 bytes.
    let w = unsafe { *at::<C, [u32; 5]>(ctx, ETH)? };
    let len = u16::from_be((w[0] >> 16) as u16) as u32;
    let fragment = u16::from_be((w[1] >> 16) as u16);
    let sum = w[0] as u64 + w[1] as u64 + w[2] as u64 + w[3] as u64 + w[4] as u64;
    if w[0] & 0xff != 0x45 || fragment & 0x3fff != 0 || fold(sum) != 0xffff {
        return None;
    }
    if len < 28 || ETH as u32 + len > ctx.len() {
        return None;
    }
    let (ttl, protocol) = (w[2] as u8, (w[2] >> 8) as u8);
    let (sport, dport, l4) = transport(ctx, protocol, ETH + 20, len - 20, false)?;
    let (dmac, smac) = macs(ctx)?;
    let key = Key {
        src: Addr([w[3], 0, 0, 0]),
        dst: Addr([w[4], 0, 0, 0]),
        rest: rest::key(sport, dport, protocol, zone),
    };
    let (tos, df) = ((w[0] >> 8) as u8, fragment & 0x4000 != 0);
    Some(Heads { key, dmac, smac, len, headers: 20 + l4, ttl, tos, df, l4: ETH + 20 })
}

/// Reads the headers of an IPv6 packet that can go the short way.
#[inline(always)]
pub fn heads_v6<C: Ctx>(ctx: C, zone: u8) -> Option<Heads> {
    // SAFETY: `at` has checked 40 bytes.
    let (w, src, dst) = unsafe {
        (*at::<C, [u32; 2]>(ctx, ETH)?, *at::<C, [u32; 4]>(ctx, ETH + 8)?, *at::<C, [u32; 4]>(ctx, ETH + 24)?)
    };
    let payload = u16::from_be(w[1] as u16) as u32;
    if w[0] & 0xf0 != 0x60 || payload < 8 || (ETH + 40) as u32 + payload > ctx.len() {
        return None;
    }
    let (next, ttl) = ((w[1] >> 16) as u8, (w[1] >> 24) as u8);
    let (sport, dport, l4) = transport(ctx, next, ETH + 40, payload, true)?;
    let (dmac, smac) = macs(ctx)?;
    let key = Key { src: Addr(src), dst: Addr(dst), rest: rest::key(sport, dport, next, zone) };
    let tos = (u32::from_be(w[0]) >> 20) as u8;
    let len = 40 + payload;
    Some(Heads { key, dmac, smac, len, headers: 40 + l4, ttl, tos, df: true, l4: ETH + 40 })
}
