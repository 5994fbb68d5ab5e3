//! Stage 7: which endpoint a new connection gets.
//!
//! Eligible are the active endpoints, else the draining ones; of these, as the
//! traffic policy says, the local ones. Affinity comes first, while its
//! endpoint is eligible and of the same slot generation; then the algorithm.
//! Maglev and source hash are determined; the others are choice points.

use super::Run;
use loxi_core::algo::{MaglevTable, address_hash, flow_hash};
use loxi_core::ir::{BackendState, LbAlgorithm, LbBackend, LbService, Locality, MaglevSize, TrafficPolicy};
use loxi_core::packet::{ChoicePoint, FlowTuple};
use loxi_core::reason::DropReason;

/// Seed of the hash that looks into a service's table; group hashes have their own.
const SEED: u32 = 0;

impl Run<'_> {
    pub(super) fn pick_backend(
        &mut self,
        service: &LbService,
        tuple: &FlowTuple,
    ) -> Result<LbBackend, DropReason> {
        let eligible = self.eligible(service)?;
        if let Some(remembered) = self.remembered(service, tuple, &eligible) {
            return Ok(remembered);
        }
        let index = match service.algorithm {
            LbAlgorithm::Maglev { table_size } => by_table(table_size, &eligible, flow_hash(SEED, tuple)),
            LbAlgorithm::SourceHash => {
                by_table(MaglevSize::default(), &eligible, address_hash(SEED, tuple.src))
            }
            LbAlgorithm::Random => self.choose_backend(&eligible, None),
            LbAlgorithm::RoundRobin => {
                let turn = self.turn(service, &eligible);
                self.choose_backend(&eligible, Some(turn))
            }
            LbAlgorithm::LeastConnections => {
                let least = self.least_connections(&eligible);
                self.choose_backend(&eligible, Some(least))
            }
        };
        eligible.get(index).cloned().ok_or(DropReason::NoBackend)
    }

    fn eligible(&self, service: &LbService) -> Result<Vec<LbBackend>, DropReason> {
        let all: Vec<&LbBackend> =
            service.backends.iter().filter_map(|name| self.config.get::<LbBackend>(name)).collect();
        let of = |state: BackendState, local: bool| -> Vec<LbBackend> {
            let wanted = |b: &&&LbBackend| b.state == state && (!local || b.locality == Locality::Local);
            all.iter().filter(wanted).map(|b| (*b).clone()).collect()
        };
        let first = |local: bool| {
            let active = of(BackendState::Active, local);
            if active.is_empty() { of(BackendState::Draining, local) } else { active }
        };
        let anywhere = first(false);
        if anywhere.is_empty() {
            return Err(DropReason::NoBackend);
        }
        match service.traffic_policy {
            TrafficPolicy::Cluster => Ok(anywhere),
            TrafficPolicy::Local => {
                let local = first(true);
                if local.is_empty() { Err(DropReason::NoLocalBackend) } else { Ok(local) }
            }
            TrafficPolicy::PreferLocal => {
                let local = of(BackendState::Active, true);
                Ok(if local.is_empty() { anywhere } else { local })
            }
        }
    }

    fn remembered(
        &self,
        service: &LbService,
        tuple: &FlowTuple,
        eligible: &[LbBackend],
    ) -> Option<LbBackend> {
        service.affinity?;
        let entry = self.state.affinity(&service.key(), tuple.src).filter(|e| e.expires > self.now)?;
        let (name, generation) = &entry.backend;
        if self.state.slot(name) != *generation {
            return None;
        }
        eligible.iter().find(|backend| backend.name == *name).cloned()
    }

    fn choose_backend(&mut self, eligible: &[LbBackend], preferred: Option<usize>) -> usize {
        let weights = eligible.iter().map(|backend| u32::from(backend.weight)).collect();
        let preferred = preferred.and_then(|index| u32::try_from(index).ok());
        let value = self.choose(ChoicePoint::Backend { weights, preferred });
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// Whose turn it is: every endpoint as often in a round as its weight says.
    fn turn(&mut self, service: &LbService, eligible: &[LbBackend]) -> usize {
        let total: u64 = eligible.iter().map(|backend| u64::from(backend.weight)).sum();
        let mut left = self.state.turn(&service.key()) % total.max(1);
        for (index, backend) in eligible.iter().enumerate() {
            if left < u64::from(backend.weight) {
                return index;
            }
            left -= u64::from(backend.weight);
        }
        0
    }

    /// The endpoint with the fewest flows per weight; of equals the first by name.
    fn least_connections(&self, eligible: &[LbBackend]) -> usize {
        let flows = |backend: &LbBackend| self.state.of_backend(&backend.name, self.now);
        let loads: Vec<(u64, u64)> = eligible.iter().map(|b| (flows(b), u64::from(b.weight))).collect();
        // a / b < c / d without division.
        let less = |a: (u64, u64), b: (u64, u64)| a.0 * b.1 < b.0 * a.1;
        (0..loads.len())
            .reduce(|best, index| if less(loads[index], loads[best]) { index } else { best })
            .unwrap_or(0)
    }
}

fn by_table(size: MaglevSize, eligible: &[LbBackend], hash: u32) -> usize {
    let backends: Vec<_> =
        eligible.iter().map(|backend| (backend.address, backend.port, u32::from(backend.weight))).collect();
    MaglevTable::build(size.get(), &backends).pick(hash).unwrap_or(usize::MAX)
}
