//! While policies change, every connection is judged by the old ones or by the new ones: looked at after every
//! single call of the installation, and of its undoing.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod generate;

use loxi_backend_ebpf::install::Installer;
use loxi_backend_ebpf::plan::PlanIndex;
use loxi_backend_ebpf::sys::{
    Entries, Kernel, KernelError, Memory, PEER_RULES, PEERS, POLICIES, PORT_POLICY, PORT_RULES, Put,
    SimulatedKernel, Table,
};
use loxi_core::capability::Capabilities;
use loxi_core::change::diff;
use loxi_core::ir::{Entity, Pipeline};
use loxi_ebpf_layout::policy::{
    GROUP_BITS, Group, GroupClass, GroupPort, NO_CLASS, PEER_FIXED_BITS, PROTOCOL_BITS, PeerKey, Rules,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const WATCHED: [Table; 5] =
    [Table::PortPolicy, Table::Policies, Table::Peers, Table::PeerRules, Table::PortRules];

/// Judgements of every sample.
type Judged = Vec<bool>;

/// What was judged after each call.
type Log = Arc<Mutex<Vec<(String, Judged)>>>;

/// A kernel that judges samples after every call that changes a table of policies.
struct Watched {
    inner: SimulatedKernel,
    seen: Log,
    /// Calls until whoever makes them is killed: after that nothing that he does has an effect.
    left: Arc<AtomicU64>,
}

impl Watched {
    fn new(inner: &SimulatedKernel) -> (Self, Log) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::new(AtomicU64::new(u64::MAX));
        (Self { inner: inner.clone(), seen: Arc::clone(&seen), left }, seen)
    }

    fn lives(&self, call: &'static str, table: Table) -> Result<(), KernelError> {
        let one_less = |left: u64| left.checked_sub(1);
        let lived = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        let killed = || std::io::Error::other("it was killed");
        if lived {
            Ok(())
        } else {
            Err(KernelError { call, object: table.name().to_owned(), source: killed() })
        }
    }

    fn look(&self, call: &str, table: Table) {
        if WATCHED.contains(&table) {
            let judged = judge_all(&self.inner);
            self.seen.lock().unwrap().push((format!("{call} {}", table.name()), judged));
        }
    }
}

impl Kernel for Watched {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8], how: Put) -> Result<(), KernelError> {
        self.lives("put into", table)?;
        self.inner.put(table, key, value, how)?;
        self.look("put into", table);
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, KernelError> {
        self.lives("remove from", table)?;
        let was = self.inner.remove(table, key)?;
        self.look("remove from", table);
        Ok(was)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.inner.get(table, key)
    }

    fn entries(&self, table: Table) -> Result<Entries, KernelError> {
        self.inner.entries(table)
    }

    fn capacity(&self, table: Table) -> u32 {
        self.inner.capacity(table)
    }

    fn memory(&self, table: Table) -> &Memory {
        self.inner.memory(table)
    }

    fn grace(&mut self) -> Result<(), KernelError> {
        self.inner.grace()
    }

    fn publish(&mut self, table: Table, offset: usize, word: u64) -> Result<(), KernelError> {
        self.lives("publish in", table)?;
        self.inner.publish(table, offset, word)?;
        self.look("publish in", table);
        Ok(())
    }
}

/// The tables as they stand, for judging as the programs do.
struct Standing {
    ports: Vec<u64>,
    groups: BTreeMap<u32, Group>,
    peers: Vec<(PeerKey, u32)>,
    by_peer: BTreeMap<GroupClass, Rules>,
    by_port: Vec<(GroupPort, Rules)>,
}

const PEERS_ASKED: [[u8; 4]; 9] = [
    [10, 0, 0, 1],
    [10, 1, 2, 3],
    [10, 1, 2, 77],
    [10, 1, 3, 9],
    [10, 1, 99, 1],
    [10, 2, 0, 1],
    [192, 168, 0, 9],
    [192, 168, 1, 1],
    [1, 2, 3, 4],
];
const L4_ASKED: [(u8, u16); 5] = [(6, 80), (6, 443), (17, 53), (17, 8011), (1, 0)];

impl Standing {
    fn class(&self, addr: [u8; 4]) -> u32 {
        let covers = |key: &PeerKey| {
            let bits = key.bits - PEER_FIXED_BITS;
            let own = u32::from_be_bytes(key.addr.0[0].to_ne_bytes());
            let asked = u32::from_be_bytes(addr);
            let mask = if bits == 0 { 0 } else { u32::MAX << (32 - bits.min(32)) };
            key.family == 4 && own & mask == asked & mask
        };
        let longest = self.peers.iter().filter(|(key, _)| covers(key)).max_by_key(|(key, _)| key.bits);
        longest.map_or(NO_CLASS, |(_, class)| *class)
    }

