//! Stages 1, 3 and 4: the port and its VLANs, the source guard, where tunnels end.

use crate::ctx::{Ctx, UNTAGGED, read};
use crate::maps::{ADMITS, BACKS, ENDINGS, GUARD_MACS, INTERFACES, LINKS, OUTERS, PORT_VLANS};
use crate::parse::{ETH, Step, ethertype, ipv4, ipv6, parse};
use crate::stage::inner::established;
use crate::stage::{go, in_set, is_link_local, packet, port_of, unclaimed};
use loxi_ebpf_layout::code::{drop, program, punt};
use loxi_ebpf_layout::l2::{GuardMac, Link, Port, PortVlan, Station, port};
use loxi_ebpf_layout::limits::ND_OPTIONS;
use loxi_ebpf_layout::scratch::{Packet, flag, l4};
use loxi_ebpf_layout::tunnel::{self, BackKey, EndKey};
use loxi_ebpf_layout::{Addr, family};

/// The stages of ingress; an inner packet passes here again.
#[inline(always)]
pub fn ingress<C: Ctx>(ctx: C) -> i32 {
    let Some(p) = packet() else { return C::DROP };
    let result = stages(ctx, p);
    go(ctx, p, program::INGRESS, result)
}

#[inline(always)]
fn stages<C: Ctx>(ctx: C, p: &mut Packet) -> Step<u32> {
    let Some(port) = port_of(p.port) else { return Err(drop::PORT_DOWN) };
    p.stages |= 1 << 1;
    if port.flags & port::UP == 0 {
        return Err(drop::PORT_DOWN);
    }
    attach(p, port)?;
    if port.flags & port::GUARDED != 0 {
        p.stages |= 1 << 3;
        guard(ctx, p, port)?;
    }
    if port.flags & port::UNDERLAY != 0 && p.flags & flag::TO_US != 0 && p.family != 0 && p.vrf != 0 {
        if terminate(ctx, p)? {
            return Ok(if established(ctx, p) { program::SEND } else { program::INGRESS });
        }
    }
    if p.family != 0 {
        Ok(program::CONNTRACK)
    } else if p.kind == l4::ARP {
        Ok(program::NEIGHBOR)
    } else {
        Ok(program::FORWARD)
    }
}

/// Stage 1: what the frame enters.
#[inline(always)]
fn attach(p: &mut Packet, port: &Port) -> Step {
    let vid = p.tag & 0x0fff;
    let tagged = p.tag != UNTAGGED && vid != 0;
    if port.flags & port::BRIDGED != 0 {
        let vlan = if port.flags & port::TRUNK == 0 {
            if tagged {
                return Err(drop::VLAN_FILTERED);
            }
            port.vlan
        } else if tagged {
            let allowed = PORT_VLANS.get(&PortVlan { port: p.port, vlan: vid }).copied().unwrap_or(0);
            if allowed & 1 == 0 {
                return Err(drop::VLAN_FILTERED);
            }
            vid
        } else if port.flags & port::NATIVE != 0 {
            port.vlan
        } else {
            return Err(drop::VLAN_FILTERED);
        };
        let link = Link { id: port.bridge, vlan };
        p.vlan = vlan;
        p.bridge = port.bridge;
        p.zone = port.zone;
        p.interface = match ADMITS.get(&Station { link, mac: p.dmac, reserved: 0 }) {
            Some(interface) => {
                p.flags |= flag::TO_US;
                *interface as u16
            }
            None => LINKS.get(&link).copied().unwrap_or(0) as u16,
        };
        p.vrf = match INTERFACES.get(&(p.interface as u32)) {
            Some(pair) if p.interface != 0 => pair.current().vrf,
            _ => 0,
        };
        return Ok(());
    }
    if port.flags & port::ROUTED == 0 {
        return Err(unclaimed(port, drop::UNCLAIMED));
    }
    // A routed port carries no VLANs.
    if tagged {
        return Err(unclaimed(port, drop::VLAN_FILTERED));
    }
    let link = Link { id: p.port, vlan: 0 };
    p.interface = match ADMITS.get(&Station { link, mac: p.dmac, reserved: 0 }) {
        Some(interface) => {
            p.flags |= flag::TO_US;
            *interface as u16
        }
        None => port.interface,
    };
    if p.dmac == port.mac {
        p.flags |= flag::TO_US;
    }
    p.zone = port.zone;
    p.vrf = port.vrf;
    Ok(())
}

