//! Rules by protocol and destination port.
//!
//! A range of ports is cut into prefixes of a port's 16 bits. A row at a longer prefix has the bits of
//! all shorter ones, those at a protocol the bits of rules for any.

use super::group::{Group, ranges};
use super::{add, is_empty, set};
use crate::plan::{Bits, PortBits, Row, RowKey, Rows};
use loxi_core::ir::Pipeline;
use loxi_core::net::L4Ports;
use std::collections::BTreeMap;

/// Every port.
const ALL: PortBits = PortBits { bits: 0, port: 0 };

pub(super) fn put(pipeline: &Pipeline, group: &Group<'_>, rows: &mut Rows) {
    let mut any = Bits::default();
    let mut by_protocol: BTreeMap<u8, BTreeMap<PortBits, Bits>> = BTreeMap::new();
    for (bit, rule) in group.rules() {
        let Some(protocol) = rule.protocol else {
            set(&mut any, bit);
            continue;
        };
        let own = by_protocol.entry(protocol.0).or_default();
        match ranges(pipeline, rule) {
            None => set(own.entry(ALL).or_default(), bit),
            Some(ranges) => {
                for prefix in ranges.into_iter().flat_map(prefixes) {
                    set(own.entry(prefix).or_default(), bit);
                }
            }
        }
    }
    let mut row = |protocol: Option<u8>, prefix: PortBits, bits: Bits| {
        if !is_empty(&bits) {
            rows.insert(RowKey::PortRules(group.digest, protocol, prefix), Row::Bits(bits));
        }
    };
    row(None, ALL, any);
    for (protocol, mut own) in by_protocol {
        // A rule of the protocol that means some ports only must not hide those for any protocol.
        own.entry(ALL).or_default();
        for prefix in own.keys() {
            let mut bits = any;
            for shorter in (0..=prefix.bits).map(|bits| shortened(*prefix, bits)) {
                if let Some(more) = own.get(&shorter) {
                    add(&mut bits, more);
                }
            }
            row(Some(protocol), *prefix, bits);
        }
    }
}

fn shortened(prefix: PortBits, bits: u8) -> PortBits {
    let mask = u16::MAX.checked_shl(16 - u32::from(bits)).unwrap_or(0);
    PortBits { bits, port: prefix.port & mask }
}

/// The fewest prefixes that hold the ports of a range and no others.
pub(in crate::plan) fn prefixes(range: L4Ports) -> Vec<PortBits> {
    let (mut first, end) = (u32::from(range.first()), u32::from(range.last()) + 1);
    let mut found = Vec::new();
    while first < end {
        // The largest block that begins here and isn't larger than what is left.
        let aligned = if first == 0 { 16 } else { first.trailing_zeros() };
        let block = aligned.min((end - first).ilog2());
        // A block is at most the whole range, and the port at most 65535.
        found.push(PortBits { bits: (16 - block) as u8, port: first as u16 });
        first += 1 << block;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(prefix: PortBits, port: u16) -> bool {
        shortened(PortBits { bits: prefix.bits, port }, prefix.bits) == prefix
    }

    #[test]
    fn whole_ranges_are_few_prefixes() {
        assert_eq!(prefixes(L4Ports::ANY), [ALL]);
        assert_eq!(prefixes(L4Ports::one(65535)), [PortBits { bits: 16, port: 65535 }]);
        assert_eq!(prefixes(L4Ports::new(1, u16::MAX).unwrap()).len(), 16);
        assert_eq!(prefixes(L4Ports::new(1, 65534).unwrap()).len(), 30);
    }

    proptest! {
        #[test]
        fn prefixes_hold_the_range_once(a: u16, b: u16, port: u16) {
            let range = L4Ports::new(a.min(b), a.max(b)).unwrap();
            let found = prefixes(range);
            prop_assert!(found.len() <= 30);
            let (first, last) = (range.first(), range.last());
            for port in [port, first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                let held = found.iter().filter(|prefix| holds(**prefix, port)).count();
                prop_assert_eq!(held, usize::from(range.contains(port)), "{:?} {}", found, port);
            }
        }
    }
}
