//! The connections of one state entered into another, under the same names.

use super::flow::codec::Draft;
use super::flow::{FAMILIES, Place};
use super::store::Store;
use loxi_core::packet::Timestamp;
use loxi_ebpf_layout::flow::{REPLY, rest};

/// How many connections there are of each family.
#[must_use]
pub fn connections(store: &Store<'_>) -> [u64; 2] {
    FAMILIES.map(|family| {
        let mut count = 0;
        originals(store, family, |_| count += 1);
        count
    })
}

/// Shows the entries of the original directions.
fn originals(store: &Store<'_>, family: u8, mut show: impl FnMut(Place)) {
    let table = store.table(family);
    table.scan(0..table.buckets(), |place, word| {
        if rest::flags(word) & REPLY == 0 {
            show(place);
        }
    });
}

/// Enters all of them. One that ends meanwhile, or finds no room, is left out.
pub fn copy_flows(from: &Store<'_>, to: &mut Store<'_>, now: Timestamp) {
    for family in FAMILIES {
        originals(from, family, |place| {
            if let Ok((_, record)) = from.table(family).record(place)
                && let Err(error) = to.put_draft(Draft::again(&record), now)
            {
                tracing::debug!(%error, "a connection is not copied");
            }
        });
    }
}
