//! The short way out of a tunnel: an established flow whose decision still holds goes on to be sent.
//!
//! The outer headers have been looked at in full by then, and the inner ones parsed. What is left out are the
//! stages between: another ingress, conntrack, routes or stations, neighbors, and the record's renewal.

use crate::ctx::{Ctx, UNTAGGED};
use crate::fast::{Arrival, Decided, MOVING, decided, note, octets, word};
use crate::stage::port_of;
use crate::stage::snat::size;
use crate::table::{Family, Key, V4, V6, look_up};
use core::mem::offset_of;
use loxi_ebpf_layout::family;
use loxi_ebpf_layout::flow::{IPIP, NAT, ROUTED, TUNNEL, rest};
use loxi_ebpf_layout::l2::{Port, exit, port};
use loxi_ebpf_layout::scratch::{Packet, flag, l4, tracking, way};

const _: () = assert!(offset_of!(Packet, dmac) % 2 == 0 && offset_of!(Packet, smac) % 2 == 0);

/// Whether an inner packet is ready to be sent. If not, it is as it was.
#[inline(always)]
pub fn established<C: Ctx>(ctx: C, p: &mut Packet) -> bool {
    let keeps = match p.kind {
        l4::TCP => p.detail & MOVING == 0,
        l4::UDP | l4::REQUEST | l4::REPLY => true,
        _ => false,
    };
    if p.family == 0 || p.flags & flag::FRAGMENT != 0 || p.tag != UNTAGGED || !keeps {
        return false;
    }
    let Some(ingress) = port_of(p.port) else { return false };
    if ingress.flags & (port::UP | port::TRUNK) != port::UP || ingress.zone == 0 {
        return false;
    }
    let ready = if p.family == family::V4 {
        by_record::<C, V4>(ctx, p, ingress)
    } else {
        by_record::<C, V6>(ctx, p, ingress)
    };
    ready.is_some()
}

#[inline(always)]
fn by_record<C: Ctx, F: Family>(ctx: C, p: &mut Packet, ingress: &Port) -> Option<()> {
    let key = Key { src: p.src, dst: p.dst, rest: rest::key(p.sport, p.dport, p.protocol, ingress.zone) };
    let entry = look_up::<F>(&key)?;
    let arrival = Arrival {
        port: p.port,
        tunnel: p.back,
        dmac: word(&p.dmac),
        smac: word(&p.smac),
        ttl: p.ttl,
        epoch: p.epoch,
        now: p.now,
        dry: p.flags & flag::DRY != 0,
    };
    // SAFETY: a word of the entry, read at once; it is looked at again below.
    let word = unsafe { F::rest(entry).read_volatile() };
    let Decided { flags, out, egress, way } = decided::<F>(ingress, &arrival, entry, word)?;
    if flags & (TUNNEL | IPIP) != 0 || C::XDP && egress.exit & exit::XDP == 0 && p.flags & flag::ASKED == 0 {
        return None;
    }
    if size(ctx, p) > way.mtu {
        return None;
    }
    let new = F::new_key(entry);
    // What was read above is of one time if the key is still what it was.
    if unsafe { F::rest(entry).read_volatile() } != word || !F::is(entry, &key) {
        return None;
    }
    if !arrival.dry {
        note::<F>(entry, arrival.now, p.ip_len);
    }
    // Port, conntrack, forward, TTL and MTU.
    p.stages |= 1 << 1 | 1 << 6 | 1 << 10 | 1 << 11;
    if ingress.flags & port::GUARDED != 0 {
        p.stages |= 1 << 3;
    }
    if flags & NAT != 0 {
        p.flags |= flag::NAT;
    }
    (p.zone, p.tracking) = (ingress.zone, tracking::ESTABLISHED);
    (p.new_src, p.new_dst) = (new.src, new.dst);
    (p.new_sport, p.new_dport) = (rest::sport(new.rest), rest::dport(new.rest));
    (p.out_port, p.way) = (out.port, way::PORT);
    if flags & ROUTED != 0 {
        p.routed = 1;
        (p.new_dmac, p.new_smac) = (octets(way.dmac), octets(way.smac));
    } else {
        (p.new_dmac, p.new_smac) = (p.dmac, p.smac);
    }
    Some(())
}