    fn rules_for(&self, group: u32, protocol: u8, port: u16) -> Option<Rules> {
        let means = |key: &GroupPort| {
            let bits = key.bits.saturating_sub(PROTOCOL_BITS);
            let mask = if bits == 0 { 0 } else { u16::MAX << (16 - bits) };
            key.group == group
                && (key.bits <= GROUP_BITS || key.protocol == protocol)
                && (key.bits <= PROTOCOL_BITS || u16::from_be_bytes(key.port) & mask == port & mask)
        };
        self.by_port.iter().filter(|(key, _)| means(key)).max_by_key(|(key, _)| key.bits).map(|(_, r)| *r)
    }

    fn admits(&self, group: u32, peer: [u8; 4], (protocol, port): (u8, u16)) -> bool {
        let Some(rules) = self.groups.get(&group).filter(|_| group != 0) else { return true };
        let key = GroupClass { group, class: self.class(peer) };
        let isolated = rules.isolated != 0;
        let (Some(by_peer), Some(by_port)) = (self.by_peer.get(&key), self.rules_for(group, protocol, port))
        else {
            return !isolated;
        };
        let mut passed = 0;
        for n in 0..by_port.words.len() {
            let at = n as u32;
            let tier = u32::from(at >= rules.admin) + u32::from(at >= rules.network_policy);
            if tier == 2 && isolated {
                return false;
            }
            let both = by_peer.words[n] & by_port.words[n];
            if both == 0 || passed == tier + 1 {
                continue;
            }
            let lowest = both & both.wrapping_neg();
            if rules.allow.words[n] & lowest != 0 {
                return true;
            }
            if rules.deny.words[n] & lowest != 0 {
                return false;
            }
            passed = tier + 1;
        }
        !(isolated && rules.network_policy >= by_port.words.len() as u32)
    }
}

fn judge_all(kernel: &SimulatedKernel) -> Judged {
    let kernel: &dyn Kernel = kernel;
    let ports: Vec<u64> = (0..12).map(|n| kernel.at(PORT_POLICY, n).groups).collect();
    let used = ports.iter().flat_map(|groups| [*groups as u32, (groups >> 32) as u32]);
    let groups = used.filter(|group| *group != 0).map(|group| (group, kernel.at(POLICIES, group))).collect();
    let standing = Standing {
        groups,
        peers: kernel.all(PEERS).unwrap(),
        by_peer: kernel.all(PEER_RULES).unwrap().into_iter().collect(),
        by_port: kernel.all(PORT_RULES).unwrap(),
        ports,
    };
    let groups = standing.ports.iter().flat_map(|groups| [*groups as u32, (groups >> 32) as u32]);
    let cases = groups.flat_map(|group| PEERS_ASKED.map(|peer| L4_ASKED.map(|l4| (group, peer, l4))));
    cases.flatten().map(|(group, peer, l4)| standing.admits(group, peer, l4)).collect()
}

/// Only what policies are made of changes: ports and their numbers stay.
fn with_policies_of(base: &Pipeline, other: &Pipeline) -> Pipeline {
    let is_policy = |entity: &Entity| {
        matches!(
            entity,
            Entity::PolicyRule(_) | Entity::PolicyIsolation(_) | Entity::AddrSet(_) | Entity::PortSet(_)
        )
    };
    let mut pipeline = Pipeline::default();
    let kept = base.entities().map(|owned| owned.entity.clone()).filter(|entity| !is_policy(entity));
    let taken = other.entities().map(|owned| owned.entity.clone()).filter(is_policy);
    for entity in kept.chain(taken) {
        pipeline.put(generate::owner(), entity);
    }
    generate::prune(pipeline)
}

