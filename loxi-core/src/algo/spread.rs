//! Division of a hash space by weights (hash-threshold, RFC 2992).

/// The index to which `hash` belongs when the 32-bit space is cut into
/// adjacent regions in proportion to the weights. `None` if all weights are 0.
#[must_use]
pub fn threshold_pick(hash: u32, weights: &[u32]) -> Option<usize> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if total == 0 {
        return None;
    }
    let mut place = (u64::from(hash) * total) >> 32;
    for (index, weight) in weights.iter().enumerate() {
        if place < u64::from(*weight) {
            return Some(index);
        }
        place -= u64::from(*weight);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn regions_are_proportional() {
        assert_eq!(threshold_pick(0, &[1, 3]), Some(0));
        assert_eq!(threshold_pick(0x3fff_ffff, &[1, 3]), Some(0));
        assert_eq!(threshold_pick(0x4000_0000, &[1, 3]), Some(1));
        assert_eq!(threshold_pick(u32::MAX, &[1, 3]), Some(1));
        assert_eq!(threshold_pick(7, &[0, 0]), None);
    }

    proptest! {
        #[test]
        fn picks_only_weighted_ones(hash: u32, weights in proptest::collection::vec(0u32..70000, 1..20)) {
            match threshold_pick(hash, &weights) {
                Some(index) => prop_assert!(weights[index] > 0),
                None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
            }
        }
    }
}
