//! The one place of system calls: tables, programs, hooks.
//!
//! [`Kernel`] is what the backend asks for; [`RealKernel`] does it, [`SimulatedKernel`] models it in
//! memory, and [`FaultyKernel`] lets any call fail that changes something, so that undoing can be tested.

mod faulty;
mod memory;
mod raw;
mod real;
mod simulated;
mod table;

pub use faulty::{Faults, FaultyKernel};
pub use memory::{Memory, Word};
pub use raw::cpus;
pub(crate) use raw::grace as wait_for_readers;
pub(crate) use raw::{
    Attached, Link, LinkTarget, Map, MapKind, Program, ProgramKind, at_tcx, get_pinned, pin, program_named,
    program_of,
};
pub use real::{Footprint, RealKernel};
pub use simulated::SimulatedKernel;
pub use table::*;

use loxi_ebpf_layout::Plain;
use std::io;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} {object}: {source}")]
pub struct KernelError {
    /// What was asked.
    pub call: &'static str,
    /// Of what.
    pub object: String,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Whether a key may or must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Put {
    /// It may.
    Any = 0,
    /// It must not.
    New = 1,
    /// It must.
    Old = 2,
}

/// What a program returned for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its value.
    pub action: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Nanoseconds per run, as the kernel says.
    pub ns: u32,
}

/// Keys and values of a table.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Tables by bytes. Arrays that are mapped are read and written through [`Kernel::memory`].
pub trait Kernel: Send {
    /// Puts a value.
    ///
    /// # Errors
    /// [`KernelError`]; then nothing has changed.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8], how: Put) -> Result<(), KernelError>;

    /// Takes a key out; whether it was there.
    ///
    /// # Errors
    /// [`KernelError`]; then nothing has changed.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, KernelError>;

    /// A key's value, in a table of prefixes too that of the key itself; of tables with one per processor, all
    /// of them, each rounded up to 8 bytes.
    ///
    /// # Errors
    /// [`KernelError`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError>;

    /// The value of the longest prefix of a key, in a table of prefixes.
    ///
    /// # Errors
    /// [`KernelError`].
    fn longest(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.get(table, key)
    }

    /// Every key and value, in no order. One that is changed meanwhile may be there or not.
    ///
    /// # Errors
    /// [`KernelError`].
    fn entries(&self, table: Table) -> Result<Entries, KernelError>;

    /// How many entries a table has room for.
    fn capacity(&self, table: Table) -> u32;

    /// The memory of a mapped array.
    fn memory(&self, table: Table) -> &Memory;

    /// Whether programs run only when this process asks them: nothing is bound to a device. Then
    /// nobody needs to be waited for.
    fn set_quiet(&mut self, _quiet: bool) {}

    /// Waits until every program that runs now has ended.
    ///
    /// # Errors
    /// [`KernelError`].
    fn grace(&mut self) -> Result<(), KernelError>;

    /// Writes a word of a mapped array: where the fault plan of a test can step in.
    ///
    /// # Errors
    /// [`KernelError`]; then nothing has changed.
    fn publish(&mut self, table: Table, offset: usize, word: u64) -> Result<(), KernelError> {
        self.memory(table).word(offset).store(word);
        Ok(())
    }
}

/// Bytes from one element of an array to the next: the kernel lets each begin at a word.
const fn stride<V>() -> usize {
    size_of::<V>().next_multiple_of(8)
}

impl dyn Kernel + '_ {
    /// [`Kernel::put`] with types.
    ///
    /// # Errors
    /// As it.
    pub fn set<K: Plain, V: Plain>(
        &mut self,
        table: Typed<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), KernelError> {
        self.put(table.table, bytes(key), bytes(value), Put::Any)
    }

    /// [`Kernel::remove`] with types.
    ///
    /// # Errors
    /// As it.
    pub fn unset<K: Plain, V: Plain>(&mut self, table: Typed<K, V>, key: &K) -> Result<bool, KernelError> {
        self.remove(table.table, bytes(key))
    }

    /// [`Kernel::get`] with types.
    ///
    /// # Errors
    /// As it.
    pub fn look<K: Plain, V: Plain>(&self, table: Typed<K, V>, key: &K) -> Result<Option<V>, KernelError> {
        Ok(self.get(table.table, bytes(key))?.and_then(|found| value(&found)))
    }

    /// [`Kernel::entries`] with types.
    ///
    /// # Errors
    /// As it.
    pub fn all<K: Plain, V: Plain>(&self, table: Typed<K, V>) -> Result<Vec<(K, V)>, KernelError> {
        let found = self.entries(table.table)?;
        Ok(found.iter().filter_map(|(k, v)| Some((value(k)?, value(v)?))).collect())
    }

    /// An element of a mapped array.
    #[must_use]
    pub fn at<V: Plain>(&self, table: Typed<u32, V>, index: u32) -> V {
        self.memory(table.table).read(index as usize * stride::<V>())
    }

    /// Writes an element of a mapped array that nobody reads yet.
    pub fn fill<V: Plain>(&self, table: Typed<u32, V>, index: u32, value: &V) {
        self.memory(table.table).write(index as usize * stride::<V>(), value);
    }

    /// How many elements a mapped array has.
    #[must_use]
    pub fn length<V: Plain>(&self, table: Typed<u32, V>) -> u32 {
        u32::try_from(self.memory(table.table).len() / stride::<V>()).unwrap_or(u32::MAX)
    }
}
