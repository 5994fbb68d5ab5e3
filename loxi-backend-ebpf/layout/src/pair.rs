//! An entity in two halves, of which a selector says which one is read.
//!
//! A changed entity is written to the half that nobody reads, then the selector
//! flips: a packet sees the old one or the new one, never a mix. The other half
//! may be written again only after every program that could have read it has
//! ended (a grace period).

use crate::Plain;

/// Two halves and their selector.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Pair<T> {
    /// 0 or 1: the half that is read.
    pub which: u64,
    /// The halves.
    pub halves: [T; 2],
}

// SAFETY: a u64 and two halves without padding whose size is a multiple of 8, which the
// constant below holds every use to.
unsafe impl<T: Plain> Plain for Pair<T> {}

impl<T> Pair<T> {
    /// Whether the halves leave no padding.
    pub const DENSE: () =
        assert!(core::mem::size_of::<T>().is_multiple_of(8) && core::mem::align_of::<T>() <= 8);
}

impl<T: Copy> Pair<T> {
    /// The half that is read.
    #[must_use]
    #[inline(always)]
    pub fn current(&self) -> &T {
        if self.which & 1 == 0 { &self.halves[0] } else { &self.halves[1] }
    }

    /// Which half is read.
    #[must_use]
    #[inline(always)]
    pub fn selected(&self) -> u8 {
        (self.which & 1) as u8
    }

    /// A half by its number.
    #[must_use]
    #[inline(always)]
    pub fn half(&self, number: u8) -> &T {
        if number & 1 == 0 { &self.halves[0] } else { &self.halves[1] }
    }

    /// The half that isn't read: what comes next, or what was before.
    #[must_use]
    #[inline(always)]
    pub fn other(&self) -> &T {
        self.half(self.selected() ^ 1)
    }
}
