//! A kernel in which any call that changes something can fail.

use super::{Entries, Kernel, KernelError, Memory, Put, Table};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which call fails, counted from 0 since it was set; all ones: none.
#[derive(Debug, Clone)]
pub struct Faults {
    fail_at: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { fail_at: Arc::new(AtomicU64::new(u64::MAX)), calls: Arc::default() }
    }
}

impl Faults {
    /// Lets the given call from now on fail; `None`: none.
    pub fn fail_at(&self, call: Option<u64>) {
        self.calls.store(0, Ordering::SeqCst);
        self.fail_at.store(call.unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Calls since it was set.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn check(&self, call: &'static str, table: Table) -> Result<(), KernelError> {
        let now = self.calls.fetch_add(1, Ordering::SeqCst);
        if now != self.fail_at.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(KernelError {
            call,
            object: table.name().to_owned(),
            source: io::Error::other("failed as the fault plan wants"),
        })
    }
}

/// A kernel with faults.
pub struct FaultyKernel {
    inner: Box<dyn Kernel>,
    faults: Faults,
}

impl FaultyKernel {
    /// Lets calls to `inner` fail as `faults` say.
    #[must_use]
    pub fn new(inner: Box<dyn Kernel>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

impl Kernel for FaultyKernel {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8], how: Put) -> Result<(), KernelError> {
        self.faults.check("put into", table)?;
        self.inner.put(table, key, value, how)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, KernelError> {
        self.faults.check("remove from", table)?;
        self.inner.remove(table, key)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.inner.get(table, key)
    }

    fn longest(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        self.inner.longest(table, key)
    }

    fn entries(&self, table: Table) -> Result<Entries, KernelError> {
        self.inner.entries(table)
    }

    fn capacity(&self, table: Table) -> u32 {
        self.inner.capacity(table)
    }

    fn memory(&self, table: Table) -> &Memory {
        self.inner.memory(table)
    }

    fn set_quiet(&mut self, quiet: bool) {
        self.inner.set_quiet(quiet);
    }

    fn grace(&mut self) -> Result<(), KernelError> {
        self.faults.check("grace period of", Table::Globals)?;
        self.inner.grace()
    }

    fn publish(&mut self, table: Table, offset: usize, word: u64) -> Result<(), KernelError> {
        self.faults.check("publish in", table)?;
        self.inner.publish(table, offset, word)
    }
}
