//! How free choices travel to the programs, and what they chose back.

use crate::sys::{Kernel, LISTS, VERSIONS};
use loxi_core::dataplane::ChoiceMode;
use loxi_core::packet::{Choice, ChoicePoint, ChoiceSource};
use loxi_ebpf_layout::limits::CHOICES;
use loxi_ebpf_layout::scratch::{Answer, Question, choice};
use std::collections::VecDeque;

/// Choices of a request, packet by packet.
///
/// The programs make their choices by themselves, from values or random bits that they
/// are given before; a slow path is asked one by one.
#[derive(Debug)]
pub(crate) struct Choices {
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    First,
    Seed(u64),
    Recorded(VecDeque<u64>),
}

impl Choices {
    pub(crate) fn new(mode: &ChoiceMode) -> Self {
        Self {
            mode: match mode {
                ChoiceMode::First => Mode::First,
                ChoiceMode::Seed(seed) => Mode::Seed(*seed),
                ChoiceMode::Recorded(choices) => Mode::Recorded(choices.iter().map(|c| c.value).collect()),
            },
        }
    }

    /// What the programs are told of the next packet's choices.
    pub(crate) fn question(&mut self) -> Question {
        let mut question = Question::default();
        match &mut self.mode {
            Mode::First => question.first = 1,
            Mode::Seed(seed) => {
                *seed = mixed(*seed);
                (question.seeded, question.random) = (1, (*seed >> 32) as u32);
            }
            Mode::Recorded(values) => {
                question.first = 1;
                for (to, value) in question.values.iter_mut().zip(values.iter()) {
                    *to = *value;
                    question.count += 1;
                }
            }
        }
        question
    }

    /// The programs have made so many choices.
    pub(crate) fn made(&mut self, count: usize) {
        if let Mode::Recorded(values) = &mut self.mode {
            values.drain(..count.min(values.len()));
        }
    }

    /// A source for the slow path, which goes on where the packet's choices begin.
    pub(crate) fn source(&mut self) -> Box<dyn ChoiceSource + '_> {
        match &mut self.mode {
            Mode::First => Box::new(loxi_core::packet::FirstChoice),
            Mode::Seed(seed) => Box::new(loxi_core::packet::SeededChoices::new(*seed)),
            Mode::Recorded(values) => Box::new(Replay(values)),
        }
    }
}

/// SplitMix64's output function: neighbouring seeds give unlike bits.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Replay<'a>(&'a mut VecDeque<u64>);

impl ChoiceSource for Replay<'_> {
    fn choose(&mut self, point: &ChoicePoint) -> u64 {
        match self.0.pop_front() {
            Some(value) if point.admits(value) => value,
            _ => point.default_value(),
        }
    }
}

/// The choices that an answer tells of.
pub(crate) fn choices_of(kernel: &dyn Kernel, answer: &Answer) -> Vec<Choice> {
    (0..usize::from(answer.choices).min(CHOICES))
        .filter_map(|n| {
            let [first, last, preferred, _] = answer.bounds[n];
            let point = match answer.points[n] {
                choice::BACKEND => ChoicePoint::Backend {
                    weights: weights(kernel, answer.service),
                    preferred: (answer.preferred != u32::MAX).then_some(answer.preferred),
                },
                choice::SNAT_PORT => ChoicePoint::SnatPort { first, last, preferred },
                choice::HAIRPIN_PORT => ChoicePoint::HairpinPort { first, last, preferred },
                choice::ENTROPY => {
                    // The hash itself isn't told; the value that it leads to is the one that was chosen.
                    let hash = u32::try_from(answer.values[n].checked_sub(first.into())?).ok()?;
                    ChoicePoint::Entropy { first, last, hash }
                }
                choice::IDENTIFICATION => ChoicePoint::Identification,
                _ => return None,
            };
            Some(Choice { point, value: answer.values[n] })
        })
        .collect()
}

/// Weights of the endpoints of a version of a service; its place is one less than the number told.
fn weights(kernel: &dyn Kernel, told: u32) -> Vec<u32> {
    let Some(place) = told.checked_sub(1) else { return Vec::new() };
    let version = kernel.at(VERSIONS, place);
    let mut before = 0;
    (version.list..version.list.saturating_add(version.count))
        .map(|place| {
            let up_to = kernel.at(LISTS, place).up_to;
            let weight = up_to.saturating_sub(before);
            before = up_to;
            weight
        })
        .collect()
}
