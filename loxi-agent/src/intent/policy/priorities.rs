//! Priorities of rules: which number each rule has.
//!
//! The order of rules means nothing in their tier, but two rules can't have one number. Each rule has a home, a hash of
//! what it is of; it gets its home, or if that is taken the next number that is free. The rules that compete are ordered by
//! home and name, so that the numbers follow from the set of rules, not from the way to it; and a rule that comes or goes
//! moves others only where they stand in one row without a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use loxi_core::ir::PolicyDirection;

use crate::cluster::model::Name;
use crate::intent::names;

/// A rule: its direction, home, policy, and number there.
type Place = (PolicyDirection, u32, Name, u32);

/// The numbers of all rules.
#[derive(Debug)]
pub(super) struct Priorities {
    taken: BTreeMap<Place, u32>,
    /// Bits of a home: the last numbers stay free for those that are moved on.
    mask: u32,
}

impl Default for Priorities {
    fn default() -> Self {
        Self { taken: BTreeMap::new(), mask: u32::MAX >> 1 }
    }
}

impl Priorities {
    /// Numbers for which nearly every rule competes.
    #[cfg(test)]
    pub(super) fn crowded() -> Self {
        Self { mask: 7, ..Self::default() }
    }

    fn place(&self, policy: &Name, direction: PolicyDirection, number: u32) -> Place {
        let hash = names::hash(&format!("{policy} {direction} {number}"));
        // The upper half is the better mixed one.
        let home = u32::try_from(hash >> 32).unwrap_or(0) & self.mask;
        (direction, home, policy.clone(), number)
    }

    /// The number of a policy's rule.
    pub(super) fn of(&self, policy: &Name, direction: PolicyDirection, number: u32) -> Option<u32> {
        self.taken.get(&self.place(policy, direction, number)).copied()
    }

    /// A policy has `now` rules in a direction, where it had `before`. Who else's rules have other numbers now?
    pub(super) fn resize(
        &mut self,
        policy: &Name,
        direction: PolicyDirection,
        before: u32,
        now: u32,
    ) -> BTreeSet<Name> {
        let mut moved = BTreeSet::new();
        for number in before..now {
            let place = self.place(policy, direction, number);
            self.taken.insert(place.clone(), 0);
            self.settle(Bound::Included(place), &mut moved);
        }
        for number in now..before {
            let place = self.place(policy, direction, number);
            self.taken.remove(&place);
            self.settle(Bound::Excluded(place), &mut moved);
        }
        moved.remove(policy);
        moved
    }

    /// Numbers the rules from a place on, up to the first that is right already.
    fn settle(&mut self, from: Bound<Place>, moved: &mut BTreeSet<Name>) {
        let (Bound::Included(start) | Bound::Excluded(start)) = &from else { return };
        let direction = start.0;
        let previous = self.taken.range(..start).next_back().filter(|(place, _)| place.0 == direction);
        let mut free = previous.map_or(0, |(_, number)| number.saturating_add(1));
        let new = matches!(from, Bound::Included(_)).then(|| start.clone());
        for (place, number) in self.taken.range_mut((from, Bound::Unbounded)) {
            if place.0 != direction {
                return;
            }
            let right = place.1.max(free);
            if *number == right && new.as_ref() != Some(place) {
                return;
            }
            *number = right;
            moved.insert(place.2.clone());
            free = right.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(number: u8) -> Name {
        Name::new("default", format!("policy-{number}"))
    }

    #[test]
    fn rules_without_competition_have_their_home() {
        let mut priorities = Priorities::default();
        for number in 0..50 {
            assert!(priorities.resize(&policy(number), PolicyDirection::Ingress, 0, 4).is_empty());
        }
        assert!(priorities.taken.iter().all(|(place, number)| place.1 == *number));
    }

    proptest! {
        /// Whatever came and went: the numbers are those of the final rules, no two are equal, and whoever's numbers
        /// changed was named.
        #[test]
        fn numbers_follow_from_the_set(steps in proptest::collection::vec((0..6_u8, any::<bool>(), 0..5_u32), 1..30)) {
            let mut priorities = Priorities::crowded();
            let mut sizes: BTreeMap<(u8, bool), u32> = BTreeMap::new();
            for (number, ingress, now) in steps {
                let direction = if ingress { PolicyDirection::Ingress } else { PolicyDirection::Egress };
                let before = sizes.insert((number, ingress), now).unwrap_or(0);
                let old = priorities.taken.clone();
                let named = priorities.resize(&policy(number), direction, before, now);
                let is_other = |place: &Place| place.2 != policy(number);
                for (place, now) in priorities.taken.iter().filter(|(place, _)| is_other(place)) {
                    prop_assert!(old[place] == *now || named.contains(&place.2), "{place:?}");
                }
            }
            let mut fresh = Priorities::crowded();
            for ((number, ingress), size) in sizes.iter().rev() {
                let direction = if *ingress { PolicyDirection::Ingress } else { PolicyDirection::Egress };
                fresh.resize(&policy(*number), direction, 0, *size);
            }
            prop_assert_eq!(&fresh.taken, &priorities.taken);
            let numbers: BTreeSet<_> = fresh.taken.iter().map(|(place, number)| (place.0, *number)).collect();
            prop_assert_eq!(numbers.len(), fresh.taken.len());
        }
    }
}
