//! The walk stays on its feet whatever stands in the tables: random bytes everywhere, and the tables of a
//! real node with a few words turned over.
#![allow(clippy::unwrap_used)]

use super::flows::Key;
use super::*;
use crate::install::Installer;
use crate::plan::PlanIndex;
use crate::sys::{FLOWS_V4, FLOWS_V6, KernelError, MAPPED, Memory, Put, SimulatedKernel, Table};
use loxi_core::change::diff;
use loxi_core::ir::{Entity, Owner, Pipeline};
use loxi_core::text::from_yaml;
use loxi_ebpf_layout::flow::{BucketV4, BucketV6, rest, spot};
use std::collections::BTreeSet;

const SEED: u64 = 7;
const NOW: Timestamp = Timestamp(1_000_000 * Timestamp::SECOND);
const NODE: &str = include_str!("../../../loxi-conformance/rows/pipelines/node.yaml");

/// Packets that meet every stage of a node.
const PACKETS: &[&str] = &[
    "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.96.0.1 / tcp 1000>80 S",
    "eth 02:00:00:00:01:02>02:00:00:00:01:01 / ipv4 10.244.1.11>10.244.1.10 / tcp 8080>1000 SA",
    "eth 02:00:00:00:01:02>02:00:00:00:01:00 / ipv4 10.244.1.11>10.244.1.10 / icmp 3 1 / ipv4 10.244.1.10>10.244.1.11 / tcp 1000>8080 S",
    "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.244.2.10 / udp 1>2",
    "eth 02:00:00:00:02:e0>02:00:00:00:01:e0 / ipv4 172.18.0.2>172.18.0.1 df / udp 50000>4789 csum=0 / vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv4 10.244.2.10>10.244.1.10 / udp 2>1",
    "eth 02:00:00:00:01:01>02:00:00:00:01:03 / ipv4 10.244.1.10>10.244.1.12 / tcp 1>443 S",
    "eth 02:00:00:00:01:03>02:00:00:00:01:00 / ipv4 10.244.1.12>198.51.100.1 / udp 1>53",
    "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 id=9 mf / udp 1>2 len=40 csum=0 / fill 16",
    "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.244.1.10>10.244.1.11 id=9 off=24 proto=17 / fill 16",
    "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 10.244.1.10>10.244.1.1 / icmp 8 0 id=1",
    "eth 02:00:00:00:01:01>ff:ff:ff:ff:ff:ff / arp request 02:00:00:00:01:01/10.244.1.10>00:00:00:00:00:00/10.244.1.11",
    "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 fd00:10:244:1::10>fd00:10:244:2::10 / udp 1>2",
    "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 fd00:10:244:1::10>fd00:10:96::1 / tcp 1000>80 S",
    "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv6 fd00:10:244:1::10>fd00:10:244:1::11 / tcp 1000>80 A",
];

