//! Choice points: the closed list of what a dataplane is free to choose.
//!
//! All else is determined by the pipeline, the state and the packet. So that a
//! backend can be compared with the reference bit for bit, every free choice
//! is made by a [`ChoiceSource`], and what was chosen is reported.

/// A choice that must be made, with what is admissible.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ChoicePoint {
    /// An endpoint: the index into the eligible ones, in name order, each with its weight.
    Backend {
        /// Weights of the eligible endpoints.
        weights: Vec<u32>,
        /// The index that the algorithm itself would take; none: any, at random.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        preferred: Option<u32>,
    },
    /// A source port for SNAT, from `first` to `last`, whose tuple must be unique.
    SnatPort {
        /// Lowest.
        first: u16,
        /// Highest.
        last: u16,
        /// Where the search starts unless another choice is made.
        preferred: u16,
    },
    /// A source port for a hairpin.
    HairpinPort {
        /// Lowest.
        first: u16,
        /// Highest.
        last: u16,
        /// Where the search starts unless another choice is made.
        preferred: u16,
    },
    /// The outer source port of an encapsulation, from `first` to `last`.
    Entropy {
        /// Lowest.
        first: u16,
        /// Highest.
        last: u16,
        /// Hash of the inner flow.
        hash: u32,
    },
    /// Identification of an IPv4 header that we make, 0 to 65535.
    Identification,
}

impl ChoicePoint {
    /// Whether a value is admissible as far as the point itself says.
    #[must_use]
    pub fn admits(&self, value: u64) -> bool {
        match self {
            Self::Backend { weights, .. } => {
                usize::try_from(value).is_ok_and(|index| weights.get(index).is_some_and(|weight| *weight > 0))
            }
            Self::SnatPort { first, last, .. }
            | Self::HairpinPort { first, last, .. }
            | Self::Entropy { first, last, .. } => (u64::from(*first)..=u64::from(*last)).contains(&value),
            Self::Identification => value <= u64::from(u16::MAX),
        }
    }

    /// The value that needs no randomness: the first endpoint, the preferred
    /// port, the hashed port, 0.
    #[must_use]
    pub fn default_value(&self) -> u64 {
        match self {
            Self::Backend { preferred: Some(index), .. } => u64::from(*index),
            Self::Backend { weights, preferred: None } => {
                weights.iter().position(|weight| *weight > 0).unwrap_or(0) as u64
            }
            Self::SnatPort { first, last, preferred } | Self::HairpinPort { first, last, preferred } => {
                u64::from(if (first..=last).contains(&preferred) { *preferred } else { *first })
            }
            Self::Entropy { first, last, hash } => {
                let span = u64::from(*last) - u64::from(*first) + 1;
                u64::from(*first) + u64::from(*hash) % span
            }
            Self::Identification => 0,
        }
    }
}

/// A choice that was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// What was to be chosen.
    pub point: ChoicePoint,
    /// The value.
    pub value: u64,
}

/// Makes choices.
pub trait ChoiceSource {
    /// Chooses a value that [`ChoicePoint::admits`]. A value that it doesn't
    /// admit is replaced by [`ChoicePoint::default_value`].
    fn choose(&mut self, point: &ChoicePoint) -> u64;
}

/// Always the value that needs no randomness: makes tests and `explain` repeatable.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstChoice;

impl ChoiceSource for FirstChoice {
    fn choose(&mut self, point: &ChoicePoint) -> u64 {
        point.default_value()
    }
}

/// Replays choices in order, then falls back on [`FirstChoice`].
#[derive(Debug, Clone, Default)]
pub struct RecordedChoices {
    values: std::collections::VecDeque<u64>,
}

impl RecordedChoices {
    /// Replays the values of these choices.
    #[must_use]
    pub fn new(choices: &[Choice]) -> Self {
        Self { values: choices.iter().map(|choice| choice.value).collect() }
    }

    /// Choices that nobody has asked for.
    #[must_use]
    pub fn left(&self) -> usize {
        self.values.len()
    }
}

impl ChoiceSource for RecordedChoices {
    fn choose(&mut self, point: &ChoicePoint) -> u64 {
        self.values.pop_front().unwrap_or_else(|| point.default_value())
    }
}

/// Pseudo-random choices from a seed (SplitMix64): not for secrets.
#[derive(Debug, Clone)]
pub struct SeededChoices {
    state: u64,
}

impl SeededChoices {
    /// Choices that depend on the seed alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl ChoiceSource for SeededChoices {
    fn choose(&mut self, point: &ChoicePoint) -> u64 {
        let random = self.next();
        match point {
            ChoicePoint::Backend { preferred: Some(index), .. } => u64::from(*index),
            ChoicePoint::Backend { weights, preferred: None } => {
                let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
                let mut left = if total == 0 { 0 } else { random % total };
                for (index, weight) in weights.iter().enumerate() {
                    if left < u64::from(*weight) {
                        return index as u64;
                    }
                    left -= u64::from(*weight);
                }
                point.default_value()
            }
            // Ports are kept where they are free, and entropy must be the flow's own.
            ChoicePoint::SnatPort { first, last, preferred }
            | ChoicePoint::HairpinPort { first, last, preferred } => {
                if (first..=last).contains(&preferred) {
                    u64::from(*preferred)
                } else {
                    u64::from(*first) + random % (u64::from(*last) - u64::from(*first) + 1)
                }
            }
            ChoicePoint::Entropy { .. } => point.default_value(),
            ChoicePoint::Identification => random & 0xffff,
        }
    }
}
