//! What a killed daemon has left, and counts that no longer agree.
//!
//! # Contract
//! - [`recover`] is for the start, before anything else of this module is used. Programs run
//!   meanwhile: what they are at is left alone, since it is no longer as it was after a grace period.
//! - A flow whose record was being written when the daemon was killed is ended.
//! - [`recount`] changes no count by less than what came and went while it looked, so it makes
//!   none worse. It is also for when a zone begins to limit the flows of one source: until then
//!   they were not counted.

use super::flow::accounts::{CREATED, FLOWS, HALF_OPEN, backend_word, counts_sources, is_raced, zone_word};
use super::flow::{FAMILIES, Place};
use super::store::Store;
use super::tables::{is_fixed, kept_word, station_word};
use crate::sys::{
    BACKEND_FLOWS, FRAGMENTS, Kernel, KernelError, NEIGHBORS, Put, SOURCES, STATION_COUNT, STATIONS, Table,
    Word, bytes,
};
use loxi_ebpf_layout::count::kept;
use loxi_ebpf_layout::flow::{BUSY, REPLY, rest, state};
use loxi_ebpf_layout::l3::Source;
use std::collections::BTreeMap;

/// What was put right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Locks that were held.
    pub locks: u64,
    /// Entries that were being written.
    pub unfinished: u64,
    /// Entries without their other direction.
    pub broken: u64,
    /// The counts.
    pub counts: Recount,
}

/// What a recount found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recount {
    /// Flows.
    pub flows: u64,
    /// Counts that were wrong.
    pub corrected: u64,
}

/// Puts right what a killed daemon has left in the tables.
///
/// # Errors
/// [`KernelError`]; what was done until then stays done, and it may be called again.
pub fn recover(store: &mut Store<'_>) -> Result<Recovered, KernelError> {
    let mut recovered = Recovered::default();
    for family in FAMILIES {
        let table = store.table(family);
        recovered.locks += (0..table.buckets()).map(|bucket| u64::from(table.repair(bucket))).sum::<u64>();
    }
    // An entry that is freed leaves its other direction alone, which the second round finds.
    for _ in 0..2 {
        let suspects = FAMILIES.map(|family| suspects(store, family));
        if suspects.iter().all(Vec::is_empty) {
            break;
        }
        store.kernel.grace()?;
        let mut sources = super::flow::accounts::Sources::default();
        for (family, suspects) in FAMILIES.into_iter().zip(suspects) {
            for (place, word) in suspects {
                let table = store.table(family);
                if rest::flags(word) & BUSY != 0 {
                    recovered.unfinished += u64::from(table.clear(place, word));
                } else {
                    recovered.broken += u64::from(store.end_broken(family, place, &mut sources));
                }
            }
        }
        store.settle(sources);
    }
    recovered.counts = recount(store)?;
    Ok(recovered)
}

/// Entries that somebody writes, or whose other direction isn't there.
fn suspects(store: &Store<'_>, family: u8) -> Vec<(Place, u64)> {
    let table = store.table(family);
    let mut found = Vec::new();
    table.scan(0..table.buckets(), |place, word| {
        if rest::flags(word) & BUSY != 0 || !table.is_linked(place) {
            found.push((place, word));
        }
    });
    found
}

/// Counts of flows as they should be.
struct Counted {
    zones: Vec<[u64; 2]>,
    backends: BTreeMap<u32, u64>,
    sources: BTreeMap<Source, u64>,
    flows: u64,
}

fn count(store: &Store<'_>) -> Counted {
    let limited: Vec<bool> = (0..=u8::MAX).map(|zone| counts_sources(&*store.kernel, zone)).collect();
    let mut counted = Counted {
        zones: vec![[0; 2]; limited.len()],
        backends: BTreeMap::new(),
        sources: BTreeMap::new(),
        flows: 0,
    };
    for family in FAMILIES {
        let table = store.table(family);
        table.scan(0..table.buckets(), |place, word| {
            if rest::flags(word) & REPLY != 0 {
                return;
            }
            let zone = usize::from(rest::zone(word));
            counted.flows += 1;
            counted.zones[zone][0] += 1;
            counted.zones[zone][1] += u64::from(state::is_half_open(rest::state(word)));
            let backend = table.cold(place).backend;
            if backend != 0 {
                *counted.backends.entry(backend).or_default() += 1;
            }
            if limited[zone] {
                let addr = table.key(place, word).src;
                let source = Source { zone: rest::zone(word).into(), family: family.into(), addr };
                *counted.sources.entry(source).or_default() += 1;
            }
        });
    }
    counted
}

/// Flows, half-open ones and those made since the start, of every zone.
fn told(kernel: &dyn Kernel) -> Vec<[u64; 3]> {
    let word = |zone, offset| zone_word(kernel, zone, offset).load();
    (0..=u8::MAX).map(|zone| [FLOWS, HALF_OPEN, CREATED].map(|offset| word(zone, offset))).collect()
}

