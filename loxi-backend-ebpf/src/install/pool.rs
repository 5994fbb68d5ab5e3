//! Places in arrays that are written before anybody reads them.
//!
//! What is given back rests until every program that could still read it has ended.

use std::collections::BTreeMap;

/// Places of one array.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Where free places begin, and how many there are.
    free: BTreeMap<u32, u32>,
    resting: Vec<(u32, u32)>,
}

impl Pool {
    /// All of `size` places but those in use.
    pub(crate) fn new(size: u32, used: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut used: Vec<_> = used.into_iter().filter(|(_, count)| *count > 0).collect();
        used.sort_unstable();
        let (mut free, mut next) = (BTreeMap::new(), 0);
        for (start, count) in used {
            if start > next {
                free.insert(next, start - next);
            }
            next = next.max(start.saturating_add(count));
        }
        if size > next {
            free.insert(next, size - next);
        }
        Self { free, resting: Vec::new() }
    }

    /// Takes `count` places side by side; where they begin. None of them: 0.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        if count == 0 {
            return Some(0);
        }
        let (start, room) = self.free.iter().find(|(_, room)| **room >= count).map(|(s, r)| (*s, *r))?;
        self.free.remove(&start);
        if room > count {
            self.free.insert(start + count, room - count);
        }
        Some(start)
    }

    /// Gives places back. They can be taken again after [`Pool::settle`].
    pub(crate) fn give(&mut self, start: u32, count: u32) {
        if count > 0 {
            self.resting.push((start, count));
        }
    }

    /// Whether something rests.
    pub(crate) fn rests(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Nobody reads what rests any more.
    pub(crate) fn settle(&mut self) {
        for (start, count) in std::mem::take(&mut self.resting) {
            self.put(start, count);
        }
    }

    /// Joins places with their free neighbours.
    fn put(&mut self, mut start: u32, mut count: u32) {
        if let Some((before, room)) = self.free.range(..start).next_back().map(|(s, r)| (*s, *r))
            && before + room == start
        {
            self.free.remove(&before);
            (start, count) = (before, room + count);
        }
        if let Some(room) = self.free.remove(&(start + count)) {
            count += room;
        }
        self.free.insert(start, count);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_rests_is_not_given_out() {
        let mut pool = Pool::new(4, [(1, 1)]);
        assert_eq!(pool.take(2), Some(2));
        pool.give(2, 2);
        assert_eq!(pool.take(2), None);
        assert!(pool.rests());
        pool.settle();
        assert_eq!(pool.take(2), Some(2));
        assert_eq!(pool.take(0), Some(0));
    }

    proptest! {
        #[test]
        fn places_are_nobodys_twice_and_none_is_lost(sizes in prop::collection::vec(1u32..9, 1..60), keep in any::<u64>()) {
            let mut pool = Pool::new(64, []);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (n, count) in sizes.iter().enumerate() {
                match pool.take(*count) {
                    Some(start) => held.push((start, *count)),
                    None if !held.is_empty() => {
                        let (start, count) = held.remove((keep >> (n % 60)) as usize % held.len());
                        pool.give(start, count);
                        pool.settle();
                    }
                    None => {}
                }
                let mut places: Vec<u32> = held.iter().flat_map(|(s, c)| *s..s + c).collect();
                let all = places.len();
                places.sort_unstable();
                places.dedup();
                prop_assert_eq!(places.len(), all);
                prop_assert!(places.iter().all(|place| *place < 64));
            }
            for (start, count) in held {
                pool.give(start, count);
            }
            pool.settle();
            prop_assert_eq!(pool.take(64), Some(0));
        }
    }
}
