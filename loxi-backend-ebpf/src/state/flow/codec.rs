//! Records of the tables as the core's flows, and back: numbers and names.

use super::key::{Key, ip, wire};
use super::record::Record;
use super::table::Seat;
use super::times::{Near, Timeouts, last_packet};
use crate::install::{Named, Names, Space};
use loxi_core::net::MacAddr;
use loxi_core::packet::{
    Flow, FlowId, FlowIngress, FlowState, PolicyStamp, SctpState, TcpState, Timestamp, Translation,
};
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::flow::{self, Cold, NAT, REPLY, Seen, state, translation};

/// The number of a state.
pub(in crate::state) fn state_number(of: FlowState) -> u8 {
    match of {
        FlowState::Tcp(TcpState::SynSent) => state::SYN_SENT,
        FlowState::Tcp(TcpState::SynReceived) => state::SYN_RECEIVED,
        FlowState::Tcp(TcpState::Established) => state::ESTABLISHED,
        FlowState::Tcp(TcpState::FinWait) => state::FIN_WAIT,
        FlowState::Tcp(TcpState::CloseWait) => state::CLOSE_WAIT,
        FlowState::Tcp(TcpState::LastAck) => state::LAST_ACK,
        FlowState::Tcp(TcpState::TimeWait) => state::TIME_WAIT,
        FlowState::Tcp(TcpState::Close) => state::CLOSE,
        FlowState::Sctp(SctpState::Setup) => state::SCTP_SETUP,
        FlowState::Sctp(SctpState::Established) => state::SCTP_ESTABLISHED,
        FlowState::Sctp(SctpState::Shutdown) => state::SCTP_SHUTDOWN,
        FlowState::Unreplied => state::UNREPLIED,
        FlowState::Replied => state::REPLIED,
    }
}

/// The state of a number.
fn state_of(number: u8) -> Option<FlowState> {
    Some(match number {
        state::SYN_SENT => FlowState::Tcp(TcpState::SynSent),
        state::SYN_RECEIVED => FlowState::Tcp(TcpState::SynReceived),
        state::ESTABLISHED => FlowState::Tcp(TcpState::Established),
        state::FIN_WAIT => FlowState::Tcp(TcpState::FinWait),
        state::CLOSE_WAIT => FlowState::Tcp(TcpState::CloseWait),
        state::LAST_ACK => FlowState::Tcp(TcpState::LastAck),
        state::TIME_WAIT => FlowState::Tcp(TcpState::TimeWait),
        state::CLOSE => FlowState::Tcp(TcpState::Close),
        state::SCTP_SETUP => FlowState::Sctp(SctpState::Setup),
        state::SCTP_ESTABLISHED => FlowState::Sctp(SctpState::Established),
        state::SCTP_SHUTDOWN => FlowState::Sctp(SctpState::Shutdown),
        state::UNREPLIED => FlowState::Unreplied,
        state::REPLIED => FlowState::Replied,
        _ => return None,
    })
}

/// A live name's number, in as few bits as the tables have for it; 0: it has none.
pub(in crate::state) fn number<T: Named, N: TryFrom<u32> + Default>(space: &Space<T>, name: &T) -> N {
    space.number(name).and_then(|number| N::try_from(number).ok()).unwrap_or_default()
}

/// A flow that is to be stored.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Draft {
    /// Family.
    pub(in crate::state) family: u8,
    /// The original direction's entry.
    pub(in crate::state) original: Seat,
    /// The reply direction's.
    pub(in crate::state) reply: Seat,
    /// What both share, but the partner.
    pub(in crate::state) cold: Cold,
}

impl Draft {
    /// That of a flow with these keys.
    fn new(family: u8, key: Key, reply: Key, state: u8, seen: [Seen; 2], cold: Cold) -> Self {
        let nat = if reply == key.reversed() { 0 } else { NAT };
        // The programs decide about its next packet.
        let [first, second] = seen.map(|seen| Seen { epoch: 0, ..seen });
        Self {
            family,
            original: Seat { key, new: reply.reversed(), state, flags: nat, seen: first },
            reply: Seat { key: reply, new: key.reversed(), state, flags: REPLY | nat, seen: second },
            cold,
        }
    }

    /// That of a flow which was there.
    pub(in crate::state) fn again(record: &Record) -> Self {
        Self::new(record.family, record.key, record.reply(), record.state(), record.seen, record.cold)
    }

    /// Whether both directions have the same key, so that there is one entry.
    pub(in crate::state) fn is_single(&self) -> bool {
        self.original.key == self.reply.key
    }
}