/// Flows of a zone that came or went between two looks.
fn moved(before: &[u64; 3], after: &[u64; 3]) -> u64 {
    let made = after[2].wrapping_sub(before[2]);
    let more = after[0].wrapping_sub(before[0]);
    // Those that went: what was made, and did not make it more.
    let gone = made.wrapping_sub(more);
    if gone.cast_signed() < 0 { made } else { made.saturating_add(gone) }
}

/// Makes a word what it should be, unless it may be right; whether it was wrong.
fn correct(word: Word<'_>, wanted: u64, slack: u64) -> bool {
    let missing = wanted.wrapping_sub(word.load());
    let wrong = missing.cast_signed().unsigned_abs() > slack;
    if wrong {
        let _ = word.fetch_add(missing);
    }
    wrong
}

/// Counts flows, sources and learned things anew.
///
/// # Errors
/// [`KernelError`]; counts that were put right until then stay so.
pub fn recount(store: &mut Store<'_>) -> Result<Recount, KernelError> {
    let before = told(&*store.kernel);
    let counted = count(store);
    let after = told(&*store.kernel);
    let slack: Vec<u64> = before.iter().zip(&after).map(|(before, after)| moved(before, after)).collect();
    let any = slack.iter().sum();
    let kernel = &*store.kernel;
    let mut corrected = 0;
    for ((zone, wanted), slack) in (0..=u8::MAX).zip(&counted.zones).zip(&slack) {
        corrected += u64::from(correct(zone_word(kernel, zone, FLOWS), wanted[0], *slack));
        corrected += u64::from(correct(zone_word(kernel, zone, HALF_OPEN), wanted[1], *slack));
    }
    for backend in 1..kernel.length(BACKEND_FLOWS) {
        let wanted = counted.backends.get(&backend).copied().unwrap_or(0);
        let wrong = backend_word(kernel, backend).is_some_and(|word| correct(word, wanted, any));
        corrected += u64::from(wrong);
    }
    corrected += recount_sources(store.kernel, counted.sources, any)?;
    corrected += recount_kept(&*store.kernel)?;
    Ok(Recount { flows: counted.flows, corrected })
}

fn recount_sources(
    kernel: &mut dyn Kernel,
    mut wanted: BTreeMap<Source, u64>,
    slack: u64,
) -> Result<u64, KernelError> {
    let mut corrected = 0;
    for (source, told) in kernel.all(SOURCES)? {
        let wanted = wanted.remove(&source).unwrap_or(0);
        if wanted.wrapping_sub(told).cast_signed().unsigned_abs() > slack {
            kernel.set(SOURCES, &source, &wanted)?;
            corrected += 1;
        }
    }
    for (source, wanted) in wanted {
        match kernel.put(Table::Sources, bytes(&source), bytes(&wanted), Put::New) {
            // A program counts it by now.
            Err(error) if is_raced(&error) => {}
            other => {
                other?;
                corrected += 1;
            }
        }
    }
    Ok(corrected)
}

/// Learned stations, neighbours and records of fragments.
fn recount_kept(kernel: &dyn Kernel) -> Result<u64, KernelError> {
    let told = |kind| kept_word(kernel, kind).load();
    let mut corrected = 0;
    let before = told(kept::STATIONS);
    let mut bridges = vec![0u64; kernel.length(STATION_COUNT) as usize];
    let stations = kernel.all(STATIONS)?.into_iter().filter(|(_, at)| at.fixed == 0);
    let mut all = 0;
    for (station, _) in stations {
        all += 1;
        if let Some(count) = bridges.get_mut(usize::from(station.link.id)) {
            *count += 1;
        }
    }
    let slack = told(kept::STATIONS).abs_diff(before);
    corrected += u64::from(correct(kept_word(kernel, kept::STATIONS), all, slack));
    for (bridge, wanted) in (0..=u16::MAX).zip(bridges) {
        corrected += u64::from(correct(station_word(kernel, bridge), wanted, slack));
    }
    let before = told(kept::NEIGHBORS);
    let neighbors = kernel.all(NEIGHBORS)?.iter().filter(|(_, known)| !is_fixed(known)).count() as u64;
    let slack = told(kept::NEIGHBORS).abs_diff(before);
    corrected += u64::from(correct(kept_word(kernel, kept::NEIGHBORS), neighbors, slack));
    let before = told(kept::FRAGMENTS);
    let fragments = kernel.all(FRAGMENTS)?.len() as u64;
    let slack = told(kept::FRAGMENTS).abs_diff(before);
    corrected += u64::from(correct(kept_word(kernel, kept::FRAGMENTS), fragments, slack));
    Ok(corrected)
}
