//! Which endpoint of a service a new connection gets.

use super::{Walk, hash};
use crate::sys::{AFFINITY, BACKEND_FLOWS, HASHES, LISTS, TURNS};
use loxi_ebpf_layout::lb::{AffinityKey, Choice, Service, algorithm, hash_word};

/// Endpoints among which a remembered one, or the least busy, is looked for.
const MOST_SEARCHED: u32 = 256;

/// Steps of a search that halves: lists are shorter than 2^18.
const HALVINGS: u32 = 18;

impl Walk<'_> {
    /// The endpoint that the client had before, while it may be used.
    pub(super) fn remembered(&self, service: &Service) -> Option<Choice> {
        if service.affinity == 0 {
            return None;
        }
        let key = AffinityKey { service: service.id, family: self.p.family.into(), client: self.p.src };
        let known = self.t.look(AFFINITY, &key)?;
        if known.expires <= self.p.now {
            return None;
        }
        // It must be among those that may be used now, and still be what it was.
        for n in 0..service.count.min(MOST_SEARCHED) {
            let choice = self.t.array(LISTS, service.list.wrapping_add(n))?;
            if choice.backend == known.backend {
                return (choice.generation == known.generation).then_some(choice);
            }
        }
        None
    }

    /// One by the service's algorithm.
    pub(super) fn pick(&mut self, service: &Service) -> Option<Choice> {
        let last = u64::from(service.count.checked_sub(1)?);
        let preferred = match service.algorithm {
            algorithm::MAGLEV | algorithm::SOURCE_HASH => {
                let hash = if service.algorithm == algorithm::MAGLEV {
                    self.flow_hash(0)
                } else {
                    hash::of_addr(0, self.p.family, &self.p.src)
                };
                let (word, shift) = hash_word(service.table, hash.checked_rem(service.size)?);
                let index = (self.t.array(HASHES, word)? >> shift) as u32 & 0xffff;
                return self.by_index(service, index);
            }
            algorithm::ROUND_ROBIN => {
                let turn = self.t.array(TURNS, service.id)?;
                let index = self.by_weight(service, (turn % u64::from(service.total.max(1))) as u32)?;
                Some(index)
            }
            algorithm::LEAST_CONNECTIONS => Some(self.least(service)?),
            _ => None,
        };
        let value = match preferred.filter(|index| *index != u32::MAX) {
            Some(index) => self.choose(0, last, index.into(), index.into()),
            None => {
                let point = (u64::from(self.p.random) * u64::from(service.total)) >> 32;
                let own = self.by_weight(service, point as u32)?;
                let plain = self.by_weight(service, 0)?;
                self.choose(0, last, plain.into(), own.into())
            }
        };
        self.by_index(service, value as u32)
    }

    fn by_index(&self, service: &Service, index: u32) -> Option<Choice> {
        if index >= service.count {
            return None;
        }
        self.t.array(LISTS, service.list.wrapping_add(index))
    }

    /// The first endpoint whose sum of weights is above a point.
    fn by_weight(&self, service: &Service, point: u32) -> Option<u32> {
        let (mut low, mut high) = (0u32, service.count);
        for _ in 0..HALVINGS {
            if low >= high {
                break;
            }
            let middle = low.wrapping_add(high) / 2;
            if self.t.array(LISTS, service.list.wrapping_add(middle))?.up_to > point {
                high = middle;
            } else {
                low = middle.wrapping_add(1);
            }
        }
        (low < service.count).then_some(low)
    }

    /// The endpoint with the fewest flows per weight; of equals the first.
    fn least(&self, service: &Service) -> Option<u32> {
        let mut best = 0;
        let (mut best_flows, mut best_weight) = (u64::MAX, 1u64);
        let mut before = 0;
        for n in 0..service.count.min(MOST_SEARCHED) {
            let choice = self.t.array(LISTS, service.list.wrapping_add(n))?;
            let flows = self.t.array(BACKEND_FLOWS, choice.backend)?;
            let weight = u64::from(choice.up_to.wrapping_sub(before));
            before = choice.up_to;
            let fewer = flows.wrapping_mul(best_weight) < best_flows.wrapping_mul(weight);
            if best_flows == u64::MAX || fewer {
                (best, best_flows, best_weight) = (n, flows, weight);
            }
        }
        Some(best)
    }
}
