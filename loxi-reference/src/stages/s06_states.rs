//! States and idle times of flows.
//!
//! TCP by flags alone, with the transitions of Linux' conntrack and without
//! its window tracking; SCTP by the first chunk's type (RFC 9260); everything
//! else by directions seen.

use crate::frame::L4;
use loxi_core::ir::CtZone;
use loxi_core::net::IpProtocol;
use loxi_core::packet::{FlowDirection, FlowState, SctpState, TcpState};

/// The state of a flow that this packet opens. `None` if it may not open one.
pub(super) fn opening(l4: &L4, zone: &CtZone) -> Option<FlowState> {
    match l4 {
        L4::Tcp { syn, ack, fin, rst, .. } => match (syn, ack, fin, rst) {
            (true, false, false, false) => Some(FlowState::Tcp(TcpState::SynSent)),
            (false, _, _, false) if zone.mid_stream_pickup => Some(FlowState::Tcp(TcpState::Established)),
            _ => None,
        },
        // INIT opens an association; anything else belongs to one.
        L4::Sctp { chunk, .. } => (*chunk == Some(1)).then_some(FlowState::Sctp(SctpState::Setup)),
        L4::Icmp(crate::frame::Icmp::Query { request, .. }) => request.then_some(FlowState::Unreplied),
        L4::Icmp(_) | L4::LaterFragment => None,
        L4::Udp { .. } | L4::Other => Some(FlowState::Unreplied),
    }
}

/// The state after a packet of the flow. `one_way`: replies don't pass here (DSR).
pub(super) fn next(state: FlowState, direction: FlowDirection, l4: &L4, one_way: bool) -> FlowState {
    match (state, l4) {
        (FlowState::Tcp(state), L4::Tcp { syn, ack, fin, rst, .. }) => {
            let flags = Flags { syn: *syn, ack: *ack, fin: *fin, rst: *rst };
            FlowState::Tcp(next_tcp(state, direction, flags, one_way))
        }
        (FlowState::Sctp(state), L4::Sctp { chunk, .. }) => FlowState::Sctp(match chunk {
            // COOKIE ACK.
            Some(11) if state == SctpState::Setup => SctpState::Established,
            // ABORT, SHUTDOWN, SHUTDOWN ACK, SHUTDOWN COMPLETE.
            Some(6 | 7 | 8 | 14) => SctpState::Shutdown,
            _ => state,
        }),
        (FlowState::Unreplied, _) if direction == FlowDirection::Reply => FlowState::Replied,
        (state, _) => state,
    }
}

#[derive(Clone, Copy)]
struct Flags {
    syn: bool,
    ack: bool,
    fin: bool,
    rst: bool,
}

fn next_tcp(state: TcpState, direction: FlowDirection, flags: Flags, one_way: bool) -> TcpState {
    use TcpState::*;
    let reply = direction == FlowDirection::Reply;
    if flags.rst {
        return Close;
    }
    match state {
        // A SYN of the other side as well is a simultaneous open (RFC 9293 3.5).
        SynSent if reply && flags.syn => SynReceived,
        SynSent if one_way && flags.ack && !flags.syn => Established,
        SynReceived if !reply && flags.ack && !flags.syn && !flags.fin => Established,
        SynReceived | Established if flags.fin => FinWait,
        FinWait | CloseWait if flags.fin => LastAck,
        FinWait if flags.ack && !flags.syn => CloseWait,
        LastAck if flags.ack && !flags.syn && !flags.fin => TimeWait,
        state => state,
    }
}

/// Whether a packet opens the connection anew: a SYN on a connection that has ended.
pub(super) fn reopens(state: FlowState, l4: &L4) -> bool {
    matches!(state, FlowState::Tcp(TcpState::TimeWait | TcpState::Close))
        && matches!(l4, L4::Tcp { syn: true, ack: false, rst: false, fin: false, .. })
}