/// Whether a MAC is the port's.
#[inline(always)]
fn owns_mac(port: &Port, mac: [u8; 6]) -> bool {
    mac == port.mac
        || port.flags & port::GUARD_MACS != 0
            && GUARD_MACS.get(&GuardMac { set: port.guard, mac, reserved: 0 }).is_some()
}

/// Stage 3.
#[inline(always)]
fn guard<C: Ctx>(ctx: C, p: &Packet, port: &Port) -> Step {
    if !owns_mac(port, p.smac) {
        return Err(drop::SPOOF_MAC);
    }
    if p.kind == l4::ARP {
        let Some(mac) = read::<C, [u8; 6]>(ctx, p.l3 as usize + 8) else { return Err(drop::SPOOF_ARP) };
        // A probe has no sender address yet.
        let sender = if p.src == Addr::ZERO { p.dst } else { p.src };
        let own = owns_mac(port, mac) && in_set(port.guard, family::V4, &sender);
        return if own { Ok(()) } else { Err(drop::SPOOF_ARP) };
    }
    if p.family == 0 {
        return Ok(());
    }
    let first = p.fragment_offset == 0;
    match p.kind {
        l4::ND if p.detail == 134 || p.detail == 137 => return Err(drop::SPOOF_ND),
        l4::ERROR if p.family == family::V4 && p.detail == 5 => return Err(drop::SPOOF_IP),
        l4::UDP if first => {
            let ports = (u16::from_be(p.sport), u16::from_be(p.dport));
            if ports == (67, 68) || ports == (547, 546) {
                return Err(drop::SPOOF_DHCP);
            }
        }
        _ => {}
    }
    if p.kind == l4::ND {
        return guard_nd(ctx, p, port);
    }
    if in_set(port.guard, p.family, &p.src) || is_exempt(p, port) { Ok(()) } else { Err(drop::SPOOF_IP) }
}

/// Sources without an address of their own.
#[inline(always)]
fn is_exempt(p: &Packet, port: &Port) -> bool {
    if p.family == family::V4 {
        return port.flags & port::DHCP != 0
            && p.src.0[0] == 0
            && p.dst.0[0] == u32::MAX
            && p.kind == l4::UDP
            && u16::from_be(p.sport) == 68
            && u16::from_be(p.dport) == 67;
    }
    let mld = p.kind == l4::MLD;
    let on_link = is_link_local(family::V6, &p.dst);
    p.src == Addr::ZERO && mld || is_link_local(family::V6, &p.src) && (mld || on_link)
}

/// Neighbour discovery: sender, target and link-layer options must be the port's own.
#[inline(always)]
fn guard_nd<C: Ctx>(ctx: C, p: &Packet, port: &Port) -> Step {
    let at = p.l4 as usize;
    // The unspecified address is nobody's.
    let target = Addr(read::<C, [u32; 4]>(ctx, at + 8).unwrap_or([0; 4]));
    let end = p.l3 as usize + p.ip_len as usize;
    let mut option = at + if p.detail == 133 { 8 } else { 24 };
    // The slow path has no bound here; a message that needs more is its to judge.
    let mut left = ND_OPTIONS;
    while option < end {
        if left == 0 {
            return Err(punt::PARSE);
        }
        left -= 1;
        // A last byte alone is no option.
        if option + 1 >= end {
            break;
        }
        let Some([kind, units]) = read::<C, [u8; 2]>(ctx, option) else { return Err(punt::PARSE) };
        let length = units as usize * 8;
        if length == 0 || option + length > end {
            return Err(drop::SPOOF_ND);
        }
        if kind == 1 || kind == 2 {
            // Zero is nobody's: what isn't there is not the port's own.
            let mac = read::<C, [u8; 6]>(ctx, option + 2).unwrap_or([0; 6]);
            if !owns_mac(port, mac) {
                return Err(drop::SPOOF_ND);
            }
        }
        option += length;
    }
    let owned = |addr: &Addr| in_set(port.guard, family::V6, addr) || is_link_local(family::V6, addr);
    let has_target = (p.detail == 135 || p.detail == 136) && at + 24 <= end;
    let target_owned = has_target && owned(&target);
    let admitted = match p.detail {
        133 => p.src == Addr::ZERO || owned(&p.src),
        135 if p.src == Addr::ZERO => target_owned,
        135 => owned(&p.src),
        136 => target_owned && owned(&p.src),
        _ => false,
    };
    if admitted { Ok(()) } else { Err(drop::SPOOF_ND) }
}

