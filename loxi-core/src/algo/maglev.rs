//! Maglev's consistent hashing (Eisenbud et al., NSDI 2016, section 3.4).

use super::hash::address_hash;
use std::net::IpAddr;

/// A lookup table that spreads flows over backends evenly and changes little
/// when a backend comes or goes. It depends on the backends' addresses, ports
/// and weights alone, so that every node builds the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaglevTable {
    slots: Vec<u32>,
}

impl MaglevTable {
    /// Builds a table of `size` slots (a prime) over backends given as
    /// (address, port, weight). Backends of weight 0 get no slot. Empty if no
    /// backend has a weight.
    ///
    /// A backend of weight w takes w / (largest weight) turns per round. Cost
    /// grows as `size` times a small logarithm.
    #[must_use]
    pub fn build(size: u32, backends: &[(IpAddr, u16, u32)]) -> Self {
        let top = u64::from(backends.iter().map(|(_, _, weight)| *weight).max().unwrap_or(0));
        if top == 0 || size < 2 {
            return Self { slots: Vec::new() };
        }
        // Turns are taken in an order that doesn't depend on how the caller lists backends.
        let mut order: Vec<usize> = (0..backends.len()).collect();
        order.sort_by_key(|index| backends[*index]);
        let mut walkers: Vec<Walker> = order
            .iter()
            .map(|index| {
                let (address, port, weight) = backends[*index];
                let offset = address_hash(u32::from(port), address) % size;
                let skip = address_hash(!u32::from(port), address) % (size - 1) + 1;
                Walker { index: *index as u32, next: offset, skip, weight: u64::from(weight), credit: 0 }
            })
            .collect();
        let mut slots = vec![u32::MAX; size as usize];
        let mut left = size;
        while left > 0 {
            for walker in &mut walkers {
                walker.credit += walker.weight;
                if walker.credit < top || left == 0 {
                    continue;
                }
                walker.credit -= top;
                while slots[walker.next as usize] != u32::MAX {
                    walker.step(size);
                }
                slots[walker.next as usize] = walker.index;
                walker.step(size);
                left -= 1;
            }
        }
        Self { slots }
    }

    /// The index (into the slice given to [`Self::build`]) for a flow hash.
    #[must_use]
    pub fn pick(&self, hash: u32) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        Some(self.slots[hash as usize % self.slots.len()] as usize)
    }

    /// The slots: an index per slot.
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }
}

struct Walker {
    index: u32,
    next: u32,
    skip: u32,
    weight: u64,
    credit: u64,
}

impl Walker {
    fn step(&mut self, size: u32) {
        self.next = ((u64::from(self.next) + u64::from(self.skip)) % u64::from(size)) as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(n: u8, weight: u32) -> Vec<(IpAddr, u16, u32)> {
        (1..=n).map(|i| (IpAddr::from([10, 0, 0, i]), 80, weight)).collect()
    }

    fn shares(table: &MaglevTable, n: usize) -> Vec<usize> {
        let mut shares = vec![0; n];
        for slot in table.slots() {
            shares[*slot as usize] += 1;
        }
        shares
    }

    #[test]
    fn shares_follow_weights() {
        let mut weighted = backends(4, 2);
        weighted[3].2 = 1;
        weighted.push((IpAddr::from([10, 0, 0, 9]), 80, 0));
        let shares = shares(&MaglevTable::build(16381, &weighted), 5);
        assert!(shares[0].abs_diff(shares[1]) <= 2, "{shares:?}");
        assert!(shares[0].abs_diff(2 * shares[3]) <= 3, "{shares:?}");
        assert_eq!(shares[4], 0);
    }

    #[test]
    fn the_order_of_backends_does_not_matter() {
        let forward = backends(7, 1);
        let mut backward = forward.clone();
        backward.reverse();
        let (a, b) = (MaglevTable::build(1021, &forward), MaglevTable::build(1021, &backward));
        for hash in 0..1021 {
            assert_eq!(forward[a.pick(hash).unwrap()], backward[b.pick(hash).unwrap()]);
        }
    }

    #[test]
    fn removing_one_moves_little_else() {
        let all = backends(10, 1);
        let without: Vec<_> = all[..9].to_vec();
        let (a, b) = (MaglevTable::build(16381, &all), MaglevTable::build(16381, &without));
        let moved = (0..16381).filter(|h| a.pick(*h) != Some(9) && a.pick(*h) != b.pick(*h)).count();
        // The paper's figure 12 has a few per cent at most at this ratio of slots to backends.
        assert!(moved < 16381 / 20, "{moved} slots of the others moved");
    }

    #[test]
    fn nobody_means_nothing() {
        assert_eq!(MaglevTable::build(251, &[]).pick(1), None);
        assert_eq!(MaglevTable::build(251, &backends(3, 0)).pick(1), None);
    }
}
