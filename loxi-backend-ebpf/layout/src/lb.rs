//! Services: what claims a packet, and which endpoint it gets.
//!
//! A service's version is written whole to a place that nobody reads, with its
//! list of endpoints and its table; then one word of the table of keys points
//! there.

use crate::pair::Pair;
use crate::{Addr, plain};

/// Key of a service of one port.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// VRF.
    pub vrf: u16,
    /// Port, network order.
    pub port: u16,
    /// Family.
    pub family: u8,
    /// Protocol.
    pub protocol: u8,
    /// See [`scope`].
    pub scope: u16,
    /// VIP.
    pub addr: Addr,
}

/// Key of a service of a range of ports.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeKey {
    /// Bits that count: [`RANGE_FIXED_BITS`], then those of the port.
    pub bits: u32,
    /// VRF.
    pub vrf: u16,
    /// Family.
    pub family: u8,
    /// Protocol.
    pub protocol: u8,
    /// See [`scope`].
    pub scope: u32,
    /// VIP.
    pub addr: Addr,
    /// Port, network order, as the first two bytes.
    pub port: u32,
}

/// Bits of a [`RangeKey`] before its port.
pub const RANGE_FIXED_BITS: u32 = 8 * (2 + 1 + 1 + 4 + 16);

/// Clients for whom a service is.
pub mod scope {
    /// Everybody.
    pub const ANY: u16 = 0;
    /// Behind internal ports.
    pub const INTERNAL: u16 = 1;
    /// Behind external ports.
    pub const EXTERNAL: u16 = 2;
}

/// Flags of a virtual address.
pub mod vip {
    /// Ours alone.
    pub const EXCLUSIVE: u32 = 1;
    /// Other traffic is rejected, else dropped.
    pub const REJECT: u32 = 2;
    /// Echo is answered.
    pub const ECHO: u32 = 4;
    /// A service of a range of ports is here.
    pub const RANGES: u32 = 8;
}

/// A version of a service.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Service {
    /// The key that it is for, so that a reader knows that the place is still this service's.
    pub key: ServiceKey,
    /// Stable number: affinity and turns go by it.
    pub id: u32,
    /// See [`mode`].
    pub mode: u8,
    /// See [`algorithm`].
    pub algorithm: u8,
    /// Reason where no endpoint may be used; 0: one may.
    pub refusal: u8,
    /// 1: a refusal is answered.
    pub reject: u8,
    /// Set of sources that are served; 0: all.
    pub sources: u32,
    /// Where the list of endpoints begins.
    pub list: u32,
    /// Endpoints.
    pub count: u32,
    /// Sum of their weights.
    pub total: u32,
    /// Where the table of hashes begins: its first word.
    pub table: u32,
    /// Places of the table.
    pub size: u32,
    /// ns for which a client keeps its endpoint; 0: none.
    pub affinity: u64,
    /// Last port of a range, network order; the first is the key's.
    pub last_port: u32,
    /// Endpoints that get nothing now; they stand in the list behind the others.
    pub idle: u32,
}

/// Places of a word of a table of hashes: indices into a list, 16 bits each, the first one lowest.
pub const HASHES_PER_WORD: u32 = 4;

/// The word of a place, and the shift within it.
#[must_use]
#[inline(always)]
pub const fn hash_word(table: u32, place: u32) -> (u32, u32) {
    (table.wrapping_add(place / HASHES_PER_WORD), place % HASHES_PER_WORD * 16)
}

/// How packets reach the endpoint.
pub mod mode {
    /// Destination rewritten.
    pub const NAT: u8 = 0;
    /// Source rewritten too.
    pub const FULL_NAT: u8 = 1;
    /// In IP in IP.
    pub const DSR_IPIP: u8 = 2;
    /// To the endpoint's MAC.
    pub const DSR_L2: u8 = 3;
}

/// How a new connection gets its endpoint.
pub mod algorithm {
    /// By the table, of the flow's hash.
    pub const MAGLEV: u8 = 0;
    /// By the table, of the source's hash.
    pub const SOURCE_HASH: u8 = 1;
    /// In turn.
    pub const ROUND_ROBIN: u8 = 2;
    /// At random.
    pub const RANDOM: u8 = 3;
    /// The one with the fewest.
    pub const LEAST_CONNECTIONS: u8 = 4;
}

/// A place in a list of endpoints.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// Sum of the weights up to and including this one.
    pub up_to: u32,
    /// The endpoint.
    pub backend: u32,
    /// The generation of the endpoint's place that is meant: a list goes with endpoints as they are in it,
    /// while those change.
    pub generation: u32,
    /// Nothing yet.
    pub reserved: u32,
}

/// An endpoint.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backend {
    /// Generation of the place; another one: what refers to it is stale.
    pub generation: u32,
    /// Family.
    pub family: u8,
    /// 1: local.
    pub local: u8,
    /// L4 port, network order; 0 keeps the packet's.
    pub port: u16,
    /// Address.
    pub addr: Addr,
    /// Share of new connections.
    pub weight: u32,
    /// See [`backend`].
    pub flags: u32,
}

impl Pair<Backend> {
    /// The endpoint of a generation. While it changes the half that isn't read is the next one, for which
    /// lists are written already; of a generation that is neither, the present one.
    #[must_use]
    #[inline(always)]
    pub fn of_generation(&self, generation: u32) -> &Backend {
        let (current, other) = (self.current(), self.other());
        if current.generation != generation && other.generation == generation { other } else { current }
    }
}

impl Backend {
    /// Whether a generation is of before: one that is still to come is not.
    #[must_use]
    #[inline(always)]
    pub fn outdates(&self, generation: u32) -> bool {
        (self.generation.wrapping_sub(generation) as i32) > 0
    }
}

/// Flags of an endpoint.
pub mod backend {
    /// It is configured.
    pub const EXISTS: u32 = 1;
    /// It takes no part.
    pub const DOWN: u32 = 2;
}

/// Key of a client's remembered endpoint.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// The service's stable number.
    pub service: u32,
    /// Family.
    pub family: u32,
    /// The client.
    pub client: Addr,
}

/// A client's remembered endpoint.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Affinity {
    /// The endpoint.
    pub backend: u32,
    /// Its generation then.
    pub generation: u32,
    /// When it is forgotten, ns.
    pub expires: u64,
}

plain! {
    ServiceKey = 24, RangeKey = 32, Service = 72, Choice = 16, Backend = 32, AffinityKey = 24, Affinity = 16,
}