/// Stage 4: whether the packet ended a tunnel; then the inner one stands in its place.
#[inline(always)]
fn terminate<C: Ctx>(ctx: C, p: &mut Packet) -> Step<bool> {
    if p.kind == l4::ERROR && about_outer(ctx, p)? {
        return Ok(false);
    }
    let (kind, port) = match p.protocol {
        17 if p.kind == l4::UDP => (tunnel::kind::VXLAN, p.dport),
        4 | 41 => (tunnel::kind::IPIP, 0),
        _ => return Ok(false),
    };
    let any = EndKey {
        vrf: p.vrf,
        port,
        family: p.family,
        kind: kind | tunnel::ANY_KEY,
        reserved: 0,
        vni: 0,
        dst: p.dst,
    };
    let Some(here) = ENDINGS.get(&any) else { return Ok(false) };
    let exclusive = here.exclusive != 0;
    let mut key = any;
    key.kind = kind;
    let end = p.l3 as usize + p.ip_len as usize;
    let whole = p.flags & flag::FRAGMENT == 0;
    if kind == tunnel::kind::VXLAN {
        let at = p.l4 as usize + 8;
        let header = if at + 8 <= end && whole { read::<C, [u32; 2]>(ctx, at) } else { None };
        let Some([flags, vni]) = header else { return Err(drop::TUNNEL_DECAP_ERROR) };
        if flags & 0x08 == 0 {
            return Err(drop::TUNNEL_DECAP_ERROR);
        }
        key.vni = vni & 0xffff_ff00u32.to_be();
    }
    let Some(ending) = ENDINGS.get(&key) else {
        return if exclusive { Err(drop::TUNNEL_UNKNOWN_KEY) } else { Ok(false) };
    };
    if kind == tunnel::kind::IPIP && !whole {
        return Err(drop::TUNNEL_DECAP_ERROR);
    }
    p.stages |= 1 << 4;
    let (peers, inner_port) = (ending.peers, ending.port);
    if !in_set(peers, p.family, &p.src) {
        return Err(drop::TUNNEL_UNTRUSTED_PEER);
    }
    if p.ended != 0 {
        return Err(drop::TUNNEL_LOOP);
    }
    let back = BACKS.get(&BackKey { port: inner_port, family: p.family as u16, remote: p.src });
    let back = back.copied().unwrap_or(0) as u16;
    enter(ctx, p, kind, end, inner_port, back)?;
    Ok(true)
}

