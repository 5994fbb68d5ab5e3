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

/// What stands before a frame that is handed to the slow path: in the place
/// of an Ethernet header, so that a TAP carries it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PuntHeader {
    /// Marks it: [`PUNT_MAGIC`], a locally administered unicast address's beginning.
    pub magic: [u8; 4],
    /// Ingress port.
    pub port: u16,
    /// The core's number of the reason.
    pub reason: u16,
    /// 802.1Q tag that was taken out, or 0xffff.
    pub tag: u16,
    /// Zero.
    pub reserved: u16,
    /// [`PUNT_ETHERTYPE`].
    pub ethertype: u16,
}

/// Beginning of a [`PuntHeader`].
pub const PUNT_MAGIC: [u8; 4] = [0x02, b'l', b'x', b'p'];
/// Local experimental ethertype 1 (IEEE 802 numbers), as it is in a frame.
pub const PUNT_ETHERTYPE: u16 = 0x88b5u16.to_be();

/// Upper half of the mark of a frame that crosses between the namespaces: its
/// fate is sealed, and the lower half is the port by which it leaves.
pub const CROSSING: u32 = 0x10c1_0000;

plain! { PortCount = 64, Told = 64, PuntHeader = 14 }
