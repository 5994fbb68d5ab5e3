//! What a set of pinned tables says about itself.

use crate::plain;

/// The first words never change their meaning, whatever the version is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`MAGIC`]; anything else: not ours, or made by halves.
    pub magic: u64,
    /// [`crate::VERSION`] of whoever made the tables.
    pub version: u64,
    /// SHA-256 of the programs that are installed.
    pub digest: [u8; 32],
    /// Seed of the flow tables' hash.
    pub seed: u64,
    /// Buckets of the IPv4 flow table.
    pub buckets_v4: u32,
    /// Buckets of the IPv6 flow table.
    pub buckets_v6: u32,
    /// Set while an installation is under way: what stands in the tables may be half of it.
    pub installing: u64,
    /// Nothing yet.
    pub reserved: [u64; 3],
}

/// Marks tables of ours.
pub const MAGIC: u64 = u64::from_le_bytes(*b"loxiebpf");

plain! { Meta = 96 }
