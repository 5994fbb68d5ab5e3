//! The flow table: two buckets for a key, an entry in one cache line.
//!
//! A flow has an entry per direction, found by that direction's tuple as its
//! packets come in. A bucket is 1 KiB: a line of tags, then entries (15 of one
//! line for IPv4, 7 of two lines for IPv6). A key has two buckets, and three
//! places of its own in them: home in the first, the one beside that, and the
//! one like home in the second. They are looked at in this order before any
//! tag: most hits touch one line, most others a second one. Beside each table
//! lies a colder one with the same places.
//!
//! # Protocol
//! A writer takes both buckets' locks in order, and no other lock. It writes an
//! entry with [`BUSY`] set in its key, then the tag, then the key without it;
//! removing clears the key first, then the tag. A reader compares the key,
//! copies what it wants and compares the key again, state and revision
//! included: what it copied is of one time. Counters and times are written
//! without a lock by whoever handles the packet.

use crate::{Addr, plain};

/// Bytes of a bucket.
pub const BUCKET: usize = 1024;
/// Bytes before a bucket's first entry.
pub const HEAD_V4: usize = 64;
/// Bytes before a bucket's first entry.
pub const HEAD_V6: usize = 128;
/// Entries of a bucket.
pub const PLACES_V4: u32 = 15;
/// Entries of a bucket.
pub const PLACES_V6: u32 = 7;

/// Free places with which a bucket gives a key a place of its own although the key's other bucket has more
/// room. Fewer find more keys where they are looked for first, more fill more of the table.
#[must_use]
#[inline(always)]
pub const fn ample(places: u32) -> u32 {
    if places > 8 { 5 } else { 4 }
}

/// Share of the places, as a fraction, that can be in use before a key may find both of its buckets full: by
/// simulation 0.82 for two million of IPv4 and 0.61 of IPv6, whose buckets are small.
#[must_use]
pub const fn load(places: u32) -> (u32, u32) {
    if places > 8 { (4, 5) } else { (7, 12) }
}

/// A tick: 2^24 ns of CLOCK_BOOTTIME, about 17 ms. 32 bits of them are more than two years.
pub const TICK_SHIFT: u32 = 24;
/// Ticks after which a packet looks at its flow's idle time and at decisions that can age: about a second.
pub const RECHECK: u32 = 64;

/// A bucket's first line.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Tags {
    /// 16 tags of 16 bits; 0: no entry. IPv4 uses 15, IPv6 7.
    pub words: [u64; 4],
    /// See [`lock`].
    pub lock: u64,
    /// Nothing yet.
    pub reserved: [u64; 3],
}

/// Who holds a bucket's lock.
pub mod lock {
    /// Nobody.
    pub const FREE: u64 = 0;
    /// A program.
    pub const PROGRAM: u64 = 1;
    /// A process: if it was killed, the next one may take the lock away.
    pub const USER: u64 = 2;
}

/// A bucket of IPv4 entries.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct BucketV4 {
    /// Tags and lock.
    pub tags: Tags,
    /// Entries.
    pub places: [EntryV4; PLACES_V4 as usize],
}

/// A bucket of IPv6 entries.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct BucketV6 {
    /// Tags and lock.
    pub tags: Tags,
    /// Second half of the head.
    pub reserved: [u64; 8],
    /// Entries.
    pub places: [EntryV6; PLACES_V6 as usize],
}

const _: () = assert!(core::mem::size_of::<BucketV4>() == BUCKET);
const _: () = assert!(core::mem::size_of::<BucketV6>() == BUCKET);

/// How long a flow's decision holds, and what it has counted.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Epoch of the configuration under which the rest was decided.
    pub epoch: u32,
    /// Tick of the last packet.
    pub seen: u32,
    /// Packets.
    pub packets: u64,
    /// Their bytes from the L3 header on.
    pub bytes: u64,
}

/// Where a flow's packets go.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Out {
    /// Port by which they leave; for tunnels the underlay's.
    pub port: u16,
    /// L3 interface by which they are routed, or the tunnel.
    pub via: u16,
    /// Port by which they came in when this was decided.
    pub in_port: u16,
    /// Destination MAC: to be written where routed, to be compared where bridged.
    pub mac: [u8; 6],
}

