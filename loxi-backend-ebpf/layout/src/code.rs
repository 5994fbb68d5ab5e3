//! Numbers of fates and stages, and what a program tells of a packet.
//!
//! A fate is one byte: the kinds lie apart, and the number within a kind is
//! that of the core's reason.

/// The packet left by a port.
pub const FORWARDED: u8 = 0;
/// Reasons of drops are 1 to 127, as the core numbers them.
pub const DROP_MAX: u8 = 127;
/// A consumed reason is this plus the core's number.
pub const CONSUMED: u8 = 128;
/// A punt reason is this plus the core's number.
pub const PUNTED: u8 = 160;
/// Fates of a port that are counted.
pub const FATES: u32 = 256;

/// What ends a packet without its leaving. Not zero, so that "nothing ended it" needs no second byte.
pub type Fate = core::num::NonZeroU8;

/// The fate of a number; 0 is none.
#[must_use]
pub const fn fate(number: u8) -> Fate {
    match Fate::new(number) {
        Some(fate) => fate,
        None => Fate::MAX,
    }
}

macro_rules! numbers {
    ($(#[$doc:meta])* $module:ident: $base:expr; $($name:ident = $number:literal),+ $(,)?) => {
        $(#[$doc])*
        pub mod $module {
            $(
                #[allow(missing_docs)] // the core documents each reason
                pub const $name: super::Fate = super::fate($base + $number);
            )+
            /// Name and number of each, for the test that holds them to the core's.
            pub const ALL: &[(&str, u8)] = &[$((stringify!($name), $number)),+];
        }
    };
}

numbers! {
    /// Drop reasons that the programs give.
    drop: 0;
    TRUNCATED = 1, BAD_CHECKSUM_L3 = 2, BAD_CHECKSUM_L4 = 3, BAD_HEADER_LENGTH = 4, UNSUPPORTED_L2 = 5,
    UNSUPPORTED_L3 = 6, UNSUPPORTED_L4 = 7, BAD_EXTENSION_HEADER = 8, MARTIAN_SOURCE = 9,
    MARTIAN_DESTINATION = 10, MARTIAN_MAC = 11,
    PORT_DOWN = 20, VLAN_FILTERED = 22, SPLIT_HORIZON = 23, FDB_MISS = 24, WRONG_MAC = 26, UNCLAIMED = 27,
    RESERVED_MULTICAST = 28,
    SPOOF_MAC = 30, SPOOF_IP = 31, SPOOF_ARP = 32, SPOOF_ND = 33, SPOOF_DHCP = 34,
    TUNNEL_UNKNOWN_KEY = 40, TUNNEL_UNTRUSTED_PEER = 41, TUNNEL_DECAP_ERROR = 42, TUNNEL_NO_HEADROOM = 43,
    TUNNEL_LOOP = 44,
    CT_INVALID = 50, CT_FULL = 51, CT_CONTENDED = 52, CT_HALF_OPEN_LIMIT = 53, CT_SOURCE_LIMIT = 54,
    ICMP_WITHOUT_FLOW = 55, FRAGMENT_NO_FIRST = 56, FRAGMENT_TIMEOUT = 57, FRAGMENT_LIMIT = 58,
    NO_BACKEND = 60, NO_LOCAL_BACKEND = 61, NO_SERVICE = 62, SOURCE_RANGE = 63, PORTS_EXHAUSTED = 64,
    UNSUPPORTED_PROTOCOL = 65,
    POLICY_DENIED = 70, POLICY_ISOLATED = 71, POLICY_REVOKED = 72,
    NO_ROUTE = 80, BLACKHOLE = 81, NEIGHBOR_UNRESOLVED = 82, TTL = 83, MTU = 84, EGRESS_DOWN = 85,
    ROUTER_SOLICITATION = 87, LINK_LOCAL_ROUTED = 88, NO_L3 = 90, UNSUPPORTED = 100,
}

numbers! {
    /// Reasons of packets that end here.
    consumed: super::CONSUMED;
    ARP_REPLY = 1, ND_ADVERT = 2, NEIGHBOR_LEARNED = 4, PATH_MTU = 5, TUNNEL_ERROR = 7,
}

numbers! {
    /// Reasons of packets that are handed on. Below 20: to the local stack, as they came.
    punt: super::PUNTED;
    NOT_OURS_UNCLAIMED = 1, NOT_OURS_LOCAL = 2, NOT_OURS_ROUTE = 3, NOT_OURS_SHARED = 4,
    FRAGMENT = 20, ICMP_TO_BUILD = 21, IP_OPTIONS = 22, FIRST_PACKET = 23, NEIGHBOR = 24, MULTICAST = 25,
    CHECKSUM = 26, FRAGMENTATION = 27, PARSE = 28,
}

/// Whether a fate hands the packet to the daemon's slow path.
#[must_use]
#[inline(always)]
pub const fn is_unfinished(fate: u8) -> bool {
    fate >= PUNTED + 20
}

/// Places in the arrays of tail-called programs.
pub mod program {
    /// Parse, and established flows.
    pub const ENTRY: u32 = 0;
    /// Port, VLAN, source guard, tunnel termination.
    pub const INGRESS: u32 = 1;
    /// Fragments and conntrack.
    pub const CONNTRACK: u32 = 2;
    /// Services and destination NAT.
    pub const SERVICE: u32 = 3;
    /// Policy of the local source.
    pub const EGRESS_POLICY: u32 = 4;
    /// Route or bridge.
    pub const FORWARD: u32 = 5;
    /// TTL, MTU, source NAT.
    pub const SNAT: u32 = 6;
    /// Policy of the local destination.
    pub const INGRESS_POLICY: u32 = 7;
    /// The flow comes into being, or its record is renewed.
    pub const COMMIT: u32 = 8;
    /// Rewrite, encapsulate, send.
    pub const SEND: u32 = 9;
    /// ARP and neighbour discovery.
    pub const NEIGHBOR: u32 = 10;
    /// Established flow whose generations are stale.
    pub const REVALIDATE: u32 = 11;
    /// ICMP errors.
    pub const RELATED: u32 = 12;
    /// Second part of sending: what an encapsulation needs.
    pub const ENCAPSULATE: u32 = 13;
    /// Counts the packet's fate and acts on it.
    pub const FINISH: u32 = 14;
    /// How many there are.
    pub const COUNT: u32 = 16;
}
