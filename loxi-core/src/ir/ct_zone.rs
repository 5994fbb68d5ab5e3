//! Conntrack zones: separate spaces of connections, with limits and timeouts.

use super::Origin;
use crate::net::ZoneName;

data! {
    /// Seconds without a packet after which a flow ends, by protocol and state.
    /// The defaults are Linux' (`net.netfilter.nf_conntrack_*_timeout*`),
    /// except that an established TCP flow may idle for a day.
    #[serde(default)]
    pub struct CtTimeouts {
        /// TCP, SYN seen.
        pub tcp_syn_sent_s: u32,
        /// TCP, SYN and SYN-ACK seen.
        pub tcp_syn_received_s: u32,
        /// TCP, established (RFC 5382 REQ-5: at least 2 h 4 min).
        pub tcp_established_s: u32,
        /// TCP, one side has sent FIN.
        pub tcp_fin_wait_s: u32,
        /// TCP, the side that got the first FIN still may send.
        pub tcp_close_wait_s: u32,
        /// TCP, both sides have sent FIN.
        pub tcp_last_ack_s: u32,
        /// TCP, both FINs are acknowledged.
        pub tcp_time_wait_s: u32,
        /// TCP, reset.
        pub tcp_close_s: u32,
        /// UDP, one direction seen.
        pub udp_s: u32,
        /// UDP, both directions seen (RFC 4787 REQ-5: at least 120 s).
        pub udp_stream_s: u32,
        /// SCTP, INIT until both sides are up.
        pub sctp_setup_s: u32,
        /// SCTP, established.
        pub sctp_established_s: u32,
        /// SCTP, shutting down or aborted.
        pub sctp_shutdown_s: u32,
        /// ICMP echo.
        pub icmp_s: u32,
        /// Protocols tracked by addresses alone.
        pub other_s: u32,
    }
}

impl Default for CtTimeouts {
    fn default() -> Self {
        Self {
            tcp_syn_sent_s: 120,
            tcp_syn_received_s: 60,
            tcp_established_s: 86_400,
            tcp_fin_wait_s: 120,
            tcp_close_wait_s: 60,
            tcp_last_ack_s: 30,
            tcp_time_wait_s: 120,
            tcp_close_s: 10,
            udp_s: 30,
            udp_stream_s: 120,
            sctp_setup_s: 10,
            sctp_established_s: 7_440,
            sctp_shutdown_s: 3,
            icmp_s: 30,
            other_s: 600,
        }
    }
}

data! {
    /// A space of connections. Key: its name.
    ///
    /// When full, a new connection is dropped (`ct_full`); an established one
    /// is never evicted for it.
    pub struct CtZone {
        /// Its name.
        pub name: ZoneName,
        /// Flows at most.
        #[serde(default = "crate::defaults::ct_entries")]
        pub max_flows: u32,
        /// TCP flows at most that are not yet established (`ct_half_open_limit`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_half_open: Option<u32>,
        /// Flows at most with one original source (`ct_source_limit`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_per_source: Option<u32>,
        /// Whether a TCP packet that is no SYN may create a flow; else `ct_invalid`.
        #[serde(default)]
        pub mid_stream_pickup: bool,
        /// Idle times.
        #[serde(default)]
        pub timeouts: CtTimeouts,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}