/// One direction of an IPv4 flow.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntryV4 {
    /// Source and destination as they come in.
    pub addrs: [u32; 2],
    /// Ports, protocol, zone, state and flags: see [`rest`].
    pub rest: u64,
    /// Generations and counters.
    pub seen: Seen,
    /// Source and destination as they go out.
    pub new_addrs: [u32; 2],
    /// Source and destination port (or identifier) as they go out.
    pub new_ports: [u16; 2],
    /// Where to.
    pub out: Out,
}

/// One direction of an IPv6 flow.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntryV6 {
    /// Source as it comes in.
    pub src: [u64; 2],
    /// Destination as it comes in.
    pub dst: [u64; 2],
    /// Ports, protocol, zone, state and flags: see [`rest`].
    pub rest: u64,
    /// Generations and counters.
    pub seen: Seen,
    /// Source and destination as they go out.
    pub new_addrs: [Addr; 2],
    /// Source and destination port (or identifier) as they go out.
    pub new_ports: [u16; 2],
    /// Where to.
    pub out: Out,
    /// Nothing yet.
    pub reserved: [u64; 2],
}

/// What both directions share and few packets need, in the places beside the
/// original direction's; the reply's has the partner only.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cold {
    /// When the flow was made, ns.
    pub created: u64,
    /// Place of the other direction: bucket × 16 + place + 1; 0: none.
    pub partner: u32,
    /// Service that translated it; 0: none.
    pub service: u32,
    /// Endpoint chosen; 0: none.
    pub backend: u32,
    /// Generation of the endpoint's slot then.
    pub backend_generation: u32,
    /// Policy generation of the local source then.
    pub source_generation: u32,
    /// Policy generation of the local destination then.
    pub destination_generation: u32,
    /// Port of the local source.
    pub source_port: u16,
    /// Port of the local destination; 0: none.
    pub destination_port: u16,
    /// Port by which the first packet came in.
    pub in_port: u16,
    /// For tunnel ports, the tunnel back to the outer source; 0: none.
    pub in_tunnel: u16,
    /// Source MAC of the first packet.
    pub in_mac: [u8; 6],
    /// See [`translation::with`].
    pub translation: u8,
    /// 1: source and destination are one port.
    pub hairpin: u8,
    /// Endpoint's address where the packet doesn't carry it.
    pub dsr_target: Addr,
}

plain! {
    Tags = 64, EntryV4 = 64, EntryV6 = 128, BucketV4 = 1024, BucketV6 = 1024, Seen = 24, Out = 12, Cold = 64,
}

/// How packets reach the destination.
pub mod translation {
    /// Addresses and ports are rewritten.
    pub const NAT: u8 = 0;
    /// Whole, in IP in IP.
    pub const DSR_IPIP: u8 = 1;
    /// Whole, to the endpoint's MAC.
    pub const DSR_L2: u8 = 2;

    /// A translation and, for DSR, the family of the endpoint in one byte.
    #[must_use]
    #[inline(always)]
    pub const fn with(kind: u8, family: u8) -> u8 {
        kind | family << 4
    }

    /// The translation of such a byte.
    #[must_use]
    #[inline(always)]
    pub const fn kind(byte: u8) -> u8 {
        byte & 15
    }

    /// The family of such a byte; 0: none.
    #[must_use]
    #[inline(always)]
    pub const fn family(byte: u8) -> u8 {
        byte >> 4
    }
}

/// The second word of a key: ports, protocol, zone; then state and flags,
/// which are not compared when a key is looked for.
pub mod rest {
    /// The part that is the key: the low 48 bits.
    pub const KEY: u64 = 0x0000_ffff_ffff_ffff;
    /// Shift of the state byte: low nibble state, high nibble revision.
    pub const STATE: u32 = 48;
    /// Shift of the flags byte.
    pub const FLAGS: u32 = 56;

    /// The key part. Ports in network order.
    #[must_use]
    #[inline(always)]
    pub const fn key(sport: u16, dport: u16, protocol: u8, zone: u8) -> u64 {
        sport as u64 | (dport as u64) << 16 | (protocol as u64) << 32 | (zone as u64) << 40
    }

