//! The learned state under the core's traits.

mod flows;
mod insert;
mod update;

use super::flow::record::Missing;
use super::flow::times::{Near, Timeouts};
use super::flow::{Flows, Key, Place, Record, accounts, codec};
use crate::install::Names;
use crate::sys::{Kernel, KernelError};
use loxi_core::packet::{Flow, FlowDirection, FlowId, Timestamp};
use loxi_ebpf_layout::flow::{BUSY, FAST, REPLY, rest};

/// When the tables were last searched for what has expired, so that a full table isn't searched
/// for every packet. It outlives the stores that it is lent to.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    flows: Search,
    stations: Search,
    fragments: Search,
}

/// A search for what has expired.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Search {
    /// When something can be found again; none: nobody has searched.
    next: Option<Timestamp>,
    /// When it was.
    at: Timestamp,
}

impl Search {
    /// Whether a search can find anything. Packets may come with a time of their own, which lies
    /// before that of the last search: then nothing is known.
    fn is_due(&self, now: Timestamp) -> bool {
        now < self.at || self.next.is_none_or(|next| now >= next)
    }

    /// A search that left things of which the first ends at `first`. What has come in since is
    /// looked for after a second.
    pub(super) fn done(now: Timestamp, first: Timestamp) -> Self {
        Self { next: Some(first.min(now.plus_s(1))), at: now }
    }
}

/// The learned state. Made for a packet or a call, at no cost.
pub struct Store<'a> {
    pub(super) kernel: &'a mut dyn Kernel,
    pub(super) names: &'a Names,
    pub(super) seed: u64,
    pace: Option<&'a mut Pace>,
}

impl<'a> Store<'a> {
    /// The state in a kernel's tables, whose flow tables are hashed with `seed`.
    #[must_use]
    pub fn new(kernel: &'a mut dyn Kernel, names: &'a Names, seed: u64) -> Self {
        Self { kernel, names, seed, pace: None }
    }

    /// With the memory of what was searched when.
    #[must_use]
    pub fn paced(self, pace: &'a mut Pace) -> Self {
        Self { pace: Some(pace), ..self }
    }

