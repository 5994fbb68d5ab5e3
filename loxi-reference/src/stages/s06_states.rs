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