/// Makes the inner packet the one that is looked at.
#[inline(always)]
fn enter<C: Ctx>(ctx: C, p: &mut Packet, kind: u8, end: usize, inner_port: u16, back: u16) -> Step {
    let (outer_ecn, outer_v6, inner_v6) = (p.tos & 3, p.family == family::V6, p.protocol == 41);
    let l4 = p.l4 as usize;
    let bare = kind == tunnel::kind::IPIP;
    let l2 = if bare { l4 } else { l4 + 16 };
    let l3 = if bare { l4 } else { l2 + ETH };
    let inner = if bare {
        Some(if inner_v6 { ethertype::IPV6 } else { ethertype::IPV4 })
    } else {
        read::<C, u16>(ctx, l2 + 12)
    };
    let ecn = congestion(ctx, inner, l3, end, outer_ecn)?;
    p.flags &= flag::ASKED | flag::DRY;
    if outer_v6 {
        p.flags |= flag::OUTER_V6;
    }
    // From here on every fate is counted at the tunnel port as well.
    p.ended = 1;
    p.port = inner_port;
    p.back = back;
    p.end = end as u32;
    p.tag = UNTAGGED;
    (p.fragment_id, p.fragment_offset) = (0, 0);
    (p.l2, p.l3) = (l2 as u16, l3 as u16);
    if !bare {
        parse(ctx, p)?;
        if p.family == 0 {
            // What becomes of it can't be said to the kernel: its protocol stays the outer one's.
            return Err(punt::PARSE);
        }
    } else {
        p.flags |= flag::BARE;
        // A frame is made for the port: the packet itself has no link layer.
        p.dmac = port_of(inner_port).map_or([0; 6], |port| port.mac);
        p.smac = [0x02, 0, 0, 0, 0, 0];
        if inner_v6 {
            p.ethertype = ethertype::IPV6;
            ipv6(ctx, p, l3)?;
        } else {
            p.ethertype = ethertype::IPV4;
            ipv4(ctx, p, l3)?;
        }
    }
    if p.family != 0 && p.tos & 3 != ecn {
        p.tos = p.tos & !3 | ecn;
        p.flags |= flag::ECN;
    }
    Ok(())
}

/// The inner packet's congestion field after the outer one's was combined with it (RFC 6040
/// section 4.2, figure 4): congestion that can't be told is a drop.
#[inline(always)]
fn congestion<C: Ctx>(ctx: C, kind: Option<u16>, l3: usize, end: usize, outer: u8) -> Step<u8> {
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    let v6 = match kind {
        Some(ethertype::IPV4) => false,
        Some(ethertype::IPV6) => true,
        _ => return Ok(0),
    };
    if l3 + 20 > end {
        return Ok(0);
    }
    let second = read::<C, [u8; 2]>(ctx, l3).map_or(0, |bytes| bytes[1]);
    let inner = if v6 { second >> 4 & 3 } else { second & 3 };
    match (inner, outer) {
        (0, CE) => Err(drop::TUNNEL_DECAP_ERROR),
        (ECT0 | ECT1, CE) => Ok(CE),
        (ECT0, ECT1) => Ok(ECT1),
        _ => Ok(inner),
    }
}

/// Whether an ICMP error quotes an outer packet of ours. Then it ends here.
#[inline(always)]
fn about_outer<C: Ctx>(ctx: C, p: &Packet) -> Step<bool> {
    let at = p.l4 as usize + 8;
    let mut key = loxi_ebpf_layout::tunnel::OuterKey { vrf: p.vrf, family: p.family, ..Default::default() };
    let (protocol, l4) = if p.family == family::V4 {
        let Some(words) = read::<C, [u32; 5]>(ctx, at) else { return Ok(false) };
        let first = words[0].to_ne_bytes();
        let fragment = u16::from_be((words[1] >> 16) as u16);
        if first[0] >> 4 != 4 || first[0] & 15 < 5 || fragment & 0x1fff != 0 {
            return Ok(false);
        }
        key.local = Addr([words[3], 0, 0, 0]);
        key.remote = Addr([words[4], 0, 0, 0]);
        ((words[2] >> 8) as u8, at + (first[0] & 15) as usize * 4)
    } else {
        let (Some(head), Some(src), Some(dst)) = (
            read::<C, [u8; 8]>(ctx, at),
            read::<C, [u32; 4]>(ctx, at + 8),
            read::<C, [u32; 4]>(ctx, at + 24),
        ) else {
            return Ok(false);
        };
        if head[0] >> 4 != 6 {
            return Ok(false);
        }
        (key.local, key.remote) = (Addr(src), Addr(dst));
        (head[6], at + 40)
    };
    match protocol {
        17 => {
            // Eight bytes of the transport header are quoted at least, or it is nobody's.
            let Some(words) = read::<C, [u16; 4]>(ctx, l4) else { return Ok(false) };
            if l4 + 8 > p.end as usize {
                return Ok(false);
            }
            key.kind = tunnel::kind::VXLAN;
            key.port = words[1];
        }
        4 | 41 => key.kind = tunnel::kind::IPIP,
        _ => return Ok(false),
    }
    if OUTERS.get(&key).is_some() { Err(punt::PARSE) } else { Ok(false) }
}