    /// With a state and flags, revision 0.
    #[must_use]
    #[inline(always)]
    pub const fn with(key: u64, state: u8, flags: u8) -> u64 {
        key & KEY | (state as u64) << STATE | (flags as u64) << FLAGS
    }

    /// Source port.
    #[must_use]
    #[inline(always)]
    pub const fn sport(rest: u64) -> u16 {
        rest as u16
    }

    /// Destination port.
    #[must_use]
    #[inline(always)]
    pub const fn dport(rest: u64) -> u16 {
        (rest >> 16) as u16
    }

    /// Protocol.
    #[must_use]
    #[inline(always)]
    pub const fn protocol(rest: u64) -> u8 {
        (rest >> 32) as u8
    }

    /// Zone.
    #[must_use]
    #[inline(always)]
    pub const fn zone(rest: u64) -> u8 {
        (rest >> 40) as u8
    }

    /// State.
    #[must_use]
    #[inline(always)]
    pub const fn state(rest: u64) -> u8 {
        (rest >> STATE) as u8 & 0x0f
    }

    /// Flags.
    #[must_use]
    #[inline(always)]
    pub const fn flags(rest: u64) -> u8 {
        (rest >> FLAGS) as u8
    }

    /// The same key with another state and other flags, one revision later.
    #[must_use]
    #[inline(always)]
    pub const fn revised(rest: u64, state: u8, flags: u8) -> u64 {
        let revision = ((rest >> STATE) as u8).wrapping_add(0x10) & 0xf0;
        with(rest, revision | state & 0x0f, flags)
    }
}

/// It is the reply direction.
pub const REPLY: u8 = 1;
/// Its packets are routed: link layer and TTL change.
pub const ROUTED: u8 = 2;
/// Its packets leave in a tunnel.
pub const TUNNEL: u8 = 4;
/// Its packets leave in IP in IP to a service's endpoint of their own family: its new addresses are
/// the outer header's, its packets' own stay.
pub const IPIP: u8 = 8;
/// Addresses or ports change.
pub const NAT: u8 = 16;
/// What is decided holds for packets like the last one: the short way may take it.
pub const FAST: u8 = 32;
/// The decision rests on something learned, which can age.
pub const AGES: u8 = 64;
/// It is being written.
pub const BUSY: u8 = 128;

/// States of flows. 0 is none.
pub mod state {
    /// TCP.
    pub const SYN_SENT: u8 = 1;
    /// TCP.
    pub const SYN_RECEIVED: u8 = 2;
    /// TCP.
    pub const ESTABLISHED: u8 = 3;
    /// TCP.
    pub const FIN_WAIT: u8 = 4;
    /// TCP.
    pub const CLOSE_WAIT: u8 = 5;
    /// TCP.
    pub const LAST_ACK: u8 = 6;
    /// TCP.
    pub const TIME_WAIT: u8 = 7;
    /// TCP.
    pub const CLOSE: u8 = 8;
    /// SCTP.
    pub const SCTP_SETUP: u8 = 9;
    /// SCTP.
    pub const SCTP_ESTABLISHED: u8 = 10;
    /// SCTP.
    pub const SCTP_SHUTDOWN: u8 = 11;
    /// Anything else: one direction seen.
    pub const UNREPLIED: u8 = 12;
    /// Anything else: both directions seen.
    pub const REPLIED: u8 = 13;
    /// One above the last.
    pub const COUNT: u8 = 14;

    /// TCP or SCTP, and not yet established.
    #[must_use]
    #[inline(always)]
    pub const fn is_half_open(state: u8) -> bool {
        matches!(state, SYN_SENT | SYN_RECEIVED | SCTP_SETUP)
    }
}

/// Where a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// First bucket.
    pub first: u32,
    /// Second bucket; may be the first again.
    pub second: u32,
    /// Home place in the first; in the second the third of the key's own places.
    pub home: u32,
    /// The place beside home: its second one. In the same page, and often fetched with it.
    pub beside: u32,
    /// Tag. Its upper bit is set: a free place, whose tag is 0, differs from it by more than one, without
    /// which [`matching`] would take a place behind a free one for free.
    pub tag: u16,
}