/// Cases of a run: more where somebody asks for more.
fn cases() -> u32 {
    std::env::var("LOXI_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60)
}

#[test]
fn no_connection_is_judged_by_a_mixture() {
    let (calls, differed) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new_with_rng(
        Config { cases: cases(), max_shrink_iters: 20, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let seeds = (vec(any::<u64>(), 1..12), vec(any::<u64>(), 1..12));
    let done = runner.run(&seeds, |(first, second)| {
        let old = generate::pipeline(&first);
        let new = with_policies_of(&old, &generate::pipeline(&second));
        let inner = SimulatedKernel::new([256, 256]).unwrap();
        let (watched, seen) = Watched::new(&inner);
        let (mut installer, plan) = Installer::new(Box::new(watched)).unwrap();
        let full = Capabilities::full("test", 1 << 20);
        let mut index = PlanIndex::from_plan(plan);
        let empty = Pipeline::default();
        let delta = index.compile_change(&old, &diff(&empty, &old), &full).unwrap();
        index.apply(installer.install(delta).unwrap().delta());
        let before = judge_all(&inner);
        seen.lock().unwrap().clear();

        let delta = index.compile_change(&new, &diff(&old, &new), &full).unwrap();
        let undo = installer.install(delta).unwrap();
        let after = judge_all(&inner);
        let judge = |seen: &mut Vec<(String, Judged)>, from: &Judged, to: &Judged| {
            for (call, judged) in seen.drain(..) {
                calls.set(calls.get() + 1);
                for (n, verdict) in judged.iter().enumerate() {
                    prop_assert!(*verdict == from[n] || *verdict == to[n], "sample {n} after {call}");
                }
            }
            Ok::<(), TestCaseError>(())
        };
        judge(&mut seen.lock().unwrap(), &before, &after)?;
        differed.set(differed.get() + before.iter().zip(&after).filter(|(a, b)| a != b).count());
        installer.undo(undo);
        prop_assert!(judge_all(&inner) == before);
        judge(&mut seen.lock().unwrap(), &after, &before)?;
        Ok(())
    });
    done.unwrap();
    println!("{} calls were looked after, {} judgements changed", calls.get(), differed.get());
    assert!(calls.get() > 1000 && differed.get() > 1000);
}

/// How far the calls at which somebody is killed lie apart: one, where more than the usual is asked for.
fn every() -> usize {
    if std::env::var_os("LOXI_CASES").is_some() { 1 } else { 20 }
}

/// The changes of a case: the pipeline before, the one after, and one more.
fn case(seeds: &[Vec<u64>; 3]) -> [Pipeline; 3] {
    let old = generate::pipeline(&seeds[0]);
    let [new, third] = [&seeds[1], &seeds[2]].map(|other| with_policies_of(&old, &generate::pipeline(other)));
    [old, new, third]
}

/// Installs a pipeline where nothing is.
fn installed(kernel: &SimulatedKernel, pipeline: &Pipeline) {
    let (mut installer, plan) = Installer::new(Box::new(kernel.clone())).unwrap();
    let full = Capabilities::full("test", 1 << 20);
    installer.install(PlanIndex::from_plan(plan).mend(pipeline, &full).unwrap()).unwrap();
}

#[test]
fn a_change_after_one_that_was_killed_is_no_mixture_either() {
    let (killed, calls, differed) = (Cell::new(0u64), Cell::new(0u64), Cell::new(0u64));
    let cases = (cases() / 6).max(1);
    let mut runner = TestRunner::new_with_rng(
        Config { cases, max_shrink_iters: 20, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let seeds = [(); 3].map(|()| vec(any::<u64>(), 1..12));
    let done = runner.run(&seeds, |seeds| {
        let [old, new, third] = case(&seeds);
        let first = seeds[0][0] % every() as u64;
        let full = Capabilities::full("test", 1 << 20);
        for call in (first..).step_by(every()) {
            let inner = SimulatedKernel::new([256, 256]).unwrap();
            installed(&inner, &old);
            let (watched, _) = Watched::new(&inner);
            let left = Arc::clone(&watched.left);
            let (mut installer, plan) = Installer::new(Box::new(watched)).unwrap();
            let index = PlanIndex::from_plan(plan);
            let delta = index.compile_change(&new, &diff(&old, &new), &full).unwrap();
            left.store(call, Ordering::SeqCst);
            let reached = installer.install(delta).is_err();
            killed.set(killed.get() + u64::from(reached));
            drop(installer);

            // Whoever comes next may want what was wanted, or go back, or something else.
            let wanted = [&new, &old, &third][call as usize % 3];
            let before = judge_all(&inner);
            let (watched, seen) = Watched::new(&inner);
            let (mut installer, plan) = Installer::new(Box::new(watched)).unwrap();
            installer.install(PlanIndex::from_plan(plan).mend(wanted, &full).unwrap()).unwrap();
            let after = judge_all(&inner);
            differed.set(differed.get() + before.iter().zip(&after).filter(|(a, b)| a != b).count() as u64);
            for (what, judged) in seen.lock().unwrap().drain(..) {
                calls.set(calls.get() + 1);
                for (n, verdict) in judged.iter().enumerate() {
                    let is_one = *verdict == before[n] || *verdict == after[n];
                    prop_assert!(is_one, "killed at call {call}: sample {n} after {what}");
                }
            }
            let (plan, strays) = installer.read().unwrap();
            prop_assert!(strays.is_empty(), "{strays:?}");
            prop_assert!(plan == loxi_backend_ebpf::plan::compile(wanted, &full).unwrap());
            if !reached {
                break;
            }
        }
        Ok(())
    });
    done.unwrap();
    println!(
        "killed {} times; {} calls were looked after, {} judgements changed",
        killed.get(),
        calls.get(),
        differed.get()
    );
    assert!(killed.get() > 3 * u64::from(cases) && differed.get() > 100, "too few to show anything");
}
