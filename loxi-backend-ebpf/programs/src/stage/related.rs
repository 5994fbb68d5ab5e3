//! Stage 6 for ICMP errors: the flow whose packet they quote.
//!
//! An error that passes as it is goes on from here. One that must be
//! translated, inside and out, is the slow path's.

use crate::ctx::{Ctx, read};
use crate::life::cold_of;
use crate::parse::Step;
use crate::stage::conntrack::stranger;
use crate::stage::{go, packet};
use crate::table::{Family, Key, V4, V6, find_apart};
use loxi_ebpf_layout::code::{drop, program, punt};
use loxi_ebpf_layout::flow::{REPLY, rest, translation};
use loxi_ebpf_layout::scratch::{Packet, flag, tracking};
use loxi_ebpf_layout::{Addr, family};

/// Errors.
#[inline(always)]
pub fn related<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = if p.family == family::V4 { stages::<C, V4>(ctx, p) } else { stages::<C, V6>(ctx, p) };
    let result = match result {
        Err(drop::ICMP_WITHOUT_FLOW) => stranger(p),
        other => other.map(|()| program::FORWARD),
    };
    go(ctx, p, program::RELATED, result)
}

#[inline(always)]
fn stages<C: Ctx, F: Family>(ctx: C, p: &mut Packet) -> Step {
    let mut quoted = Key { src: Addr::ZERO, dst: Addr::ZERO, rest: 0 };
    quotes(ctx, p, &mut quoted)?;
    if quoted.rest == 0 {
        return Err(drop::ICMP_WITHOUT_FLOW);
    }
    // The quoted packet is one that we sent: its reverse is a tuple by which the flow is known.
    let Some(found) = find_apart::<F>(&quoted.reversed()) else { return Err(drop::ICMP_WITHOUT_FLOW) };
    if F::alive_apart(found.number) == 0 {
        return Err(drop::ICMP_WITHOUT_FLOW);
    }
    // SAFETY: a word of an entry, read at once.
    let word = unsafe { F::rest(found.entry).read_volatile() };
    // The quoted packet as it came in here, before it was translated.
    let before = F::new_key(found.entry).reversed();
    let src = if p.src == quoted.dst { before.dst } else { p.src };
    let same = quoted.src == before.src
        && quoted.dst == before.dst
        && (quoted.rest ^ before.rest) & rest::KEY == 0
        && src == p.src
        && p.dst == before.src;
    if !same {
        return Err(punt::CHECKSUM);
    }
    p.tracking = tracking::RELATED;
    p.place = found.number;
    if rest::flags(word) & REPLY != 0 {
        p.flags |= flag::REPLY;
    } else if let Some((cold, _)) = cold_of::<F>(word, found.number) {
        p.dsr_target = cold.dsr_target;
        p.translation = translation::kind(cold.translation);
        p.outer_family = translation::family(cold.translation);
    }
    (p.new_src, p.new_dst) = (p.src, p.dst);
    Ok(())
}

/// The tuple of the quoted packet; none if too little is quoted, or if it was an error itself.
#[inline(always)]
fn quotes<C: Ctx>(ctx: C, p: &Packet, key: &mut Key) -> Step {
    let at = p.l4 as usize + 8;
    let end = p.end as usize;
    let (protocol, l4) = if p.family == family::V4 {
        let Some(words) = read::<C, [u32; 5]>(ctx, at).filter(|_| at + 20 <= end) else { return Ok(()) };
        let [first, ..] = words[0].to_ne_bytes();
        let fragment = u16::from_be((words[1] >> 16) as u16);
        let header = (first & 15) as usize * 4;
        if first >> 4 != 4 || header < 20 || at + header > end || fragment & 0x1fff != 0 {
            return Ok(());
        }
        let protocol = (words[2] >> 8) as u8;
        key.src = Addr([words[3], 0, 0, 0]);
        key.dst = Addr([words[4], 0, 0, 0]);
        (protocol, at + header)
    } else {
        let (Some(head), Some(src), Some(dst)) = (
            read::<C, [u8; 8]>(ctx, at),
            read::<C, [u32; 4]>(ctx, at + 8),
            read::<C, [u32; 4]>(ctx, at + 24),
        ) else {
            return Ok(());
        };
        if head[0] >> 4 != 6 || at + 40 > end {
            return Ok(());
        }
        if matches!(head[6], 0 | 43 | 44 | 51 | 60) {
            return Err(punt::PARSE);
        }
        (key.src, key.dst) = (Addr(src), Addr(dst));
        (head[6], at + 40)
    };
    let whole = l4 + 8 <= end;
    let ports = match protocol {
        6 | 17 | 132 => {
            let Some(ports) = read::<C, [u16; 2]>(ctx, l4).filter(|_| whole) else { return Ok(()) };
            (ports[0], ports[1])
        }
        1 | 58 => {
            let Some(words) = read::<C, [u16; 4]>(ctx, l4).filter(|_| whole) else { return Ok(()) };
            let [kind, _] = words[0].to_ne_bytes();
            let query =
                if protocol == 1 { matches!(kind, 0 | 8 | 13 | 14) } else { matches!(kind, 128 | 129) };
            if !query {
                return Ok(());
            }
            (words[2], words[2])
        }
        _ => (0, 0),
    };
    key.rest = rest::key(ports.0, ports.1, protocol, p.zone);
    Ok(())
}
