//! Plans in the kernel.

mod names;

pub use names::{NameError, Named, Names, Space};