/// The flow of a record. `None`: its zone or its ingress port has no live name, so it is nobody's.
pub(in crate::state) fn flow(names: &Names, timeouts: &Timeouts, record: &Record) -> Option<Flow> {
    let (family, cold) = (record.family, &record.cold);
    let zone = names.zones.live(record.zone().into())?.clone();
    let ingress = names.ports.live(cold.in_port.into())?.clone();
    let stamp = |port: u16, generation: u32| {
        names.ports.name(port.into()).map(|name| (name.clone(), u64::from(generation)))
    };
    let kind = translation::kind(cold.translation);
    let target_family = match translation::family(cold.translation) {
        0 => family,
        other => other,
    };
    let targeted = kind != translation::NAT && cold.dsr_target != Addr::ZERO;
    let [original, reply] = record.seen;
    Some(Flow {
        id: FlowId { zone, tuple: record.key.tuple(family) },
        reply: record.reply().tuple(family),
        translation: match kind {
            translation::DSR_IPIP => Translation::DsrIpip,
            translation::DSR_L2 => Translation::DsrL2,
            _ => Translation::Nat,
        },
        state: state_of(record.state())?,
        created: Timestamp(cold.created),
        expires: record.expires(timeouts, Near::created(cold.created)),
        ingress: FlowIngress {
            port: ingress,
            mac: MacAddr::new(cold.in_mac),
            tunnel: names.tunnels.name(cold.in_tunnel.into()).cloned(),
        },
        service: names.services.name(cold.service).cloned(),
        backend: names
            .backends
            .name(cold.backend)
            .map(|name| (name.clone(), u64::from(cold.backend_generation))),
        dsr_target: targeted.then(|| ip(target_family, cold.dsr_target)),
        policy: PolicyStamp {
            source: stamp(cold.source_port, cold.source_generation),
            destination: stamp(cold.destination_port, cold.destination_generation),
        },
        hairpin: cold.hairpin != 0,
        packets: [original.packets, reply.packets],
        bytes: [original.bytes, reply.bytes],
    })
}

/// What is to be stored of a flow. `None`: its zone or its ingress port has no number, or
/// its tuples are not of one family.
pub(in crate::state) fn draft(names: &Names, timeouts: &Timeouts, of: &Flow) -> Option<Draft> {
    let zone: u8 = number(&names.zones, &of.id.zone);
    let in_port: u16 = number(&names.ports, &of.ingress.port);
    if zone == 0 || in_port == 0 {
        return None;
    }
    let (family, key) = Key::of(zone, &of.id.tuple)?;
    let (_, reply) = Key::of(zone, &of.reply).filter(|(other, _)| *other == family)?;
    let number_of = state_number(of.state);
    let last = last_packet(of.expires, timeouts.ns(number_of, of.id.tuple.protocol.0));
    // As many bits of it as the tables have.
    let tick = last as u32;
    let seen =
        [0, 1].map(|n: usize| Seen { epoch: 0, seen: tick, packets: of.packets[n], bytes: of.bytes[n] });
    Some(Draft::new(family, key, reply, number_of, seen, cold(names, in_port, of)))
}

/// Generations are as long in records as the tables have them; their low bits tell them apart.
pub(in crate::state) fn generation(of: u64) -> u32 {
    of as u32
}

fn cold(names: &Names, in_port: u16, of: &Flow) -> Cold {
    let stamp = |stamp: &Option<(loxi_core::net::PortName, u64)>| {
        let (port, at) = stamp.as_ref().map_or((0, 0), |(name, at)| (number(&names.ports, name), *at));
        // A port that isn't configured has no policies that could change.
        if port == 0 { (0, 0) } else { (port, generation(at)) }
    };
    let (source_port, source_generation) = stamp(&of.policy.source);
    let (destination_port, destination_generation) = stamp(&of.policy.destination);
    let backend = of.backend.as_ref().map(|(name, at)| (number(&names.backends, name), generation(*at)));
    let (backend, backend_generation) = backend.filter(|(number, _)| *number != 0).unwrap_or_default();
    let kind = match of.translation {
        Translation::Nat => translation::NAT,
        Translation::DsrIpip => translation::DSR_IPIP,
        Translation::DsrL2 => translation::DSR_L2,
    };
    let target = of.dsr_target.filter(|_| kind != translation::NAT).map(wire);
    let (target_family, dsr_target) = target.unwrap_or((0, Addr::ZERO));
    Cold {
        created: of.created.0,
        partner: 0,
        service: of.service.as_ref().map_or(0, |key| number(&names.services, key)),
        backend,
        backend_generation,
        source_generation,
        destination_generation,
        source_port,
        destination_port,
        in_port,
        in_tunnel: of.ingress.tunnel.as_ref().map_or(0, |name| number(&names.tunnels, name)),
        in_mac: of.ingress.mac.octets(),
        translation: translation::with(kind, target_family),
        hairpin: of.hairpin.into(),
        dsr_target,
    }
}

const _: () = assert!(flow::state::COUNT == 14);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_number() {
        for number in 1..state::COUNT {
            let of = state_of(number).unwrap();
            assert_eq!(state_number(of), number);
            assert_eq!(of.is_half_open(), state::is_half_open(number), "{of}");
        }
        assert_eq!((state_of(0), state_of(state::COUNT)), (None, None));
    }
}