/// Seconds without a packet after which a flow ends.
pub(super) fn timeout(state: FlowState, protocol: IpProtocol, zone: &CtZone) -> u32 {
    let t = &zone.timeouts;
    match state {
        FlowState::Tcp(TcpState::SynSent) => t.tcp_syn_sent_s,
        FlowState::Tcp(TcpState::SynReceived) => t.tcp_syn_received_s,
        FlowState::Tcp(TcpState::Established) => t.tcp_established_s,
        FlowState::Tcp(TcpState::FinWait) => t.tcp_fin_wait_s,
        FlowState::Tcp(TcpState::CloseWait) => t.tcp_close_wait_s,
        FlowState::Tcp(TcpState::LastAck) => t.tcp_last_ack_s,
        FlowState::Tcp(TcpState::TimeWait) => t.tcp_time_wait_s,
        FlowState::Tcp(TcpState::Close) => t.tcp_close_s,
        FlowState::Sctp(SctpState::Setup) => t.sctp_setup_s,
        FlowState::Sctp(SctpState::Established) => t.sctp_established_s,
        FlowState::Sctp(SctpState::Shutdown) => t.sctp_shutdown_s,
        FlowState::Unreplied | FlowState::Replied => match protocol {
            IpProtocol::UDP if state == FlowState::Replied => t.udp_stream_s,
            IpProtocol::UDP => t.udp_s,
            IpProtocol::ICMP | IpProtocol::ICMPV6 => t.icmp_s,
            _ => t.other_s,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FlowDirection::{Original, Reply};
    use TcpState::*;

    fn flags(text: &str) -> Flags {
        Flags {
            syn: text.contains('S'),
            ack: text.contains('A'),
            fin: text.contains('F'),
            rst: text.contains('R'),
        }
    }

    #[test]
    fn every_transition_of_tcp() {
        let rows = [
            (SynSent, Original, "S", SynSent),
            (SynSent, Original, "A", SynSent),
            (SynSent, Original, "SA", SynSent),
            (SynSent, Reply, "SA", SynReceived),
            (SynSent, Reply, "S", SynReceived),
            (SynSent, Reply, "A", SynSent),
            (SynReceived, Reply, "SA", SynReceived),
            (SynReceived, Reply, "A", SynReceived),
            (SynReceived, Original, "S", SynReceived),
            (SynReceived, Original, "SA", SynReceived),
            (SynReceived, Original, "A", Established),
            (SynReceived, Original, "FA", FinWait),
            (SynReceived, Reply, "FA", FinWait),
            (Established, Original, "A", Established),
            (Established, Reply, "S", Established),
            (Established, Original, "FA", FinWait),
            (Established, Reply, "FA", FinWait),
            (FinWait, Reply, "A", CloseWait),
            (FinWait, Reply, "SA", FinWait),
            (FinWait, Reply, "-", FinWait),
            (FinWait, Reply, "FA", LastAck),
            (CloseWait, Reply, "A", CloseWait),
            (CloseWait, Reply, "FA", LastAck),
            (LastAck, Original, "FA", LastAck),
            (LastAck, Original, "SA", LastAck),
            (LastAck, Original, "A", TimeWait),
            (TimeWait, Original, "A", TimeWait),
            (TimeWait, Reply, "FA", TimeWait),
            (Close, Original, "A", Close),
        ];
        for (state, direction, text, wanted) in rows {
            assert_eq!(
                next_tcp(state, direction, flags(text), false),
                wanted,
                "{state:?} {direction} {text}"
            );
        }
        for state in [SynSent, SynReceived, Established, FinWait, CloseWait, LastAck, TimeWait, Close] {
            for direction in [Original, Reply] {
                assert_eq!(next_tcp(state, direction, flags("RA"), false), Close);
            }
        }
    }

    #[test]
    fn a_connection_whose_replies_pass_elsewhere_is_established_by_its_client() {
        assert_eq!(next_tcp(SynSent, Original, flags("A"), true), Established);
        assert_eq!(next_tcp(SynSent, Original, flags("S"), true), SynSent);
        assert_eq!(next_tcp(SynSent, Original, flags("SA"), true), SynSent);
        assert_eq!(next_tcp(SynSent, Original, flags("-"), true), SynSent);
    }

    #[test]
    fn only_an_ended_connection_is_opened_anew() {
        let syn = |ack, fin, rst| L4::Tcp { src: 1, dst: 2, syn: true, ack, fin, rst };
        for state in [TimeWait, Close] {
            assert!(reopens(FlowState::Tcp(state), &syn(false, false, false)));
            assert!(!reopens(FlowState::Tcp(state), &syn(true, false, false)));
            assert!(!reopens(FlowState::Tcp(state), &syn(false, true, false)));
            assert!(!reopens(FlowState::Tcp(state), &syn(false, false, true)));
        }
        for state in [SynSent, SynReceived, Established, FinWait, CloseWait, LastAck] {
            assert!(!reopens(FlowState::Tcp(state), &syn(false, false, false)));
        }
    }

    #[test]
    fn every_state_has_its_own_idle_time() {
        let mut zone: CtZone = loxi_core::text::parse_yaml("name: z").unwrap();
        let t = &mut zone.timeouts;
        let fields = [
            &mut t.tcp_syn_sent_s,
            &mut t.tcp_syn_received_s,
            &mut t.tcp_established_s,
            &mut t.tcp_fin_wait_s,
            &mut t.tcp_close_wait_s,
            &mut t.tcp_last_ack_s,
            &mut t.tcp_time_wait_s,
            &mut t.tcp_close_s,
            &mut t.sctp_setup_s,
            &mut t.sctp_established_s,
            &mut t.sctp_shutdown_s,
            &mut t.udp_s,
            &mut t.udp_stream_s,
            &mut t.icmp_s,
            &mut t.other_s,
        ];
        for (value, field) in (1..).zip(fields) {
            *field = value;
        }
        let tcp = [SynSent, SynReceived, Established, FinWait, CloseWait, LastAck, TimeWait, Close];
        let sctp = [SctpState::Setup, SctpState::Established, SctpState::Shutdown];
        let states = tcp.into_iter().map(|state| (FlowState::Tcp(state), IpProtocol::TCP));
        let states = states.chain(sctp.into_iter().map(|state| (FlowState::Sctp(state), IpProtocol::SCTP)));
        let states = states.chain([
            (FlowState::Unreplied, IpProtocol::UDP),
            (FlowState::Replied, IpProtocol::UDP),
            (FlowState::Unreplied, IpProtocol::ICMP),
            (FlowState::Replied, IpProtocol::GRE),
        ]);
        for (wanted, (state, protocol)) in (1..).zip(states) {
            assert_eq!(timeout(state, protocol, &zone), wanted, "{state} {protocol}");
        }
        assert_eq!(timeout(FlowState::Replied, IpProtocol::ICMPV6, &zone), 14);
    }
}
