//! Where the words of a table are, by family.

use crate::sys::Table;
use loxi_ebpf_layout::family;
use loxi_ebpf_layout::flow::{
    BUCKET, BucketV4, BucketV6, EntryV4, EntryV6, HEAD_V4, HEAD_V6, PLACES_V4, PLACES_V6, Seen,
};
use std::mem::offset_of;

/// What differs between the families' tables.
#[derive(Debug)]
pub(super) struct Shape {
    /// The family.
    pub(super) family: u8,
    /// The table of entries.
    pub(super) flows: Table,
    /// The table of cold records.
    pub(super) cold: Table,
    /// Entries of a bucket.
    pub(super) places: u32,
    /// Cold records of a bucket.
    pub(super) colds: usize,
    /// Bytes of a bucket before its first entry.
    pub(super) head: usize,
    /// Bytes of an entry.
    pub(super) entry: usize,
    /// Words of an entry's addresses, which come first.
    pub(super) addrs: usize,
    /// Where the second word of the key is in an entry.
    pub(super) rest: usize,
    /// Where generations and counters are in an entry.
    pub(super) seen: usize,
}

static V4: Shape = Shape {
    family: family::V4,
    flows: Table::FlowsV4,
    cold: Table::ColdV4,
    places: PLACES_V4,
    colds: 16,
    head: HEAD_V4,
    entry: size_of::<EntryV4>(),
    addrs: 1,
    rest: offset_of!(EntryV4, rest),
    seen: offset_of!(EntryV4, seen),
};

static V6: Shape = Shape {
    family: family::V6,
    flows: Table::FlowsV6,
    cold: Table::ColdV6,
    places: PLACES_V6,
    colds: 8,
    head: HEAD_V6,
    entry: size_of::<EntryV6>(),
    addrs: 4,
    rest: offset_of!(EntryV6, rest),
    seen: offset_of!(EntryV6, seen),
};

const _: () = assert!(offset_of!(BucketV4, places) == HEAD_V4 && offset_of!(BucketV6, places) == HEAD_V6);
const _: () = assert!(size_of::<BucketV4>() == BUCKET && size_of::<BucketV6>() == BUCKET);
const _: () = assert!(offset_of!(Seen, epoch) == 0 && offset_of!(Seen, seen) == 4);

/// Both families.
pub(in crate::state) const FAMILIES: [u8; 2] = [family::V4, family::V6];

impl Shape {
    /// That of a family; of one that is none, that of IPv4.
    pub(super) fn of(family: u8) -> &'static Self {
        if family == family::V6 { &V6 } else { &V4 }
    }
}
