//! Numbers that follow from a seed.

/// SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`.
    pub(super) fn roll(&mut self, limit: u64) -> u64 {
        self.word() % limit
    }

    /// Once in `n` rolls.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    /// One of several; none of none.
    pub(super) fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.roll(all.len() as u64) as usize].clone())
    }
}
