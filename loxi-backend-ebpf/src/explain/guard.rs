//! Stage 3: sources must be the port's own.

use super::{Step, Walk, is_link_local};
use crate::sys::GUARD_MACS;
use loxi_ebpf_layout::code::{drop, punt};
use loxi_ebpf_layout::l2::{GuardMac, Port, port};
use loxi_ebpf_layout::limits::ND_OPTIONS;
use loxi_ebpf_layout::scratch::l4;
use loxi_ebpf_layout::{Addr, family};

impl Walk<'_> {
    fn owns_mac(&self, port: &Port, mac: [u8; 6]) -> bool {
        mac == port.mac
            || port.flags & port::GUARD_MACS != 0
                && self.t.look(GUARD_MACS, &GuardMac { set: port.guard, mac, reserved: 0 }).is_some()
    }

    pub(super) fn guard(&self, port: &Port) -> Step {
        let p = &self.p;
        if !self.owns_mac(port, p.smac) {
            return Err(drop::SPOOF_MAC);
        }
        if p.kind == l4::ARP {
            let Some(mac) = self.bytes(usize::from(p.l3) + 8) else { return Err(drop::SPOOF_ARP) };
            // A probe has no sender address yet.
            let sender = if p.src == Addr::ZERO { p.dst } else { p.src };
            let own = self.owns_mac(port, mac) && self.t.in_set(port.guard, family::V4, &sender);
            return if own { Ok(()) } else { Err(drop::SPOOF_ARP) };
        }
        if p.family == 0 {
            return Ok(());
        }
        match p.kind {
            l4::ND if p.detail == 134 || p.detail == 137 => return Err(drop::SPOOF_ND),
            l4::ERROR if p.family == family::V4 && p.detail == 5 => return Err(drop::SPOOF_IP),
            l4::UDP if p.fragment_offset == 0 => {
                let ports = (u16::from_be(p.sport), u16::from_be(p.dport));
                if ports == (67, 68) || ports == (547, 546) {
                    return Err(drop::SPOOF_DHCP);
                }
            }
            _ => {}
        }
        if p.kind == l4::ND {
            return self.guard_nd(port);
        }
        let own = self.t.in_set(port.guard, p.family, &p.src) || self.is_exempt(port);
        if own { Ok(()) } else { Err(drop::SPOOF_IP) }
    }

    /// Sources without an address of their own.
    fn is_exempt(&self, port: &Port) -> bool {
        let p = &self.p;
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
    fn guard_nd(&self, port: &Port) -> Step {
        let p = &self.p;
        let at = usize::from(p.l4);
        // The unspecified address is nobody's.
        let target = self.addr6(at + 8).unwrap_or(Addr::ZERO);
        let end = usize::from(p.l3) + p.ip_len as usize;
        let mut option = at + if p.detail == 133 { 8 } else { 24 };
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
            let Some([kind, units]) = self.bytes::<2>(option) else { return Err(punt::PARSE) };
            let length = usize::from(units) * 8;
            if length == 0 || option + length > end {
                return Err(drop::SPOOF_ND);
            }
            if kind == 1 || kind == 2 {
                // Zero is nobody's: what isn't there is not the port's own.
                let mac = self.bytes(option + 2).unwrap_or([0; 6]);
                if !self.owns_mac(port, mac) {
                    return Err(drop::SPOOF_ND);
                }
            }
            option += length;
        }
        let owned =
            |addr: &Addr| self.t.in_set(port.guard, family::V6, addr) || is_link_local(family::V6, addr);
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
}
