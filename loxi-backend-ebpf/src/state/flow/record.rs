//! A flow as its two entries and its cold record tell it, all of one time.

use super::bucket::Place;
use super::key::Key;
use super::table::{Flows, Half};
use super::times::{Near, Timeouts, end};
use loxi_core::packet::{FlowDirection, Timestamp};
use loxi_ebpf_layout::flow::{Cold, REPLY, Seen, rest};
use std::mem::offset_of;

/// A flow in the tables' terms.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Record {
    /// Family.
    pub(in crate::state) family: u8,
    /// Place of the original direction.
    pub(in crate::state) original: Place,
    /// Place of the reply direction; the same where both have one key.
    pub(in crate::state) partner: Place,
    /// Second word of the original's key, with state and flags.
    pub(in crate::state) word: u64,
    /// The original's key.
    pub(in crate::state) key: Key,
    /// The tuple with which the original's packets leave.
    pub(in crate::state) new: Key,
    /// Times and counters of both directions.
    pub(in crate::state) seen: [Seen; 2],
    /// What both share.
    pub(in crate::state) cold: Cold,
}

/// Why there is no whole flow at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) enum Missing {
    /// There is no entry.
    Gone,
    /// Somebody writes it.
    Busy,
    /// The entry's other direction is not there: somebody was stopped half-way, or is at it.
    Broken,
}

/// A flow, and the direction of the entry by which it was found.
pub(in crate::state) type Found = (FlowDirection, Record);

/// Looks at a flow that changes under the reader, before it is given up.
const LOOKS: u32 = 64;

impl Record {
    /// The key of the reply direction.
    pub(in crate::state) fn reply(&self) -> Key {
        self.new.reversed()
    }

    /// Whether one entry is both directions.
    pub(in crate::state) fn is_single(&self) -> bool {
        self.original == self.partner
    }

    /// State.
    pub(in crate::state) fn state(&self) -> u8 {
        rest::state(self.word)
    }

    /// Zone.
    pub(in crate::state) fn zone(&self) -> u8 {
        rest::zone(self.word)
    }

    /// Protocol.
    pub(in crate::state) fn protocol(&self) -> u8 {
        rest::protocol(self.word)
    }

    /// Whole tick of the last packet in either direction.
    pub(in crate::state) fn last(&self, near: Near) -> u64 {
        let [original, reply] = self.seen.map(|seen| near.whole(seen.seen));
        if self.is_single() { original } else { original.max(reply) }
    }

    /// When it ends by its zone's idle times.
    pub(in crate::state) fn expires(&self, timeouts: &Timeouts, near: Near) -> Timestamp {
        end(self.last(near), timeouts.ns(self.state(), self.protocol()))
    }
}

impl Flows<'_> {
    /// The flow to which the entry at a place belongs.
    pub(in crate::state) fn record(&self, place: Place) -> Result<Found, Missing> {
        let mut missing = Missing::Busy;
        for _ in 0..LOOKS {
            let word = self.rest(place).load();
            let found = if word == 0 {
                Err(Missing::Gone)
            } else if rest::flags(word) & REPLY == 0 {
                self.of_original(place).map(|record| (FlowDirection::Original, record))
            } else {
                self.of_reply(place).map(|record| (FlowDirection::Reply, record))
            };
            match found {
                Ok(found) => return Ok(found),
                // What is still as it was has been looked at rightly.
                Err(reason) if self.rest(place).load() == word => return Err(reason),
                Err(reason) => missing = reason,
            }
        }
        Err(missing)
    }

    /// An entry's copy; why there is none.
    fn settled_copy(&self, place: Place) -> Result<Half, Missing> {
        self.copy(place).ok_or_else(
            || {
                if self.rest(place).load() == 0 { Missing::Gone } else { Missing::Busy }
            },
        )
    }

    /// The flow of an original entry.
    ///
    /// A flow may end and another of the same tuple take its place and its word, while this thread
    /// is put aside: the time at which a flow was made tells them apart. It is written after the entry
    /// and before that is published, so it is read before everything else and after the word.
    fn of_original(&self, place: Place) -> Result<Record, Missing> {
        let created = self.cold_word(place, offset_of!(Cold, created)).load();
        let half = self.settled_copy(place)?;
        if rest::flags(half.word) & REPLY != 0 {
            return Err(Missing::Broken);
        }
        let cold = self.cold(place);
        let partner = self.place(cold.partner).ok_or(Missing::Broken)?;
        let mut back = Seen::default();
        if partner != place {
            back = Seen {
                epoch: 0,
                seen: self.tick(partner),
                packets: self.seen_word(partner, 1).load(),
                bytes: self.seen_word(partner, 2).load(),
            };
            let is_reply = rest::flags(self.rest(partner).load()) & REPLY != 0;
            if !is_reply || !self.is(partner, &half.new.reversed()) {
                return Err(Missing::Broken);
            }
        }
        let same = self.rest(place).load() == half.word
            && self.cold_word(place, offset_of!(Cold, created)).load() == created;
        if !same {
            return Err(Missing::Busy);
        }
        let Half { word, key, new, seen } = half;
        let family = self.family();
        Ok(Record { family, original: place, partner, word, key, new, seen: [seen, back], cold })
    }

    /// The flow of a reply's entry.
    fn of_reply(&self, place: Place) -> Result<Record, Missing> {
        let half = self.settled_copy(place)?;
        let original = self.place(self.cold(place).partner).ok_or(Missing::Broken)?;
        let record = self.of_original(original).map_err(|reason| match reason {
            Missing::Busy => Missing::Busy,
            Missing::Gone | Missing::Broken => Missing::Broken,
        })?;
        let linked = record.partner == place && record.reply() == half.key;
        if linked { Ok(record) } else { Err(Missing::Broken) }
    }
}
