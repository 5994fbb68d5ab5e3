//! Stages 5 and 6: fragments, and the flow that a packet belongs to.

use super::flows::Key;
use super::{Step, Walk, is_group, words};
use crate::sys::{BACKENDS, FRAGMENTS, KEPT, PORT_POLICY};
use loxi_core::packet::Stage;
use loxi_ebpf_layout::code::{self, Fate, drop, program, punt};
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::flow::{BUSY, Cold, REPLY, rest, state, translation};
use loxi_ebpf_layout::l3::{FragmentKey, Zone};
use loxi_ebpf_layout::limits::FRAGMENTS as MOST_FRAGMENTS;
use loxi_ebpf_layout::scratch::{flag, l4, tracking};

mod tcp {
    #![allow(missing_docs)] // RFC 9293's own names
    pub(super) const FIN: u8 = 1;
    pub(super) const SYN: u8 = 2;
    pub(super) const RST: u8 = 4;
    pub(super) const ACK: u8 = 16;
}

impl Walk<'_> {
    pub(super) fn conntrack(&mut self) -> Step<u32> {
        if self.p.zone == 0 {
            return Ok(self.untracked());
        }
        let group = is_group(self.p.family, &self.p.dst);
        if self.p.flags & flag::FRAGMENT != 0 && !group {
            self.meet(Stage::Fragment);
            self.fragment()?;
        }
        // Link protocols and groups have no connections.
        if self.is_link_protocol() || group {
            return Ok(self.untracked());
        }
        self.meet(Stage::Conntrack);
        if self.p.kind == l4::ERROR {
            return Ok(program::RELATED);
        }
        if self.p.kind == l4::ICMP_OTHER {
            let key = format!("zone {} {}", self.zone_name(), self.summary());
            return self.stranger(key, drop::CT_INVALID);
        }
        self.p.flags |= flag::TUPLE;
        self.look_up()
    }

    /// What comes after conntrack for a packet that isn't tracked.
    fn untracked(&mut self) -> u32 {
        self.p.tracking = tracking::UNTRACKED;
        self.as_it_came();
        if self.p.kind == l4::ND {
            program::NEIGHBOR
        } else if !self.is_link_protocol() && self.has_egress_policy() {
            program::EGRESS_POLICY
        } else {
            program::FORWARD
        }
    }

    fn as_it_came(&mut self) {
        let p = &mut self.p;
        (p.new_src, p.new_dst) = (p.src, p.dst);
        (p.new_sport, p.new_dport) = (p.sport, p.dport);
    }

    /// Whether the port's connections are subject to rules.
    pub(super) fn has_egress_policy(&self) -> bool {
        self.t.array(PORT_POLICY, self.p.port.into()).is_some_and(|policy| policy.groups as u32 != 0)
    }

    /// Gives a later fragment the tuple of its first.
    fn fragment(&mut self) -> Step {
        let p = &self.p;
        let key = FragmentKey {
            zone: p.zone,
            family: p.family,
            protocol: p.protocol,
            reserved: 0,
            id: p.fragment_id,
            src: p.src,
            dst: p.dst,
        };
        let record = self.t.look(FRAGMENTS, &key);
        let text = format!("{} id {} offset {}", self.summary(), p.fragment_id, p.fragment_offset);
        if p.fragment_offset == 0 {
            let known = self.t.array(KEPT, kept::FRAGMENTS).unwrap_or(0).cast_signed();
            let full = known >= i64::from(MOST_FRAGMENTS) && record.is_none();
            return if full { Err(self.refuse(text, None, punt::FRAGMENT)) } else { Ok(()) };
        }
        let Some(record) = record else { return Err(self.refuse(text, None, drop::FRAGMENT_NO_FIRST)) };
        if record.expires <= p.now {
            return Err(self.refuse(text, words::learned("record"), drop::FRAGMENT_TIMEOUT));
        }
        if record.reason != 0 {
            return Err(self.refuse(text, words::learned("record"), code::fate(record.reason as u8)));
        }
        (self.p.sport, self.p.dport) = (record.sport, record.dport);
        let effect = format!("belongs to {}", self.summary());
        self.saw(text, words::learned("record"), effect);
        Ok(())
    }

    fn look_up(&mut self) -> Step<u32> {
        let Some(zone) = self.zone(self.p.zone) else { return Ok(self.untracked()) };
        let (family, key) = (self.p.family, self.own_key());
        let Some(number) = self.find(family, &key) else { return self.opens(&zone) };
        let Some(entry) = self.entry(family, number) else { return self.opens(&zone) };
        let text = format!("zone {} {}", self.zone_name(), self.summary());
        let word = entry.word;
        if rest::flags(word) & BUSY != 0 {
            return Err(self.refuse(text, words::learned("flow that is being written"), drop::CT_CONTENDED));
        }
        if !self.is_alive(family, number) {
            self.saw(text, words::learned("flow"), "over: idle for too long");
            self.forget(family, number);
            return self.opens(&zone);
        }
        let Some((cold, original)) = self.cold_of(family, word, number) else {
            let entry = words::learned("flow whose other direction is nowhere");
            return Err(self.refuse(text, entry, drop::CT_CONTENDED));
        };
        if original != number && cold.partner != number {
            self.saw(text, words::learned("reply"), "over: its flow is another's");
            self.forget(family, number);
            return self.opens(&zone);
        }
        if self.is_over(word, &cold) {
            self.saw(text, words::learned("flow"), "over: its endpoint is another, or it is opened anew");
            self.forget(family, number);
            return self.opens(&zone);
        }
        let reply = rest::flags(word) & REPLY != 0;
        let p = &mut self.p;
        p.tracking = tracking::ESTABLISHED;
        (p.place, p.original) = (number, original);
        p.state = rest::state(word);
        p.translation = translation::kind(cold.translation);
        p.outer_family = translation::family(cold.translation);
        p.hairpin = cold.hairpin;
        if reply {
            p.flags |= flag::REPLY;
        } else {
            p.dsr_target = cold.dsr_target;
        }
        let new = entry.new;
        (p.new_src, p.new_dst) = (new.src, new.dst);
        (p.new_sport, p.new_dport) = (rest::sport(new.rest), rest::dport(new.rest));
        if new != key {
            p.flags |= flag::NAT;
        }
        let stale = entry.seen.epoch != p.epoch;
        let one_way = p.translation != translation::NAT;
        self.p.next_state = self.next(reply, one_way);
        let effect = self.flow_effect(reply, stale.then_some(entry.seen.epoch));
        self.saw(text, words::learned(format!("flow {}", self.flow_name(family, original))), effect);
        if stale {
            self.p.flags |= flag::STALE;
            return Ok(program::REVALIDATE);
        }
        Ok(program::FORWARD)
    }

    /// The tuple with which a flow began.
    pub(super) fn flow_name(&self, family: u8, original: u32) -> String {
        let key = self.entry(family, original).map(|entry| entry.key);
        key.map_or_else(|| words::nameless(original), |key: Key| words::tuple(family, &key).to_string())
    }

    fn flow_effect(&self, reply: bool, stale: Option<u32>) -> String {
        let direction = if reply { "reply" } else { "original" };
        let state = words::state_name(self.p.next_state);
        let text = format!("{direction}, {state}, becomes {}", self.translated());
        match stale {
            Some(epoch) => format!("{text}; decided in epoch {epoch}, now {}: judged again", self.p.epoch),
            None => text,
        }
    }

    /// Whether a flow is to be replaced: a UDP one whose endpoint is another by now, or an ended TCP
    /// connection that is opened anew.
    fn is_over(&self, word: u64, cold: &Cold) -> bool {
        if self.p.protocol == 17 && cold.backend != 0 {
            let now = self.t.current(BACKENDS, cold.backend);
            return now.is_none_or(|backend| backend.outdates(cold.backend_generation));
        }
        let ended = matches!(rest::state(word), state::TIME_WAIT | state::CLOSE);
        ended && self.p.kind == l4::TCP && self.tcp_flags() == tcp::SYN
    }

    fn tcp_flags(&self) -> u8 {
        self.p.detail & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK)
    }

    /// What a packet without a flow may do.
    fn opens(&mut self, zone: &Zone) -> Step<u32> {
        let text = format!("zone {} {}", self.zone_name(), self.summary());
        let Some(opening) = self.opening(zone) else {
            return self.stranger(text, drop::CT_INVALID);
        };
        self.saw(text, None, "new");
        self.p.tracking = tracking::NEW;
        (self.p.state, self.p.next_state) = (opening, opening);
        self.as_it_came();
        Ok(if self.p.flags & flag::TO_US != 0 && self.p.vrf != 0 {
            program::SERVICE
        } else if self.has_egress_policy() {
            program::EGRESS_POLICY
        } else {
            program::FORWARD
        })
    }

    /// What fits no flow and may open none.
    pub(super) fn stranger(&mut self, text: String, reason: Fate) -> Step<u32> {
        if self.p.flags & flag::TO_US == 0 || self.p.vrf == 0 {
            return Err(self.refuse(text, None, reason));
        }
        self.saw(text, None, "no flow, and it may open none");
        self.p.tracking = tracking::UNTRACKED;
        self.as_it_came();
        Ok(program::SERVICE)
    }

    /// The state of a flow that this packet opens, if it may open one.
    fn opening(&self, zone: &Zone) -> Option<u8> {
        match self.p.kind {
            l4::TCP if self.tcp_flags() == tcp::SYN => Some(state::SYN_SENT),
            l4::TCP => {
                let middle = zone.pickup != 0 && self.tcp_flags() & (tcp::SYN | tcp::RST) == 0;
                middle.then_some(state::ESTABLISHED)
            }
            l4::SCTP => (self.p.detail == 1).then_some(state::SCTP_SETUP),
            l4::REQUEST | l4::UDP | l4::OTHER => Some(state::UNREPLIED),
            _ => None,
        }
    }

    /// The state after a packet. `one_way`: replies don't pass here.
    fn next(&self, reply: bool, one_way: bool) -> u8 {
        let p = &self.p;
        match p.kind {
            l4::TCP if p.state <= state::CLOSE => next_tcp(p.state, p.detail, reply, one_way),
            l4::SCTP if p.state <= state::SCTP_SHUTDOWN => match p.detail {
                11 if p.state == state::SCTP_SETUP => state::SCTP_ESTABLISHED,
                6 | 7 | 8 | 14 => state::SCTP_SHUTDOWN,
                _ => p.state,
            },
            _ if p.state == state::UNREPLIED && reply => state::REPLIED,
            _ => p.state,
        }
    }
}

fn next_tcp(now: u8, flags: u8, reply: bool, one_way: bool) -> u8 {
    let (fin, syn, ack) = (flags & tcp::FIN != 0, flags & tcp::SYN != 0, flags & tcp::ACK != 0);
    if flags & tcp::RST != 0 {
        return state::CLOSE;
    }
    match now {
        state::SYN_SENT if reply && syn => state::SYN_RECEIVED,
        state::SYN_SENT if one_way && ack && !syn => state::ESTABLISHED,
        state::SYN_RECEIVED if !reply && ack && !syn && !fin => state::ESTABLISHED,
        state::SYN_RECEIVED | state::ESTABLISHED if fin => state::FIN_WAIT,
        state::FIN_WAIT | state::CLOSE_WAIT if fin => state::LAST_ACK,
        state::FIN_WAIT if ack && !syn => state::CLOSE_WAIT,
        state::LAST_ACK if ack && !syn && !fin => state::TIME_WAIT,
        other => other,
    }
}
