//! The kernel and the reference, side by side.
//!
//! A [`Scenario`] makes steps, each a frame or the fragments of one packet. Both sides get
//! them; what comes out must be equal: the ports, the bytes. Free choices (SNAT port, outer source port,
//! identification) are not normalised away: the reference is made to choose as the kernel did, if it finds
//! that admissible.
//!
//! Normalised is only what no standard decides, see [`normalise`]:
//! 1. identification and DF of ICMP messages that the device makes itself (RFC 6864 section 4.1);
//! 2. identification of tunnel headers with DF set (the same).
//!
//! The kernel's multicast reports and router solicitations, which no packet asked for, are not
//! counted as output.

mod differences;
mod kernel;
mod model;

pub use differences::{Known, Shape};
pub use kernel::{Device, Kernel};
pub use model::Model;

use crate::random::Random;
use crate::wire::{self, ETH, hex, set_word};
use loxi_core::dataplane::Injected;
use loxi_core::packet::{Choice, ChoicePoint};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A frame at a port, which is a number here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The port.
    pub port: usize,
    /// From the destination MAC on.
    pub bytes: Vec<u8>,
}

/// What is sent in and compared as one.
#[derive(Debug, Clone)]
pub struct Step {
    /// In words, for a failure.
    pub what: String,
    /// A frame, or the fragments of a packet, in order.
    pub frames: Vec<Frame>,
    /// The difference that it may lead to.
    pub may: Option<Known>,
}

/// A job that both sides are configured for, and its traffic.
pub trait Scenario {
    /// Addresses of the device, as which it speaks itself.
    fn own(&self) -> Vec<IpAddr>;
    /// The next step.
    fn step(&mut self, random: &mut Random) -> Step;
    /// Both sides agreed that this came of the step.
    fn agreed(&mut self, _step: &Step, _outputs: &[Frame]) {}
    /// The sides differed as they may: what they know may differ from now on.
    fn differed(&mut self, _step: &Step) {}
}

/// What a run has shown.
#[derive(Debug, Default)]
pub struct Summary {
    /// Packets that both sides got.
    pub packets: usize,
    /// Packets of which something came out.
    pub answered: usize,
    /// Frames that were compared byte by byte.
    pub compared: usize,
    /// Ports and identifications that were chosen as the kernel chose them.
    pub choices: usize,
    /// Differences that occurred.
    pub differences: BTreeMap<Known, usize>,
    /// What the reference sent.
    pub emitted: Vec<Vec<u8>>,
    /// What was neither equal nor listed.
    pub failures: Vec<String>,
}

impl Summary {
    /// Fails unless enough was compared, nothing unlisted occurred and everything listed did.
    pub fn assert(&self, name: &str, packets: usize, answered_percent: usize, listed: &[Known]) {
        println!(
            "{name}: {} packets, {} answered, {} frames compared, {} choices followed, differences {:?}",
            self.packets, self.answered, self.compared, self.choices, self.differences
        );
        assert!(self.failures.is_empty(), "{name}: {}", self.failures.join("\n"));
        assert!(self.packets >= packets, "{name}: only {} packets", self.packets);
        let share = self.answered * 100 / self.packets.max(1);
        assert!(share >= answered_percent, "{name}: only {share} % of the packets led to anything");
        let missing: Vec<_> = listed.iter().filter(|d| !self.differences.contains_key(d)).collect();
        assert!(missing.is_empty(), "{name}: listed, but no longer different: {missing:?}");
    }
}

/// Failures after which a run stops: what follows is mostly their consequence.
const ENOUGH: usize = 8;

