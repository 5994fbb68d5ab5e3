//! What the programs of the benchmarks share with whoever runs them.
//!
//! Flow number `i` differs from the others by its source alone: the port by the
//! low bits of the number, the low half of the address by the rest.

use crate::{Addr, plain};

/// Bits of a flow's number that are in its source port.
pub const PORT_BITS: u32 = 14;
/// Source port of the first flow.
pub const FIRST_PORT: u16 = 1024;
/// Low half of the first flow's source address.
pub const FIRST_ADDR: u16 = 0x4000;

/// Source port and low half of the source address of a flow.
#[must_use]
#[inline(always)]
pub const fn source(flow: u32) -> (u16, u16) {
    (FIRST_PORT + (flow & ((1 << PORT_BITS) - 1)) as u16, FIRST_ADDR + (flow >> PORT_BITS) as u16)
}

/// Multiplier and increment of the generator that says whose turn it is (Knuth's MMIX). Modulo a power
/// of two its low bits have a full period: each flow comes once a round.
pub const STEP: (u64, u64) = (0x5851_f42d_4c95_7f2d, 0x1405_7b7e_f767_814f);

/// The number of the flow after a state of the generator, among `mask + 1`.
#[must_use]
#[inline(always)]
pub const fn number(state: u64, mask: u32) -> u32 {
    state as u32 & mask
}

/// Where the wrapper's words begin in a frame: they then lie as a program reads headers, none of whose
/// words is in two of them. What was just written can be read at once only if it was written as a whole.
pub const WORDS_AT: usize = 6;
/// Words of a frame.
pub const WORDS: usize = 16;

/// The frames that the wrapper makes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames {
    /// State of the generator.
    pub state: u64,
    /// Flows less one; their number is a power of two.
    pub mask: u32,
    /// Port at which they come in.
    pub port: u32,
    /// Length of a frame.
    pub len: u32,
    /// See [`shape`].
    pub shape: u32,
    /// See [`resize`].
    pub resize: u32,
    /// Zone of the port, for the floors.
    pub zone: u32,
    /// Sum of the IPv4 header's words without what differs.
    pub ip_sum: u32,
    /// Likewise TCP's, pseudo header included.
    pub l4_sum: u32,
    /// The first bytes of a frame.
    pub head: u64,
    /// Those from [`WORDS_AT`] on, zero where frames differ.
    pub words: [u64; WORDS],
}

/// Where flows differ, as offsets: source port and low half of the source address; checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Words that are restored: as far as programs change anything.
    pub words: usize,
    /// Source port.
    pub port: usize,
    /// Low half of the source address.
    pub addr: usize,
    /// Checksum of the IPv4 header; 0: none.
    pub ip_check: usize,
    /// TCP's.
    pub l4_check: usize,
}

impl Shape {
    /// TCP in an IP packet behind so many bytes.
    #[must_use]
    pub const fn new(behind: usize, v6: bool, words: usize) -> Self {
        let ip = behind + 14;
        if v6 {
            Self { words, port: ip + 40, addr: ip + 22, ip_check: 0, l4_check: ip + 56 }
        } else {
            Self { words, port: ip + 20, addr: ip + 14, ip_check: ip + 10, l4_check: ip + 36 }
        }
    }
}

/// Shapes of frames.
pub mod shape {
    use super::Shape;

    /// IPv4, IPv6, and each within VXLAN over IPv4.
    pub const ALL: [Shape; 4] = [
        Shape::new(0, false, 8),
        Shape::new(0, true, 9),
        Shape::new(50, false, 16),
        Shape::new(50, true, 16),
    ];
}

/// How a frame is brought back to its length.
pub mod resize {
    /// It is never another.
    pub const NONE: u32 = 0;
    /// The measured program makes it longer.
    pub const SHRINK: u32 = 1;
    /// The measured program makes it shorter.
    pub const GROW: u32 = 2;
}

/// What a floor finds under a flow's key: 64 bytes, like a flow's record.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Value {
    /// New source and destination.
    pub addrs: [Addr; 2],
    /// New ports.
    pub ports: [u16; 2],
    /// Nothing.
    pub reserved: u32,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Nothing.
    pub more: u64,
}

/// Key of an IPv4 flow in a hash table of the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyV4 {
    /// Source and destination.
    pub addrs: [u32; 2],
    /// See [`crate::flow::rest::key`].
    pub rest: u64,
}

/// Key of an IPv6 flow in a hash table of the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyV6 {
    /// Source and destination.
    pub addrs: [Addr; 2],
    /// See [`crate::flow::rest::key`].
    pub rest: u64,
}

plain! { Frames = 176, Value = 64, KeyV4 = 16, KeyV6 = 40 }
