//! The flow table from user space: the same memory, the same protocol as the programs'.
//!
//! # Contract
//! - Programs on other processors work on the tables at the same time. Places are claimed and freed
//!   under the locks of their buckets, as [`loxi_ebpf_layout::flow`] tells; what is read is checked
//!   again, so that it is of one time.
//! - Nothing here waits for ever: a lock or an entry that never comes free is a refusal, or as if
//!   there were no entry. What a killed process has left is put right by
//!   [`recover`](crate::state::recover()).
//! - No lock is held across a system call, and never more than the two of one key.
//! - An entry from here has epoch 0 and is not marked as fast: the programs decide about its next packet.
//!
//! The parts: [`shape`] says where the words are, [`key`] turns tuples into keys, [`bucket`] knows tags
//! and locks, [`table`] finds, claims and frees places, [`record`] reads a flow as a whole, [`times`]
//! derives when it ends, [`codec`] turns records into the core's flows and back, [`accounts`] counts.

pub(super) mod accounts;
mod bucket;
pub(super) mod codec;
pub(super) mod key;
pub(super) mod record;
mod shape;
pub(super) mod table;
pub(super) mod times;

pub(super) use bucket::Place;
pub(super) use key::Key;
pub(super) use record::Record;
pub(super) use shape::FAMILIES;
pub(super) use table::{Flows, Refused, Room, Seat};