/// Runs a scenario's steps through both sides.
pub fn run(
    kernel: &mut Kernel,
    model: &mut Model,
    scenario: &mut dyn Scenario,
    seed: u64,
    steps: usize,
    listed: &[Known],
) -> Summary {
    let mut random = Random::new(seed);
    let mut summary = Summary::default();
    kernel.settle();
    for index in 0..steps {
        let step = scenario.step(&mut random);
        let hoped = step.may.is_some_and(|known| matches!(known.shape(), Shape::KernelOnly));
        let theirs = kernel.exchange(&step.frames, model.outputs(&step.frames), hoped);
        let injected = model.run(&step.frames, &theirs);
        let ours = outputs(model, &injected);
        summary.packets += step.frames.len();
        summary.answered += if ours.is_empty() { 0 } else { step.frames.len() };
        summary.emitted.extend(ours.iter().map(|frame| frame.bytes.clone()));
        let own = scenario.own();
        match judge(&step, &theirs, &ours, &own, listed) {
            Judgement::Equal => {
                summary.compared += ours.len();
                summary.choices +=
                    injected.iter().flat_map(|i| &i.choices).filter(|choice| is_seen(choice)).count();
                scenario.agreed(&step, &ours);
            }
            Judgement::Listed(differences) => {
                if differences.iter().all(|known| matches!(known.shape(), Shape::Bytes(_))) {
                    summary.compared += ours.len();
                    scenario.agreed(&step, &ours);
                } else {
                    scenario.differed(&step);
                }
                for known in differences {
                    *summary.differences.entry(known).or_default() += 1;
                }
            }
            Judgement::Unlisted => {
                summary.failures.push(describe(index, &step, &theirs, &ours, &injected));
                scenario.differed(&step);
                if summary.failures.len() >= ENOUGH {
                    break;
                }
            }
        }
    }
    assert_eq!(model.unaccounted(), 0, "every packet is counted by its fate");
    summary
}

fn outputs(model: &Model, injected: &[Injected]) -> Vec<Frame> {
    let outputs = injected.iter().flat_map(|injected| &injected.verdict.outputs);
    let mut frames: Vec<Frame> = outputs
        .map(|output| Frame { port: model.number(&output.port), bytes: output.bytes.clone() })
        .collect();
    frames.sort_by_key(|frame| frame.port);
    frames
}

/// Whether a choice can be followed: what was chosen is in the kernel's frame. With one endpoint per service
/// the others are none.
fn is_seen(choice: &Choice) -> bool {
    !matches!(choice.point, ChoicePoint::Backend { .. })
}

enum Judgement {
    Equal,
    Listed(Vec<Known>),
    Unlisted,
}

fn judge(step: &Step, theirs: &[Frame], ours: &[Frame], own: &[IpAddr], listed: &[Known]) -> Judgement {
    let (theirs, ours) = (normalised(theirs, own), normalised(ours, own));
    if theirs == ours {
        return Judgement::Equal;
    }
    let may = step.may.filter(|known| listed.contains(known));
    let whole = |known: Known| match known.shape() {
        Shape::KernelOnly => !theirs.is_empty() && ours.is_empty(),
        Shape::ReferenceOnly => theirs.is_empty() && !ours.is_empty(),
        Shape::Count => !ours.is_empty() && theirs.len() == ours.len(),
        Shape::Bytes(_) => false,
    };
    if let Some(known) = may.filter(|known| whole(*known)) {
        return Judgement::Listed(vec![known]);
    }
    // Several may meet in one frame: the fewest that explain it.
    let equal = |with: &[Known]| patched(&theirs, with) == patched(&ours, with);
    let mut needed: Vec<Known> =
        listed.iter().copied().filter(|known| matches!(known.shape(), Shape::Bytes(_))).collect();
    if !equal(&needed) {
        return Judgement::Unlisted;
    }
    for known in needed.clone() {
        let others: Vec<Known> = needed.iter().copied().filter(|other| *other != known).collect();
        if equal(&others) {
            needed = others;
        }
    }
    Judgement::Listed(needed)
}

fn patched(frames: &[Frame], with: &[Known]) -> Vec<Frame> {
    let patched = |frame: &Frame| {
        let mut frame = frame.clone();
        for known in with {
            if let Shape::Bytes(equalise) = known.shape() {
                equalise(&mut frame.bytes);
            }
        }
        frame
    };
    frames.iter().map(patched).collect()
}

