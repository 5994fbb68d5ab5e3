//! A kernel that asks the programs about packets after every call that changes something.

use super::judge::{Frame, Judged, ask};
use crate::install::Names;
use crate::run::Asker;
use crate::sys::{Entries, Kernel, KernelError, Memory, Put, Table};
use loxi_ebpf_layout::scratch::Question;
use std::sync::{Arc, Mutex};

/// What is asked, and what was answered.
pub(super) struct Watch {
    pub(super) asker: Asker,
    /// Ports never change, so these are as good as any.
    pub(super) names: Names,
    pub(super) frames: Vec<Frame>,
    pub(super) question: Question,
    /// Different answers for each packet, with the call after which each was seen first.
    pub(super) seen: Vec<Vec<(Judged, String)>>,
    pub(super) calls: u64,
}

impl Watch {
    /// Looks at these packets from now on.
    pub(super) fn at(&mut self, frames: Vec<Frame>, question: Question) {
        self.seen = vec![Vec::new(); frames.len()];
        (self.frames, self.question) = (frames, question);
    }

    pub(super) fn look(&mut self, kernel: &dyn Kernel, call: &str, table: Table) {
        if self.frames.is_empty() {
            return;
        }
        self.calls += 1;
        for (frame, seen) in self.frames.iter().zip(&mut self.seen) {
            let judged = ask(&mut self.asker, kernel, &self.names, frame, &self.question, false);
            let judged = judged.unwrap_or_else(|error| panic!("{error}"));
            if !seen.iter().any(|(known, _)| *known == judged) {
                seen.push((judged, format!("call {}: {call} {}", self.calls, table.name())));
            }
        }
    }
}

/// The kernel.
pub(super) struct Watched {
    pub(super) inner: Box<dyn Kernel>,
    pub(super) watch: Arc<Mutex<Watch>>,
}

impl Watched {
    fn look(&self, call: &str, table: Table) {
        // Programs don't read names.
        if table != Table::Names {
            self.watch.lock().unwrap().look(&*self.inner, call, table);
        }
    }
}

impl Kernel for Watched {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8], how: Put) -> Result<(), KernelError> {
        self.inner.put(table, key, value, how)?;
        self.look("put into", table);
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<bool, KernelError> {
        let was = self.inner.remove(table, key)?;
        self.look("remove from", table);
        Ok(was)
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
        self.inner.grace()
    }

    fn publish(&mut self, table: Table, offset: usize, word: u64) -> Result<(), KernelError> {
        self.inner.publish(table, offset, word)?;
        self.look("publish in", table);
        Ok(())
    }
}
