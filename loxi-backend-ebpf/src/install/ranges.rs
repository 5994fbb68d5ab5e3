//! Ranges of ports as prefixes of their bits.

/// The fewest prefixes that make up a range: lowest port and number of bits that count.
pub(crate) fn prefixes(first: u16, last: u16) -> impl Iterator<Item = (u16, u8)> {
    let mut next = u32::from(first);
    let end = u32::from(last) + 1;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        // As large as its alignment and what is left allow.
        let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
        let room = (end - next).ilog2();
        let bits = aligned.min(room);
        let prefix = (next as u16, (16 - bits) as u8);
        next += 1 << bits;
        Some(prefix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_port_of_the_range_is_covered_once(a in any::<u16>(), b in any::<u16>()) {
            let (first, last) = (a.min(b), a.max(b));
            let found: Vec<_> = prefixes(first, last).collect();
            prop_assert!(found.len() <= 30);
            let mut next = u32::from(first);
            for (port, bits) in found {
                prop_assert_eq!(u32::from(port), next);
                prop_assert_eq!(next % (1 << (16 - bits)), 0);
                next += 1 << (16 - bits);
            }
            prop_assert_eq!(next, u32::from(last) + 1);
        }
    }
}
