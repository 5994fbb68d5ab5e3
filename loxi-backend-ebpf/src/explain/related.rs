//! Stage 6 for ICMP errors: the flow whose packet they quote.

use super::flows::Key;
use super::{Step, Walk, words};
use loxi_ebpf_layout::code::{drop, program, punt};
use loxi_ebpf_layout::flow::{REPLY, rest, translation};
use loxi_ebpf_layout::scratch::{flag, tracking};
use loxi_ebpf_layout::{Addr, family};

impl Walk<'_> {
    pub(super) fn related(&mut self) -> Step<u32> {
        let zone = self.zone_name();
        let family = self.p.family;
        let Some(quoted) = self.quotes()? else {
            let key = format!("zone {zone} error about nothing that can be tracked");
            return self.stranger(key, drop::ICMP_WITHOUT_FLOW);
        };
        let text = format!("zone {zone} error about {}", words::tuple(family, &quoted));
        // The quoted packet is one that we sent: its reverse is a tuple by which the flow is known.
        let found = self.find(family, &quoted.reversed()).filter(|number| self.is_alive(family, *number));
        let Some((number, entry)) = found.and_then(|number| Some((number, self.entry(family, number)?)))
        else {
            return self.stranger(text, drop::ICMP_WITHOUT_FLOW);
        };
        let cold = self.cold_of(family, entry.word, number);
        let flow =
            words::learned(format!("flow {}", self.flow_name(family, cold.map_or(number, |(_, n)| n))));
        // The quoted packet as it came in here, before it was translated.
        let before = entry.new.reversed();
        let src = if self.p.src == quoted.dst { before.dst } else { self.p.src };
        let same = quoted == before && src == self.p.src && self.p.dst == before.src;
        if !same {
            return Err(self.refuse(text, flow, punt::CHECKSUM));
        }
        self.p.tracking = tracking::RELATED;
        self.p.place = number;
        let reply = rest::flags(entry.word) & REPLY != 0;
        if reply {
            self.p.flags |= flag::REPLY;
        } else if let Some((cold, _)) = cold {
            self.p.dsr_target = cold.dsr_target;
            self.p.translation = translation::kind(cold.translation);
            self.p.outer_family = translation::family(cold.translation);
        }
        (self.p.new_src, self.p.new_dst) = (self.p.src, self.p.dst);
        let direction = if reply { "reply" } else { "original" };
        let (before, to) = (words::tuple(family, &before), words::ip(family, before.src));
        self.saw(text, flow, format!("related, {direction}: now about {before}, to {to}"));
        Ok(program::FORWARD)
    }

    /// The tuple of the quoted packet; none if too little is quoted, or if it was an error itself.
    fn quotes(&self) -> Step<Option<Key>> {
        let at = usize::from(self.p.l4) + 8;
        let end = self.p.end as usize;
        let (src, dst, protocol, l4) = if self.p.family == family::V4 {
            let Some(head) = self.bytes::<20>(at).filter(|_| at + 20 <= end) else { return Ok(None) };
            let header = usize::from(head[0] & 15) * 4;
            let fragment = u16::from_be_bytes([head[6], head[7]]);
            if head[0] >> 4 != 4 || header < 20 || at + header > end || fragment & 0x1fff != 0 {
                return Ok(None);
            }
            let addr = |n: usize| Addr::v4([head[n], head[n + 1], head[n + 2], head[n + 3]]);
            (addr(12), addr(16), head[9], at + header)
        } else {
            let (Some(head), Some(src), Some(dst)) =
                (self.bytes::<8>(at), self.addr6(at + 8), self.addr6(at + 24))
            else {
                return Ok(None);
            };
            if head[0] >> 4 != 6 || at + 40 > end {
                return Ok(None);
            }
            if matches!(head[6], 0 | 43 | 44 | 51 | 60) {
                return Err(punt::PARSE);
            }
            (src, dst, head[6], at + 40)
        };
        let ports = match protocol {
            6 | 17 | 132 => {
                let ports = self.word32(l4).filter(|_| l4 + 8 <= end);
                let Some(ports) = ports else { return Ok(None) };
                (ports as u16, (ports >> 16) as u16)
            }
            1 | 58 => {
                let Some([kind, _, _, _, high, low, ..]) = self.bytes::<8>(l4).filter(|_| l4 + 8 <= end)
                else {
                    return Ok(None);
                };
                let query =
                    if protocol == 1 { matches!(kind, 0 | 8 | 13 | 14) } else { matches!(kind, 128 | 129) };
                if !query {
                    return Ok(None);
                }
                let id = u16::from_ne_bytes([high, low]);
                (id, id)
            }
            _ => (0, 0),
        };
        let rest = rest::key(ports.0, ports.1, protocol, self.p.zone);
        // Protocol 0 without ports in zone 0 is what the programs take for no tuple.
        Ok((rest != 0).then_some(Key { src, dst, rest }))
    }
}
