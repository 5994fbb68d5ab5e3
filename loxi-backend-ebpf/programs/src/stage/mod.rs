//! The long way, stage by stage. Numbers are those of the design.

pub mod commit;
mod conntrack;
mod entry;
pub mod forward;
mod ingress;
mod inner;
mod neighbor;
mod policy;
mod related;
mod send;
mod service;
mod snat;

pub use conntrack::conntrack;
pub use entry::entry;
pub use forward::forward;
pub use ingress::ingress;
pub use neighbor::neighbor;
pub use policy::{egress, ingress as ingress_policy, revalidate};
pub use related::related;
pub use send::{encapsulate, send};
pub use service::service;
pub use snat::{free_port, snat};

use crate::ctx::Ctx;
use crate::maps::{PACKETS, PORTS, QUESTION};
use crate::parse::Step;
use aya_ebpf::helpers::bpf_get_prandom_u32;
use loxi_ebpf_layout::code::{self, Fate, drop, program, punt};
use loxi_ebpf_layout::l2::{Port, port};
use loxi_ebpf_layout::limits::CHOICES;
use loxi_ebpf_layout::scratch::{Answer, Packet, flag};
use loxi_ebpf_layout::{Addr, family};

/// This processor's packet.
#[inline(always)]
pub fn packet() -> Option<&'static mut Packet> {
    // SAFETY: this processor's own value; programs don't nest, and each stage is the only one
    // that holds it while it runs.
    PACKETS.ptr(&0).map(|packet| unsafe { &mut *packet })
}

/// Leads a packet from a stage to the next, or to its end.
#[inline(always)]
pub fn go<C: Ctx>(ctx: C, p: &mut Packet, by: u32, result: Step<u32>) -> i32 {
    let next = match result {
        Ok(next) => next,
        Err(fate) => {
            p.fate = fate.get();
            p.by = by as u8;
            program::FINISH
        }
    };
    ctx.jump(next);
    // Only if a program is missing, which the loader rules out.
    C::DROP
}

/// A port's attributes.
#[inline(always)]
pub fn port_of(number: u16) -> Option<&'static Port> {
    PORTS.get(&(number as u32)).map(|pair| pair.pair.current())
}

/// The fate of what no entity claims.
#[inline(always)]
pub fn unclaimed(ingress: &Port, otherwise: Fate) -> Fate {
    if ingress.flags & port::PUNT != 0 { punt::NOT_OURS_UNCLAIMED } else { otherwise }
}

/// Whether an address is a group's: multicast, or the IPv4 broadcast.
#[inline(always)]
pub fn is_group(family: u8, addr: &Addr) -> bool {
    let first = u32::from_be(addr.0[0]);
    if family == family::V4 { first >> 28 == 14 || first == u32::MAX } else { first >> 24 == 0xff }
}

/// Whether an address is link-local unicast.
#[inline(always)]
pub fn is_link_local(family: u8, addr: &Addr) -> bool {
    let first = u32::from_be(addr.0[0]);
    if family == family::V4 { first >> 16 == 0xa9fe } else { first >> 22 == 0x3fa }
}

/// Traffic that is never tracked: ND, MLD, IGMP.
#[inline(always)]
pub fn is_link_protocol(p: &Packet) -> bool {
    use loxi_ebpf_layout::scratch::l4;
    p.protocol == 2 || p.kind == l4::ND || p.kind == l4::MLD
}

/// Bits of an address of a family.
#[inline(always)]
pub fn width(family: u8) -> u32 {
    if family == family::V4 { 32 } else { 128 }
}

/// Whether an address is in a set.
#[inline(always)]
pub fn in_set(set: u32, family: u8, addr: &Addr) -> bool {
    use crate::maps::SETS;
    use loxi_ebpf_layout::l3::{FIXED_BITS, Member};
    let key = Member { bits: FIXED_BITS + width(family), set, family: family as u32, addr: *addr };
    SETS.get(&key).is_some()
}

/// Whether an ICMP error may be sent about the packet (RFC 1122 section 3.2.2, RFC 4443
/// section 2.4 e), so that the slow path would have something to do.
#[inline(always)]
pub fn is_answerable(p: &Packet) -> bool {
    use loxi_ebpf_layout::scratch::l4;
    let about_error = p.kind == l4::ERROR || p.kind == l4::LATER;
    let nobody = p.src == Addr::ZERO;
    !(about_error || nobody || is_group(p.family, &p.dst) || p.dmac[0] & 1 != 0)
}

/// A drop that is answered by an ICMP error or a reset, where one may be sent.
#[inline(always)]
pub fn answered(p: &Packet, reason: Fate) -> Fate {
    if is_answerable(p) { punt::ICMP_TO_BUILD } else { reason }
}

/// Makes a free choice: the value that whoever asks gives, if it is admissible;
/// else the one that needs no randomness where that is asked for; else `own`.
#[inline(always)]
pub fn choose(p: &mut Packet, kind: u8, first: u64, last: u64, plain: u64, own: u64) -> u64 {
    if p.flags & flag::ASKED == 0 {
        return own;
    }
    let n = p.choices as usize;
    if n >= CHOICES {
        return plain;
    }
    p.choices = n as u8 + 1;
    let mut value = own;
    if let Some(question) = QUESTION.get(&0) {
        if (n as u32) < question.count {
            let wanted = question.values[n & (CHOICES - 1)];
            value = if wanted >= first && wanted <= last { wanted } else { plain };
        } else if question.first != 0 {
            value = plain;
        }
    }
    if let Some(answer) = answer() {
        answer.values[n & (CHOICES - 1)] = value;
        answer.points[n & (CHOICES - 1)] = kind;
    }
    value
}

/// Tells the bounds of the choice that was made last.
#[inline(always)]
pub fn bounds(p: &Packet, first: u16, last: u16, preferred: u16) {
    if p.flags & flag::ASKED != 0
        && p.choices > 0
        && let Some(answer) = answer()
    {
        answer.bounds[(p.choices as usize - 1) & (CHOICES - 1)] = [first, last, preferred, 0];
    }
}

/// This processor's answer.
#[inline(always)]
pub fn answer() -> Option<&'static mut Answer> {
    // SAFETY: this processor's own value.
    crate::maps::ANSWERS.ptr(&0).map(|answer| unsafe { &mut *answer })
}

/// 32 random bits.
#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// Seconds in ns.
pub const SECOND: u64 = 1_000_000_000;

/// A time in ticks.
#[inline(always)]
pub fn tick(ns: u64) -> u32 {
    (ns >> loxi_ebpf_layout::flow::TICK_SHIFT) as u32
}

/// Whether a fate is a drop.
#[inline(always)]
pub fn is_drop(fate: u8) -> bool {
    fate != code::FORWARDED && fate <= code::DROP_MAX
}

const _: () = assert!(drop::UNSUPPORTED.get() < code::CONSUMED && CHOICES.is_power_of_two());
