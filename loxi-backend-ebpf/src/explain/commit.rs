//! Stage 14: whether a flow would come into being. None does here.

use super::{Step, Walk, words};
use crate::sys::{SOURCES, ZONE_COUNT};
use loxi_core::packet::Stage;
use loxi_ebpf_layout::Addr;
use loxi_ebpf_layout::code::{Fate, drop, program};
use loxi_ebpf_layout::flow::state;
use loxi_ebpf_layout::l3::{Source, Zone};
use loxi_ebpf_layout::scratch::tracking;

impl Walk<'_> {
    pub(super) fn commit(&mut self) -> Step<u32> {
        if self.p.tracking == tracking::NEW {
            self.meet(Stage::Commit);
            let Some(zone) = self.zone(self.p.zone) else { return Ok(program::SEND) };
            let zone_name = self.zone_name();
            if self.commits
                && let Some(fate) = self.limit(&zone)
            {
                let key = format!("zone {zone_name} source {}", words::ip(self.p.family, self.p.src));
                return Err(self.refuse(key, None, fate));
            }
            let (own, reply) = (self.own_key(), self.new_key().reversed());
            if self.commits {
                self.has_room(&own, &reply)?;
            }
            let replies = words::tuple(self.p.family, &reply);
            let effect = format!("flow {}, replies {replies}", words::state_name(self.p.next_state));
            self.saw(self.summary(), None, effect);
        }
        Ok(program::SEND)
    }

    /// The limit that forbids another flow.
    fn limit(&self, zone: &Zone) -> Option<Fate> {
        // A count below zero, which lasts while two sides correct it, is no full one.
        let full = |count: u64, freed: bool, most: u32| {
            count.cast_signed().wrapping_sub(freed.into()) >= i64::from(most)
        };
        let freed =
            |counts: &dyn Fn(u8, Addr) -> bool| self.freed.is_some_and(|(state, src)| counts(state, src));
        let Some(count) = self.t.array(ZONE_COUNT, self.p.zone.into()) else { return Some(drop::CT_FULL) };
        if full(count.flows, self.freed.is_some(), zone.max_flows) {
            return Some(drop::CT_FULL);
        }
        let half_open = freed(&|state, _| state::is_half_open(state));
        if state::is_half_open(self.p.next_state) && full(count.half_open, half_open, zone.max_half_open) {
            return Some(drop::CT_HALF_OPEN_LIMIT);
        }
        if zone.max_per_source == u32::MAX {
            return None;
        }
        let key = Source { zone: self.p.zone.into(), family: self.p.family.into(), addr: self.p.src };
        let flows = self.t.look(SOURCES, &key).unwrap_or(0);
        let own = freed(&|_, src| src == self.p.src);
        full(flows, own, zone.max_per_source).then_some(drop::CT_SOURCE_LIMIT)
    }

    /// Whether both directions find a place in the table of flows.
    fn has_room(&mut self, own: &super::flows::Key, reply: &super::flows::Key) -> Step {
        let family = self.p.family;
        for key in [own, reply] {
            let known = self.find(family, key);
            if known.is_some_and(|number| self.is_alive(family, number)) {
                let entry = words::learned("flow of the same tuple");
                return Err(self.refuse(words::tuple(family, key).to_string(), entry, drop::PORTS_EXHAUSTED));
            }
            if known.is_none() && !self.has_place(family, key) {
                let entry = words::learned("both buckets are full");
                return Err(self.refuse(words::tuple(family, key).to_string(), entry, drop::CT_FULL));
            }
        }
        Ok(())
    }
}
