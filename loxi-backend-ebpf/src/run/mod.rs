//! Frames that somebody asks about.

mod ask;
mod question;
mod verdict;

pub(crate) use ask::{Asked, Asker, Hook, LENGTHS};
pub(crate) use question::{Choices, choices_of};
pub(crate) use verdict::{fate_of, trace_of, verdict_of};
