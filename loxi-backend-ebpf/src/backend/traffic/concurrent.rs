//! Packets run on one processor while changes are made on another.

use super::judge::{Frame, Judged, admitted, ask, told};
use super::stand::{EPISODE, Stand};
use super::{changes, seed};
use crate::Mode;
use crate::install::Names;
use crate::run::{Asker, Choices, Hook};
use crate::sys::{Map, RealKernel, Table, cpus, get_pinned};
use loxi_core::dataplane::ChoiceMode;
use loxi_ebpf_layout::scratch::Question;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whoever runs packets has the tables and the programs for himself.
struct Runner {
    asker: Asker,
    kernel: RealKernel,
    names: Names,
}

/// Different answers for each packet: those before a change, those until it stood, and those after.
struct Seen {
    first: Vec<Judged>,
    all: Vec<Vec<Judged>>,
    last: Vec<Judged>,
}

impl Runner {
    fn new(stand: &mut Stand) -> Self {
        let inner = stand.ebpf.inner.get_mut();
        let open = |table: &Table| {
            let fd = get_pinned(&inner.place.at(table.name())).unwrap();
            (*table, Map::new(fd).unwrap())
        };
        let kernel = RealKernel::new(Table::ALL.iter().map(open).collect()).unwrap();
        let program = inner.tc.as_ref().unwrap().ask.try_clone().unwrap();
        Self { asker: Asker::new(program, Hook::Tc), kernel, names: Names::default() }
    }

    /// Every packet once; those of connections that are there also as ones that are kept.
    fn round(&mut self, frames: &[Frame], question: &Question) -> Vec<Judged> {
        let mut judge = |frame: &Frame, commit: bool| {
            ask(&mut self.asker, &self.kernel, &self.names, frame, question, commit).unwrap()
        };
        frames
            .iter()
            .map(|frame| {
                // What is kept takes a decision along, which must not outlive the change.
                if frame.known && !frame.replaces {
                    judge(frame, true);
                }
                judge(frame, false)
            })
            .collect()
    }

    /// Runs packets until the change stands, and then once more.
    fn run(
        &mut self,
        frames: &[Frame],
        question: &Question,
        rounds: &AtomicU64,
        stands: &AtomicBool,
    ) -> Seen {
        let first = self.round(frames, question);
        let mut all: Vec<Vec<Judged>> = first.iter().map(|judged| vec![judged.clone()]).collect();
        rounds.fetch_add(1, Ordering::SeqCst);
        while !stands.load(Ordering::SeqCst) {
            for (seen, judged) in all.iter_mut().zip(self.round(frames, question)) {
                if !seen.contains(&judged) {
                    seen.push(judged);
                }
            }
            rounds.fetch_add(1, Ordering::SeqCst);
        }
        Seen { first, all, last: self.round(frames, question) }
    }
}

/// Keeps the calling thread on the last processor.
fn keep_to_one_processor() {
    let last = cpus().unwrap() - 1;
    let mut set = CpuSet::new();
    set.set(last);
    // Where that one may not be used, the threads find their places by themselves.
    let _ = sched_setaffinity(None, &set);
}

#[test]
fn no_packet_is_judged_by_a_mixture_while_others_run() {
    if !super::privileged("no_packet_is_judged_by_a_mixture_while_others_run") {
        return;
    }
    let (seed, changes) = (seed() ^ 0x5eed, changes(250));
    println!("{changes} changes under traffic from seed {seed}");
    let mut stand = Stand::new(Mode::Tc, seed);
    // Programs run without being asked: what they may still read is waited for.
    stand.ebpf.inner.get_mut().installer.w.kernel.set_quiet(false);
    let mut runner = Runner::new(&mut stand);
    let (mut all_rounds, mut differed, mut between) = (0, 0u64, 0u64);
    for number in 0..changes {
        if number % EPISODE == 0 {
            stand.begin();
            runner.names = Names::load(&runner.kernel).unwrap();
        }
        let frames = stand.frames();
        let (new, change) = stand.next_change();
        stand.sides.change(&change);
        let question = Choices::new(&ChoiceMode::Seed(stand.dice.word())).question();
        let (rounds, stands) = (AtomicU64::new(0), AtomicBool::new(false));
        let seen = std::thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                keep_to_one_processor();
                runner.run(&frames, &question, &rounds, &stands)
            });
            while rounds.load(Ordering::SeqCst) == 0 && !traffic.is_finished() {
                std::thread::yield_now();
            }
            stand.install(&new, &change);
            stands.store(true, Ordering::SeqCst);
            traffic.join().unwrap()
        });
        all_rounds += rounds.into_inner();
        for (n, frame) in frames.iter().enumerate() {
            let (first, last) = (&seen.first[n], &seen.last[n]);
            differed += u64::from(first != last);
            between += u64::from(seen.all[n].len() > 1);
            for judged in &seen.all[n] {
                let is_one = admitted(&stand.sides, frame, judged, [first, last]);
                assert!(is_one, "{}", told(&stand.sides, frame, judged, &change, seed, number));
            }
            let is_after =
                last.unfinished || frame.replaces || super::judge::is_of(&stand.sides.after, frame, last);
            assert!(is_after, "after it: {}", told(&stand.sides, frame, last, &change, seed, number));
        }
        stand.sides.follow(&change);
        stand.pipeline = new;
    }
    println!(
        "{all_rounds} rounds; {differed} packets came to something else, {between} of them before it stood"
    );
    assert!(
        all_rounds > changes && differed > changes / 2 && between > changes / 20,
        "too few to show anything"
    );
}