/// Where a hash leads in a table of `mask + 1` buckets of `places` entries.
#[must_use]
#[inline(always)]
pub const fn spot(hash: u64, mask: u32, places: u32) -> Spot {
    let tag = (hash >> 48) as u16 | 0x8000;
    let first = hash as u32 & mask;
    let second = (first ^ (tag as u32).wrapping_mul(0x9e37_79b1) >> 8) & mask;
    let home = ((hash >> 32) as u16 as u32 * places) >> 16;
    let beside = if home + 1 == places { 0 } else { home + 1 };
    Spot { first, second, home, beside, tag }
}

impl Spot {
    /// The key's own places, in the order in which they are looked at: `(true, _)` in its second bucket.
    #[must_use]
    #[inline(always)]
    pub const fn own(&self) -> [(bool, u32); 3] {
        [(false, self.home), (false, self.beside), (true, self.home)]
    }

    /// A bucket of the key.
    #[must_use]
    #[inline(always)]
    pub const fn bucket(&self, away: bool) -> u32 {
        if away { self.second } else { self.first }
    }
}

/// A bucket's places that are free, a bit each, and how many.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The places.
    pub free: u32,
    /// Their number.
    pub count: u32,
}

/// Which of its own places a new key takes, if one: `(true, _)` in its second bucket. A bucket gives one
/// while it has [`ample`] room, or no less than the other. Else the key goes wherever there is more room.
#[must_use]
#[inline(always)]
pub const fn own_place(spot: &Spot, first: Room, second: Room, places: u32) -> Option<(bool, u32)> {
    if first.count >= ample(places) || first.count >= second.count {
        if first.free >> spot.home & 1 != 0 {
            return Some((false, spot.home));
        }
        if first.free >> spot.beside & 1 != 0 {
            return Some((false, spot.beside));
        }
    }
    let gives = second.count >= ample(places) || second.count >= first.count;
    if gives && second.free >> spot.home & 1 != 0 { Some((true, spot.home)) } else { None }
}

const K1: u64 = 0x9e37_79b9_7f4a_7c15;
const K2: u64 = 0xbf58_476d_1ce4_e5b9;
const K3: u64 = 0x94d0_49bb_1331_11eb;

#[inline(always)]
const fn finish(mut h: u64) -> u64 {
    h = (h ^ h >> 30).wrapping_mul(K2);
    h = (h ^ h >> 27).wrapping_mul(K3);
    h ^ h >> 31
}

/// Hash of an IPv4 key under a seed that nobody outside knows.
#[must_use]
#[inline(always)]
pub const fn hash_v4(seed: u64, addrs: [u32; 2], rest: u64) -> u64 {
    let addrs = addrs[0] as u64 | (addrs[1] as u64) << 32;
    finish(finish_once(addrs ^ seed) ^ (rest & rest::KEY).wrapping_mul(K1))
}

#[inline(always)]
const fn finish_once(h: u64) -> u64 {
    let h = h.wrapping_mul(K1);
    h ^ h >> 29
}

/// Hash of an IPv6 key.
#[must_use]
#[inline(always)]
pub const fn hash_v6(seed: u64, src: [u64; 2], dst: [u64; 2], rest: u64) -> u64 {
    let mut h = finish_once(src[0] ^ seed);
    h = finish_once(h ^ src[1]);
    h = finish_once(h ^ dst[0]);
    h = finish_once(h ^ dst[1]);
    finish(h ^ (rest & rest::KEY).wrapping_mul(K1))
}

/// Lanes of a word of tags that equal `tag`: bit 15 of each is set. Exact for the
/// lowest match; a lane above a match may be wrong, so a caller takes one at a time.
#[must_use]
#[inline(always)]
pub const fn matching(word: u64, tag: u16) -> u64 {
    const ONES: u64 = 0x0001_0001_0001_0001;
    let x = word ^ (tag as u64).wrapping_mul(ONES);
    x.wrapping_sub(ONES) & !x & 0x8000_8000_8000_8000
}
