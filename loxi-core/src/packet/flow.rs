//! Flows: the records of conntrack.

use crate::ir::ServiceKey;
use crate::net::{BackendName, IpProtocol, MacAddr, PortName, TunnelName, ZoneName};
use crate::packet::Timestamp;
use std::net::IpAddr;

/// What identifies one direction of a connection within a zone.
///
/// `src_port` and `dst_port` are L4 ports; for ICMP echo both are the
/// identifier; for protocols tracked by addresses alone both are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol.
    pub protocol: IpProtocol,
    /// Source port or identifier.
    pub src_port: u16,
    /// Destination port or identifier.
    pub dst_port: u16,
}

impl FlowTuple {
    /// The tuple of packets in the other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            protocol: self.protocol,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }
}

impl std::fmt::Display for FlowTuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = |addr: IpAddr, port: u16| match addr {
            IpAddr::V4(v4) => format!("{v4}:{port}"),
            IpAddr::V6(v6) => format!("[{v6}]:{port}"),
        };
        write!(f, "{} {} -> {}", self.protocol, end(self.src, self.src_port), end(self.dst, self.dst_port))
    }
}

/// Direction of a packet within its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowDirection {
    /// As the first packet.
    Original,
    /// The other way.
    Reply,
}

impl std::fmt::Display for FlowDirection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Original => "original",
            Self::Reply => "reply",
        })
    }
}

/// TCP as a middlebox sees it, by flags alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TcpState {
    /// SYN seen.
    SynSent,
    /// SYN and SYN-ACK seen.
    SynReceived,
    /// Handshake complete.
    Established,
    /// One side has sent FIN.
    FinWait,
    /// The first FIN was acknowledged.
    CloseWait,
    /// Both sides have sent FIN.
    LastAck,
    /// Both FINs are acknowledged.
    TimeWait,
    /// Reset.
    Close,
}

/// SCTP by chunk types (RFC 9260).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SctpState {
    /// INIT to COOKIE ECHO.
    Setup,
    /// COOKIE ACK seen.
    Established,
    /// SHUTDOWN or ABORT seen.
    Shutdown,
}

/// State of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// TCP.
    Tcp(TcpState),
    /// SCTP.
    Sctp(SctpState),
    /// Another protocol: packets in one direction so far.
    Unreplied,
    /// Another protocol: packets in both directions.
    Replied,
}

impl std::fmt::Display for FlowState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Tcp(TcpState::SynSent) => "syn_sent",
            Self::Tcp(TcpState::SynReceived) => "syn_received",
            Self::Tcp(TcpState::Established) | Self::Sctp(SctpState::Established) => "established",
            Self::Tcp(TcpState::FinWait) => "fin_wait",
            Self::Tcp(TcpState::CloseWait) => "close_wait",
            Self::Tcp(TcpState::LastAck) => "last_ack",
            Self::Tcp(TcpState::TimeWait) => "time_wait",
            Self::Tcp(TcpState::Close) => "close",
            Self::Sctp(SctpState::Setup) => "setup",
            Self::Sctp(SctpState::Shutdown) => "shutdown",
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
        })
    }
}

impl FlowState {
    /// A TCP or SCTP flow that is not yet established.
    #[must_use]
    pub fn is_half_open(self) -> bool {
        matches!(self, Self::Tcp(TcpState::SynSent | TcpState::SynReceived) | Self::Sctp(SctpState::Setup))
    }
}

/// Identity of a flow: its zone and original tuple.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowId {
    /// Zone.
    pub zone: ZoneName,
    /// Tuple of the first packet as it came.
    pub tuple: FlowTuple,
}

/// Where a flow's first packet came in; replies leave there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowIngress {
    /// The port.
    pub port: PortName,
    /// Source MAC of the first packet.
    pub mac: MacAddr,
    /// For tunnel ports, the tunnel back to the outer source where one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelName>,
}

/// What happens to a flow's packets on their way to the destination.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Translation {
    /// Addresses and ports are rewritten where original and reply tuple differ.
    #[default]
    Nat,
    /// The packet goes in IP in IP to the backend, unchanged.
    DsrIpip,
    /// The packet goes to the backend's MAC, unchanged.
    DsrL2,
}

/// Policy generations under which a flow was admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyStamp {
    /// Local source and its generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<(PortName, u64)>,
    /// Local destination and its generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<(PortName, u64)>,
}

/// A connection. The record is the only truth about it: any cache beside it is disposable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Zone and original tuple.
    pub id: FlowId,
    /// Tuple of replies as they come: the reverse of the translated original.
    pub reply: FlowTuple,
    /// How packets reach the destination.
    #[serde(default)]
    pub translation: Translation,
    /// State.
    pub state: FlowState,
    /// First packet.
    pub created: Timestamp,
    /// When it ends unless another packet comes.
    pub expires: Timestamp,
    /// Where the first packet came in.
    pub ingress: FlowIngress,
    /// The service that translated it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKey>,
    /// The endpoint chosen, and its slot generation then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<(BackendName, u64)>,
    /// Endpoint's address and port, where the packet itself doesn't carry them (DSR).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dsr_target: Option<IpAddr>,
    /// Policy generations.
    #[serde(default)]
    pub policy: PolicyStamp,
    /// Whether source and destination are one port, so that no policy applies and the source was
    /// replaced (hairpin).
    #[serde(default)]
    pub hairpin: bool,
    /// Packets and bytes (L3 length), original and reply direction.
    #[serde(default)]
    pub packets: [u64; 2],
    /// Bytes from the L3 header on, original and reply direction.
    #[serde(default)]
    pub bytes: [u64; 2],
}
