//! Plans in the kernel.

mod apply;
mod attached;
mod decode;
mod encode;
mod forget;
mod names;
mod pool;
mod ranges;
mod writer;

pub use apply::{Installer, UndoInstall};
pub use attached::{Attached, Device};
pub use decode::Stray;
pub(crate) use decode::ip_of;
pub use names::{Exhausted, Named, Names, Space};
