//! Policies as bitmaps.
//!
//! The rules of a subject and direction are a *group*: bit n of its bitmaps is
//! its rule n, tier by tier, in order of priority. One look-up says which rules
//! mean the peer, one which rules mean the protocol and port; the lowest bit
//! that both have decides. Peers come in classes: addresses that the same peer
//! definitions of all policies mean.

use crate::{Addr, limits::POLICY_WORDS, plain};

/// One bit per rule of a group.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Lowest bit of the first word: rule 0.
    pub words: [u64; POLICY_WORDS],
}

/// Key of an address's class.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// Bits that count: 32 for the family, then those of the prefix.
    pub bits: u32,
    /// Family.
    pub family: u32,
    /// The prefix.
    pub addr: Addr,
}

/// Bits of a [`PeerKey`] before its address.
pub const PEER_FIXED_BITS: u32 = 32;

/// The class of an address that no peer definition names.
pub const NO_CLASS: u32 = 0;

/// Key of the rules of a group that mean a class of peers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupClass {
    /// Group.
    pub group: u32,
    /// Class.
    pub class: u32,
}

/// Key of the rules of a group that mean a protocol and port.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupPort {
    /// Bits that count: 32 for the group, 8 for the protocol, 16 for the port.
    pub bits: u32,
    /// Group.
    pub group: u32,
    /// Protocol.
    pub protocol: u8,
    /// Port: high byte, low byte.
    pub port: [u8; 2],
    /// Zero.
    pub reserved: u8,
}

/// Bits of a [`GroupPort`] for the group alone.
pub const GROUP_BITS: u32 = 32;
/// Bits of a [`GroupPort`] for group and protocol.
pub const PROTOCOL_BITS: u32 = 40;

/// A group: what its rules say.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Group {
    /// Rules that allow.
    pub allow: Rules,
    /// Rules that deny; what is neither passes to the next tier.
    pub deny: Rules,
    /// Words before this one are the tier `admin`.
    pub admin: u32,
    /// Words from there to this one are `network_policy`; the rest is `baseline`.
    pub network_policy: u32,
    /// 1: what no rule of `network_policy` allows is refused.
    pub isolated: u32,
    /// Words in use.
    pub words: u32,
}

plain! { Rules = 64, PeerKey = 24, GroupClass = 8, GroupPort = 12, Group = 144 }