    /// The flow table of a family.
    pub(super) fn table(&self, family: u8) -> Flows<'_> {
        Flows::of(&*self.kernel, family, self.seed)
    }

    /// A zone's idle times.
    pub(super) fn timeouts(&self, zone: u8) -> Timeouts {
        Timeouts::of(&*self.kernel, zone)
    }

    fn search(&mut self, of: fn(&mut Pace) -> &mut Search) -> Option<&mut Search> {
        self.pace.as_mut().map(|pace| of(pace))
    }

    /// Whether a search can find anything that has expired.
    fn is_due(&mut self, of: fn(&mut Pace) -> &mut Search, now: Timestamp) -> bool {
        self.search(of).is_none_or(|search| search.is_due(now))
    }

    fn searched(&mut self, of: fn(&mut Pace) -> &mut Search, search: Search) {
        if let Some(known) = self.search(of) {
            *known = search;
        }
    }

    /// Whether stations may have expired, by what is known of the last search.
    pub(super) fn stations_due(&mut self, now: Timestamp) -> bool {
        self.is_due(|pace| &mut pace.stations, now)
    }

    /// Notes a search for expired stations.
    pub(super) fn stations_searched(&mut self, search: Search) {
        self.searched(|pace| &mut pace.stations, search);
    }

    /// Whether records of fragments may have expired.
    pub(super) fn fragments_due(&mut self, now: Timestamp) -> bool {
        self.is_due(|pace| &mut pace.fragments, now)
    }

    /// Notes a search for expired records of fragments.
    pub(super) fn fragments_searched(&mut self, search: Search) {
        self.searched(|pace| &mut pace.fragments, search);
    }

    /// The record of a flow by its identity, expired or not.
    fn record(&self, id: &FlowId) -> Option<Record> {
        let (family, key) = Key::of(codec::number(&self.names.zones, &id.zone), &id.tuple)?;
        let table = self.table(family);
        match table.record(table.find(&key)?) {
            Ok((FlowDirection::Original, record)) if record.key == key => Some(record),
            _ => None,
        }
    }

    /// A record as the core's flow.
    pub(super) fn flow(&self, record: &Record) -> Option<Flow> {
        codec::flow(self.names, &self.timeouts(record.zone()), record)
    }

    /// Whether a flow has expired.
    pub(super) fn is_over(&self, record: &Record, now: Timestamp) -> bool {
        record.expires(&self.timeouts(record.zone()), Near::now(now)) <= now
    }

    /// Ends a flow, if `still` says so when nobody else can take it out. Both directions go, the
    /// original first: whoever takes that one out does the accounts. Whether this call did it.
    pub(super) fn end(
        &self,
        record: &Record,
        sources: &mut accounts::Sources,
        still: impl FnOnce(&Flows<'_>) -> bool,
    ) -> bool {
        let table = self.table(record.family);
        let Some((word, cold)) = table.take_out(record.original, &record.key, still) else { return false };
        if let Some(partner) = table.place(cold.partner).filter(|partner| *partner != record.original) {
            table.take_out(partner, &record.reply(), |_| true);
        }
        self.close(record.family, &record.key, word, cold.backend, sources);
        true
    }

    /// Ends a flow, if it has expired.
    pub(super) fn end_expired(
        &self,
        record: &Record,
        now: Timestamp,
        sources: &mut accounts::Sources,
    ) -> bool {
        let timeouts = self.timeouts(record.zone());
        self.end(record, sources, |table| {
            // A packet may have come in the meantime.
            let fresh = table.record(record.original);
            fresh.is_ok_and(|(_, fresh)| fresh.expires(&timeouts, Near::now(now)) <= now)
        })
    }

    /// Frees a place whose entry lacks its other direction, if that is still so when nobody else can
    /// take it out. Whether this call did it.
    pub(super) fn end_broken(&self, family: u8, place: Place, sources: &mut accounts::Sources) -> bool {
        let table = self.table(family);
        let key = table.key(place, table.rest(place).load());
        let still = |table: &Flows<'_>| matches!(table.record(place), Err(Missing::Broken));
        let Some((word, cold)) = table.take_out(place, &key, still) else { return false };
        // A reply without its original has been taken off the accounts with that.
        if rest::flags(word) & REPLY == 0 {
            self.close(family, &key, word, cold.backend, sources);
        }
        true
    }

    /// Ends the writing of an entry that whoever began it will not finish: a whole flow's is opened
    /// again, without the decision that was being written; any other is freed. Whether this call did it.
    pub(super) fn end_unfinished(&self, table: &Flows<'_>, place: Place, word: u64) -> bool {
        if !table.is_linked(place) {
            // Whoever could not finish a flow has taken it off the accounts.
            return table.clear(place, word);
        }
        let open = rest::revised(word, rest::state(word), rest::flags(word) & !(BUSY | FAST));
        table.rest(place).replace(word, open)
    }

    fn close(&self, family: u8, key: &Key, word: u64, backend: u32, sources: &mut accounts::Sources) {
        let (zone, state) = (rest::zone(word), rest::state(word));
        let account = accounts::Account { zone, family, source: key.src, backend, state };
        accounts::end(&*self.kernel, &account, sources);
    }

    /// Makes the changes to sources' counts. The kernel's refusal is told and no more: they are
    /// put right by the next recount.
    pub(super) fn settle(&mut self, sources: accounts::Sources) {
        noted(sources.apply(self.kernel));
    }
}

/// Tells of an error where the caller has no use for it.
pub(super) fn noted<T: Default>(result: Result<T, KernelError>) -> T {
    result.unwrap_or_else(|error| {
        tracing::debug!(%error, "learned state");
        T::default()
    })
}