fn normalised(frames: &[Frame], own: &[IpAddr]) -> Vec<Frame> {
    let one = |frame: &Frame| {
        let mut frame = frame.clone();
        normalise(&mut frame.bytes, own);
        frame
    };
    frames.iter().map(one).collect()
}

/// Clears what a device is free to choose, see the module's docs.
pub fn normalise(frame: &mut [u8], own: &[IpAddr]) {
    if let Some(inner) = wire::encapsulated(frame) {
        normalise(&mut frame[inner..], own);
    }
    let by_device = wire::addresses(frame).is_some_and(|(src, _)| own.contains(&src));
    if wire::is_v4(frame) && by_device {
        let is_icmp = frame[ETH + 9] == 1;
        let has_df = frame[ETH + 6] & 0x40 != 0;
        if is_icmp || has_df {
            set_word(frame, ETH + 4, 0);
        }
        if is_icmp {
            frame[ETH + 6] &= !0x40;
        }
        wire::fix_header(frame);
    }
}

fn describe(index: usize, step: &Step, theirs: &[Frame], ours: &[Frame], injected: &[Injected]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("\nstep {index}: {} (may {:?})\n", step.what, step.may);
    let list = |text: &mut String, who: &str, frames: &[Frame]| {
        for frame in frames {
            // A String takes everything.
            let _ = writeln!(text, "  {who} port {}: {}", frame.port, hex(&frame.bytes));
        }
    };
    list(&mut text, "in       ", &step.frames);
    list(&mut text, "kernel   ", theirs);
    list(&mut text, "reference", ours);
    for injected in injected {
        let _ = writeln!(text, "  fate {}, choices {:?}", injected.verdict.fate, injected.choices);
        for trace in &injected.trace.steps {
            let _ = writeln!(text, "    {:?}: {} -> {}", trace.stage, trace.key, trace.effect);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(port: usize, ttl: u8) -> Frame {
        let mut bytes = vec![0; 60];
        set_word(&mut bytes, 12, 0x0800);
        bytes[ETH] = 0x45;
        bytes[ETH + 8] = ttl;
        Frame { port, bytes }
    }

    fn verdict(theirs: &[Frame], ours: &[Frame], may: Option<Known>, listed: &[Known]) -> Option<Vec<Known>> {
        let step = Step { what: String::new(), frames: Vec::new(), may };
        match judge(&step, theirs, ours, &[], listed) {
            Judgement::Equal => Some(Vec::new()),
            Judgement::Listed(known) => Some(known),
            Judgement::Unlisted => None,
        }
    }

    #[test]
    fn any_byte_port_or_frame_counts() {
        let one = [frame(0, 64)];
        assert_eq!(verdict(&one, &one, None, Known::ALL), Some(vec![]));
        assert_eq!(verdict(&one, &[frame(0, 63)], None, Known::ALL), None);
        assert_eq!(verdict(&one, &[frame(1, 64)], None, Known::ALL), None);
        assert_eq!(verdict(&one, &[frame(0, 64), frame(1, 64)], None, Known::ALL), None);
        assert_eq!(verdict(&one, &[], None, Known::ALL), None);
        assert_eq!(verdict(&[], &one, None, Known::ALL), None);
    }

    #[test]
    fn a_difference_must_be_listed_by_the_scenario_and_meant_by_the_step() {
        let one = [frame(0, 64)];
        let known = Known::UntrustedPeer;
        assert_eq!(verdict(&one, &[], Some(known), &[known]), Some(vec![known]));
        assert_eq!(verdict(&one, &[], Some(known), &[]), None);
        assert_eq!(verdict(&one, &[], None, &[known]), None);
        assert_eq!(verdict(&[], &one, Some(known), &[known]), None, "the other way round");
    }
}