/// Bits that are neither evenly spread nor all the same: often small numbers, as tables have them.
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn word(&mut self) -> u64 {
        let bits = self.next();
        match bits & 7 {
            0 => bits,
            1 => 0,
            2 => u64::MAX,
            3 => bits & 0x0003_0003_0003_0003,
            4 => bits & 0x0000_0007_0000_0007,
            5 => bits & 0x0000_ffff_0000_ffff,
            6 => bits & 0xffff,
            _ => bits & 0x0707_0707_0707_0707,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Tables in which every key is, with whatever value.
struct Garbage {
    inner: SimulatedKernel,
    seed: u64,
}

impl Garbage {
    fn new(seed: u64) -> Self {
        let inner = SimulatedKernel::new([16, 16]).unwrap();
        let mut bits = Bits(seed);
        for table in MAPPED {
            let memory = inner.memory(*table);
            // Numbers in the tables are small more often than not, so what they lead to is at the front.
            for n in 0..(memory.len() / 8).min(1 << 14) {
                memory.word(8 * n).store(bits.word());
            }
        }
        let kernel: &dyn Kernel = &inner;
        for number in 0..kernel.length(PORTS) {
            // A port that is down ends every walk at its beginning.
            let mut pair = kernel.at(PORTS, number);
            for half in &mut pair.pair.halves {
                half.flags |= port::UP | port::BRIDGED;
                half.flags &= !(port::LEARN | port::TRUNK | port::GUARDED) | bits.next() as u16;
                half.zone = half.zone.max(1);
            }
            kernel.fill(PORTS, number, &pair);
        }
        Self { inner, seed }
    }
}

impl Kernel for Garbage {
    fn put(&mut self, _: Table, _: &[u8], _: &[u8], _: Put) -> Result<(), KernelError> {
        unreachable!("nothing is written")
    }

    fn remove(&mut self, _: Table, _: &[u8]) -> Result<bool, KernelError> {
        unreachable!("nothing is written")
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        let hash =
            key.iter().fold(self.seed ^ table as u64, |hash, byte| Bits(hash ^ u64::from(*byte)).next());
        let mut bits = Bits(hash);
        if bits.below(4) == 0 {
            return Ok(None);
        }
        let words = (0..table.sizes().1.div_ceil(8)).flat_map(|_| bits.word().to_ne_bytes());
        Ok(Some(words.take(table.sizes().1).collect()))
    }

    fn entries(&self, table: Table) -> Result<Vec<(Vec<u8>, Vec<u8>)>, KernelError> {
        let mut bits = Bits(self.seed ^ 1);
        let (key, value) = table.sizes();
        let mut bytes = |len: usize| {
            (0..len.div_ceil(8)).flat_map(|_| bits.word().to_ne_bytes()).take(len).collect::<Vec<u8>>()
        };
        Ok((0..8).map(|_| (bytes(key), bytes(value))).collect())
    }

    fn capacity(&self, table: Table) -> u32 {
        self.inner.capacity(table)
    }

    fn memory(&self, table: Table) -> &Memory {
        self.inner.memory(table)
    }

    fn grace(&mut self) -> Result<(), KernelError> {
        unreachable!("nothing is written")
    }
}

/// Puts a record of a frame's own tuple where it is looked for, with whatever else in it.
fn plant(kernel: &dyn Kernel, frame: &[u8], zone: u8, bits: &mut Bits) {
    let names = Names::default();
    let question = Question::default();
    let around = Around { kernel, names: &names, seed: SEED, commits: true };
    let mut walk = Walk::new(&around, 1, frame, NOW, &question);
    if walk.parse().is_err() || walk.p.family == 0 {
        return;
    }
    walk.p.zone = zone;
    let Key { src, dst, rest: key } = walk.own_key();
    let word = rest::with(key, bits.word() as u8, bits.word() as u8);
    let wide = |addr: Addr| [0, 2].map(|n| u64::from(addr.0[n]) | u64::from(addr.0[n + 1]) << 32);
    if walk.p.family == family::V4 {
        let hash = loxi_ebpf_layout::flow::hash_v4(SEED, [src.0[0], dst.0[0]], key);
        let at = spot(hash, kernel.length(FLOWS_V4) - 1, 15);
        let mut bucket: BucketV4 = kernel.at(FLOWS_V4, at.first);
        let place = &mut bucket.places[at.home as usize];
        (place.addrs, place.rest) = ([src.0[0], dst.0[0]], word);
        place.seen.seen = if bits.below(2) == 0 { flows::tick(NOW.0) } else { place.seen.seen };
        place.seen.epoch = walk.p.epoch;
        kernel.fill(FLOWS_V4, at.first, &bucket);
    } else {
        let hash = loxi_ebpf_layout::flow::hash_v6(SEED, wide(src), wide(dst), key);
        let at = spot(hash, kernel.length(FLOWS_V6) - 1, 7);
        let mut bucket: BucketV6 = kernel.at(FLOWS_V6, at.first);
        let place = &mut bucket.places[at.home as usize];
        (place.src, place.dst, place.rest) = (wide(src), wide(dst), word);
        place.seen.seen = flows::tick(NOW.0);
        kernel.fill(FLOWS_V6, at.first, &bucket);
    }
}

/// What was met in many walks.
#[derive(Default)]
struct Met {
    stages: BTreeSet<Stage>,
    text: String,
    walks: usize,
}

impl Met {
    fn walk(&mut self, around: &Around<'_>, port: u32, frame: &[u8]) {
        let explained = explain(around, port, frame, NOW, &Question::default()).unwrap();
        let last = explained.trace.steps.last().unwrap();
        assert_eq!((last.stage, &last.effect), (Stage::Send, &explained.fate.to_string()));
        let met = Stage::ALL.into_iter().filter(|stage| explained.stages >> stage.number() & 1 != 0);
        self.stages.extend(met);
        self.text.push_str(&explained.trace.to_string());
        self.walks += 1;
    }
}

fn frames() -> Vec<Vec<u8>> {
    PACKETS.iter().map(|packet| loxi_conformance::build(packet).unwrap()).collect()
}

/// Every entry of every table, to see that nothing has changed.
fn tables(kernel: &dyn Kernel) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let small =
        Table::ALL.iter().filter(|table| kernel.capacity(**table) <= 20_000 || !MAPPED.contains(table));
    small.map(|table| kernel.entries(*table).unwrap()).collect()
}

#[test]
fn random_tables_are_walked_to_an_end() {
    let names = Names::default();
    let mut met = Met::default();
    for seed in 0..48 {
        let kernel = Garbage::new(seed);
        let mut bits = Bits(seed + 1000);
        for frame in frames() {
            let mut frame = frame;
            for _ in 0..bits.below(4) {
                let at = bits.below(frame.len());
                frame[at] ^= bits.next() as u8;
            }
            for port in [1, 2, bits.next() as u32 % 2048] {
                if let Some(pair) = (port < 1024).then(|| (&kernel as &dyn Kernel).at(PORTS, port)) {
                    plant(&kernel, &frame, pair.pair.current().zone, &mut bits);
                }
                for commits in [false, true] {
                    let around = Around { kernel: &kernel, names: &names, seed: SEED, commits };
                    met.walk(&around, port, &frame[..]);
                    met.walk(&around, port, &frame[..bits.below(frame.len() + 1)]);
                }
            }
        }
    }
    for stage in Stage::EXECUTED {
        assert!(met.stages.contains(&stage), "{stage:?} was never met");
    }
    for words in ["beyond the table's end", "no such place", "(no name)", "not believed", "forwarded"] {
        assert!(met.text.contains(words), "`{words}` was never told");
    }
    assert!(met.walks > 5000);
}

/// The tables of a node, as an installation leaves them.
fn node() -> Installer {
    let kernel = SimulatedKernel::new([16, 16]).unwrap();
    let (mut installer, plan) = Installer::new(Box::new(kernel)).unwrap();
    let entities: Vec<Entity> = from_yaml(NODE).unwrap();
    let pipeline = Pipeline::from_entities(&Owner::new("test").unwrap(), entities);
    let change = diff(&Pipeline::default(), &pipeline);
    let delta =
        PlanIndex::from_plan(plan).compile_change(&pipeline, &change, &crate::capabilities()).unwrap();
    installer.install(delta).unwrap();
    installer
}

#[test]
fn a_node_with_a_few_words_turned_over_is_walked_to_an_end() {
    let mut installer = node();
    let frames = frames();
    let mut met = Met::default();
    let ports: Vec<u32> = installer.w.names.ports.all().map(|(_, number)| number).collect();
    let hashes: Vec<Table> = Table::ALL.iter().filter(|table| !MAPPED.contains(table)).copied().collect();
    let mut bits = Bits(5);
    for round in 0..400 {
        if round % 40 == 0 {
            installer = node();
        }
        let kernel = &mut installer.w.kernel;
        let table = hashes[bits.below(hashes.len())];
        let entries = kernel.entries(table).unwrap();
        if let Some((key, mut value)) =
            (!entries.is_empty()).then(|| entries[bits.below(entries.len())].clone())
        {
            let at = bits.below(value.len());
            value[at] = bits.word() as u8;
            kernel.put(table, &key, &value, Put::Any).unwrap();
        }
        let mapped = MAPPED[bits.below(MAPPED.len())];
        let most = (kernel.memory(mapped).len() / 8).min(200);
        kernel.memory(mapped).word(8 * bits.below(most)).store(bits.word());
        let before = if round % 100 == 0 { tables(&**kernel) } else { Vec::new() };
        for frame in &frames {
            let port = ports[bits.below(ports.len())];
            plant(&*installer.w.kernel, frame, 1, &mut bits);
            let around =
                Around { kernel: &*installer.w.kernel, names: &installer.w.names, seed: SEED, commits: true };
            met.walk(&around, port, frame);
        }
        if !before.is_empty() {
            // Records of flows were planted; all else is as it was.
            let after = tables(&*installer.w.kernel);
            let differing = before.iter().zip(&after).filter(|(before, after)| before != after).count();
            assert!(differing <= 2, "{differing} tables have changed");
        }
    }
    assert!(met.walks > 5000 && met.text.contains("[service pods 10.96.0.1:80 tcp]"));
}

#[test]
fn every_number_that_leads_nowhere_is_told_and_ends_as_the_programs_end_it() {
    use crate::sys::{NEXT_HOPS, ROUTES};
    let mut installer = node();
    let frame = loxi_conformance::build(PACKETS[3]).unwrap();
    let port = installer.w.names.ports.number(&"hs1".parse().unwrap()).unwrap();
    let told = |installer: &Installer| {
        let around =
            Around { kernel: &*installer.w.kernel, names: &installer.w.names, seed: SEED, commits: true };
        explain(&around, port, &frame, NOW, &Question::default()).unwrap()
    };
    let whole = told(&installer).trace.to_string();
    assert!(whole.contains("[route pods 10.244.2.0/24] -> next hop n2"), "{whole}");
    let prefix = |key: &loxi_ebpf_layout::l3::Route| key.addr == Addr::v4([10, 244, 2, 0]);
    let (key, target) =
        installer.w.kernel.all(ROUTES).unwrap().into_iter().find(|(key, _)| prefix(key)).unwrap();
    let far = installer.w.kernel.length(NEXT_HOPS) + 5;
    installer.w.kernel.set(ROUTES, &key, &far).unwrap();
    let dangling = told(&installer);
    assert!(dangling.trace.to_string().contains(&format!("next hop {far}, beyond the table's end")));
    // What has no next hop has no route: the pod is told so.
    assert_eq!(dangling.fate.to_string(), "punted(icmp_to_build)");
    installer.w.kernel.set(ROUTES, &key, &(far - 100)).unwrap();
    let empty = told(&installer);
    assert!(empty.trace.to_string().contains("of no kind"), "{}", empty.trace);
    installer.w.kernel.set(ROUTES, &key, &target).unwrap();
    assert_eq!(told(&installer).trace.to_string(), whole);
}
