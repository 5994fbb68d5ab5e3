//! Looking at packets after every single call.

use super::judge::{Frame, admitted, told};
use super::stand::{EPISODE, Stand};
use super::watched::{Watch, Watched};
use super::{changes, seed};
use crate::Mode;
use crate::install::Names;
use crate::run::{Asker, Choices, Hook};
use crate::sys::SimulatedKernel;
use loxi_core::dataplane::{Backend, ChoiceMode};
use std::sync::{Arc, Mutex};

/// What came of a run.
#[derive(Debug, Default)]
struct Totals {
    calls: u64,
    /// Packets of which a change came to something else.
    differed: u64,
    judged: u64,
    unfinished: u64,
}

/// Lets a node be looked at.
fn watched(stand: &mut Stand, mode: Mode) -> Arc<Mutex<Watch>> {
    let inner = stand.ebpf.inner.get_mut();
    let (loaded, hook) = match mode {
        Mode::Xdp => (inner.xdp.as_ref(), Hook::Xdp),
        _ => (inner.tc.as_ref(), Hook::Tc),
    };
    let watch = Arc::new(Mutex::new(Watch {
        asker: Asker::new(loaded.unwrap().ask.try_clone().unwrap(), hook),
        names: Names::default(),
        frames: Vec::new(),
        question: Default::default(),
        seen: Vec::new(),
        calls: 0,
    }));
    let nothing = Box::new(SimulatedKernel::new([2, 2]).unwrap());
    let real = std::mem::replace(&mut inner.installer.w.kernel, nothing);
    inner.installer.w.kernel = Box::new(Watched { inner: real, watch: Arc::clone(&watch) });
    watch
}

fn run(test: &str, mode: Mode, usual: u64) {
    if !super::privileged(test) {
        return;
    }
    let (seed, changes) = (seed(), changes(usual));
    println!("{changes} changes at {mode} from seed {seed}");
    let mut stand = Stand::new(mode, seed);
    let watch = watched(&mut stand, mode);
    let mut totals = Totals::default();
    for number in 0..changes {
        if number % EPISODE == 0 {
            stand.begin();
            watch.lock().unwrap().names =
                Names::load(&*stand.ebpf.inner.get_mut().installer.w.kernel).unwrap();
        }
        stand.refresh();
        let frames = stand.frames();
        let (new, change) = stand.next_change();
        stand.sides.change(&change);
        let question = Choices::new(&ChoiceMode::Seed(stand.dice.word())).question();
        let mut undo = None;
        // Sometimes it is taken back, and comes again.
        let rounds = if stand.dice.one_in(8) { 3 } else { 1 };
        for _ in 0..rounds {
            look(&mut stand, &watch, &frames, question);
            let before = std::mem::take(&mut watch.lock().unwrap().seen);
            watch.lock().unwrap().at(frames.clone(), question);
            match undo.take() {
                Some(undo) => stand.ebpf.undo(undo),
                None => undo = Some(stand.install(&new, &change)),
            }
            let seen = std::mem::take(&mut watch.lock().unwrap().seen);
            look(&mut stand, &watch, &frames, question);
            let after = std::mem::take(&mut watch.lock().unwrap().seen);
            watch.lock().unwrap().at(Vec::new(), question);
            for (n, frame) in frames.iter().enumerate() {
                let (first, last) = (&before[n][0].0, &after[n][0].0);
                totals.differed += u64::from(first != last);
                for (judged, call) in &seen[n] {
                    totals.judged += 1;
                    totals.unfinished += u64::from(judged.unfinished);
                    let is_one = admitted(&stand.sides, frame, judged, [first, last]);
                    assert!(
                        is_one,
                        "{call}: {}\nthe programs had {first:?}, and come to {last:?}",
                        told(&stand.sides, frame, judged, &change, seed, number)
                    );
                }
            }
        }
        if number % 10 == 0 {
            stand.audit(&format!("seed {seed}, change {number}: {change:#?}"));
        }
        stand.sides.follow(&change);
        stand.pipeline = new;
        for _ in 0..3 {
            let frame = stand.dice.of(&frames).unwrap();
            stand.check(&frame);
        }
    }
    totals.calls = watch.lock().unwrap().calls;
    println!("{totals:?}");
    assert!(totals.calls > 2 * changes && totals.differed > changes / 2, "too few to show anything");
    assert!(totals.unfinished * 3 < totals.judged, "most is left to the slow path");
}

/// Asks about every packet as the tables are.
fn look(
    stand: &mut Stand,
    watch: &Mutex<Watch>,
    frames: &[Frame],
    question: loxi_ebpf_layout::scratch::Question,
) {
    let kernel = &*stand.ebpf.inner.get_mut().installer.w.kernel;
    let mut watch = watch.lock().unwrap();
    watch.at(frames.to_vec(), question);
    watch.look(kernel, "before", crate::sys::Table::Globals);
}

#[test]
fn no_packet_is_judged_by_a_mixture_at_tc() {
    run("no_packet_is_judged_by_a_mixture_at_tc", Mode::Tc, 250);
}

#[test]
fn no_packet_is_judged_by_a_mixture_at_xdp() {
    run("no_packet_is_judged_by_a_mixture_at_xdp", Mode::Xdp, 250);
}
