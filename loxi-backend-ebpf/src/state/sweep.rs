//! Taking out what has expired, a part at a time.
//!
//! # Contract
//! - Nothing that lives by the programs' reckoning is taken out: who looks at a flow here sees its
//!   end at the same time or up to a tick later, and looks again under the lock.
//! - [`Sweeper::step`] costs what it is given to do: so many buckets, and one of the kernel's tables.
//! - An entry that was busy with one and the same word at two visits, more than a second apart, belongs
//!   to nobody: no program takes that long. It is freed.

use super::flow::record::Missing;
use super::flow::times::{Near, Timeouts, end};
use super::flow::{FAMILIES, Place, accounts};
use super::store::{Store, noted};
use loxi_core::packet::{FlowDirection, Timestamp};
use loxi_ebpf_layout::flow::{BUSY, rest};
use std::collections::BTreeMap;
use std::ops::Range;

/// What was taken out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows.
    pub flows: u64,
    /// Entries without their other direction, and entries that nobody finished writing.
    pub broken: u64,
    /// Stations, neighbours, clients' endpoints, path MTUs, fragments, counts of sources.
    pub others: u64,
}

/// What became of the flows of some buckets.
pub(super) struct SweptFlows {
    pub(super) ended: u64,
    broken: u64,
    /// When the first of those left ends, at the earliest.
    pub(super) first: Timestamp,
    /// Entries that somebody writes, with their words.
    busy: Vec<(Place, u64)>,
}

/// Buckets that are looked at before what was found is acted upon.
const PORTION: u32 = 1024;

/// Takes out the expired flows of some buckets. `timeouts` are those of every zone.
pub(super) fn sweep_flows(
    store: &mut Store<'_>,
    family: u8,
    buckets: Range<u32>,
    timeouts: &[Timeouts],
    now: Timestamp,
) -> SweptFlows {
    let mut swept = SweptFlows { ended: 0, broken: 0, first: Timestamp(u64::MAX), busy: Vec::new() };
    let near = Near::now(now);
    let mut sources = accounts::Sources::default();
    let mut idle = Vec::new();
    let mut start = buckets.start;
    while start < buckets.end {
        let portion = start..buckets.end.min(start.saturating_add(PORTION));
        start = portion.end;
        let table = store.table(family);
        table.scan(portion, |place, word| {
            if rest::flags(word) & BUSY != 0 {
                swept.busy.push((place, word));
                return;
            }
            let most = timeouts[usize::from(rest::zone(word))].ns(rest::state(word), rest::protocol(word));
            let own = end(near.whole(table.tick(place)), most);
            if own > now {
                swept.first = swept.first.min(own);
            } else {
                idle.push(place);
            }
        });
        for place in idle.drain(..) {
            match table.record(place) {
                Ok((FlowDirection::Original, record)) => {
                    let ends = record.expires(&timeouts[usize::from(record.zone())], near);
                    if ends <= now && store.end_expired(&record, now, &mut sources) {
                        swept.ended += 1;
                    } else {
                        swept.first = swept.first.min(ends.max(now));
                    }
                }
                // A flow is looked at once, at its original.
                Ok((FlowDirection::Reply, _)) | Err(Missing::Gone | Missing::Busy) => {}
                Err(Missing::Broken) => {
                    swept.broken += u64::from(store.end_broken(family, place, &mut sources));
                }
            }
        }
    }
    store.settle(sources);
    swept
}

/// An entry that somebody writes.
#[derive(Debug, Clone, Copy)]
struct Unfinished {
    word: u64,
    since: Timestamp,
}

/// Where the sweep is.
#[derive(Debug, Default)]
pub struct Sweeper {
    family: usize,
    bucket: u32,
    table: usize,
    unfinished: BTreeMap<(u8, Place), Unfinished>,
}

/// The kernel's tables, one of which is swept at each step.
const TABLES: usize = 6;

impl Sweeper {
    /// A sweep from the start.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sweeps at most so many buckets of the flow tables, going round, and one of the other tables.
    pub fn step(&mut self, store: &mut Store<'_>, now: Timestamp, buckets: u32) -> Swept {
        let mut swept = Swept::default();
        let timeouts = Timeouts::all(&*store.kernel);
        let sizes = FAMILIES.map(|family| store.table(family).buckets());
        let mut left = buckets.min(sizes[0].saturating_add(sizes[1]));
        while left > 0 {
            let family = FAMILIES[self.family];
            let portion = self.bucket..sizes[self.family].min(self.bucket.saturating_add(left));
            left -= portion.end - portion.start;
            let some = sweep_flows(store, family, portion.clone(), &timeouts, now);
            swept.flows += some.ended;
            swept.broken += some.broken + self.finish(store, family, &portion, &some.busy, now);
            self.bucket = portion.end;
            if self.bucket >= sizes[self.family] {
                (self.family, self.bucket) = ((self.family + 1) % FAMILIES.len(), 0);
            }
        }
        swept.others = sweep_table(store, self.table, now);
        self.table = (self.table + 1) % TABLES;
        swept
    }

    /// Frees entries that were left unfinished.
    fn finish(
        &mut self,
        store: &mut Store<'_>,
        family: u8,
        buckets: &Range<u32>,
        busy: &[(Place, u64)],
        now: Timestamp,
    ) -> u64 {
        let mut freed = 0;
        let table = store.table(family);
        let first = (family, Place { bucket: buckets.start, place: 0 });
        let last = (family, Place { bucket: buckets.end, place: 0 });
        let known: Vec<_> = self.unfinished.range(first..last).map(|(at, known)| (*at, *known)).collect();
        for (at, _) in &known {
            self.unfinished.remove(at);
        }
        for (place, word) in busy {
            let same = |(at, known): &&((u8, Place), Unfinished)| at.1 == *place && known.word == *word;
            let since = known.iter().find(same).map_or(now, |(_, known)| known.since);
            if now > since.plus_s(1) {
                freed += u64::from(store.end_unfinished(&table, *place, *word));
            } else {
                self.unfinished.insert((family, *place), Unfinished { word: *word, since });
            }
        }
        freed
    }
}

fn sweep_table(store: &mut Store<'_>, table: usize, now: Timestamp) -> u64 {
    match table {
        0 => noted(store.sweep_stations(now)),
        1 => noted(store.sweep_neighbors(now)),
        2 => noted(store.sweep_affinity(now)),
        3 => noted(store.sweep_fragments(now)),
        4 => noted(store.sweep_sources(now)),
        _ => store.sweep_path_mtus(now),
    }
}

/// Takes out everything that has expired, at once.
pub fn sweep(store: &mut Store<'_>, now: Timestamp) -> Swept {
    let mut swept = Sweeper::new().step(store, now, u32::MAX);
    swept.others += (1..TABLES).map(|table| sweep_table(store, table, now)).sum::<u64>();
    swept
}
