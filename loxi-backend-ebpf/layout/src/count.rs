//! Counters, one line per port and processor, and what the programs tell user space.

use crate::plain;

/// What a processor has counted at a port.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortCount {
    /// Frames received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Received frames that left by a port.
    pub forwarded: u64,
    /// Frames that were handed to the slow path; they are counted there.
    pub handed_on: u64,
    /// Nothing yet.
    pub reserved: [u64; 2],
}

/// What a processor has counted at a port, by fate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fates {
    /// Frames, by the number of their fate.
    pub by_fate: [u64; crate::code::FATES as usize],
}

/// A drop, told at most once per port, reason and second.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// When, ns.
    pub at: u64,
    /// Port.
    pub port: u16,
    /// Reason.
    pub reason: u8,
    /// Family; 0: no IP.
    pub family: u8,
    /// Protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Source port, network order.
    pub sport: u16,
    /// Source and destination.
    pub addrs: [crate::Addr; 2],
    /// Source and destination MAC.
    pub macs: [[u8; 6]; 2],
    /// Destination port, network order.
    pub dport: u16,
    /// Zero.
    pub padding: u16,
}

/// The outermost 802.1Q tag of a frame that is handed to the slow path: the ingress port as VLAN,
/// the reason above it. A tag is what every device carries, segments and checksums of the frame with it.
#[must_use]
#[inline(always)]
pub const fn punt_tag(port: u16, reason: u8) -> u16 {
    port & 0x0fff | (reason.wrapping_sub(PUNT_REASONS) as u16) << 12
}

/// Port and reason of such a tag. The slow path sends with the same tag: there the port is the
/// one by which the frame leaves, the reason is of no use.
#[must_use]
#[inline(always)]
pub const fn of_punt_tag(tag: u16) -> (u16, u8) {
    (tag & 0x0fff, (tag >> 12) as u8 + PUNT_REASONS)
}

/// The lowest of the core's numbers of unfinished packets; 16 of them fit a tag.
pub const PUNT_REASONS: u8 = 20;

const _: () = assert!(crate::limits::PORTS <= 0x1000);

/// Things that are learned, in tables of a fixed size: how many there are is counted.
pub mod kept {
    /// Stations of all bridges.
    pub const STATIONS: u32 = 0;
    /// Neighbours.
    pub const NEIGHBORS: u32 = 1;
    /// Fragmented packets.
    pub const FRAGMENTS: u32 = 2;
    /// How many kinds there are.
    pub const COUNT: u32 = 8;
}

/// Upper half of the mark of a frame that crosses between the namespaces: its
/// fate is sealed, and the lower half is the port by which it leaves.
pub const CROSSING: u32 = 0x10c1_0000;

/// In place of a port's number: the stub at the crossing's end in the root namespace.
pub const CROSSING_STUB: u32 = 0;

/// In place of a port's number: the stub at the slow path's device, by which frames come that it sends.
pub const SLOW_PATH: u32 = 0xffff;

plain! { PortCount = 64, Fates = 2048, Told = 64 }
