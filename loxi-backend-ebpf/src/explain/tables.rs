//! Entries as a program finds them: by key, and nowhere beyond a table's end.

use crate::install::Names;
use crate::sys::{Kernel, KernelError, Typed, bytes, value};
use loxi_ebpf_layout::l3::{FIXED_BITS, Member};
use loxi_ebpf_layout::pair::Pair;
use loxi_ebpf_layout::{Addr, Plain, family};
use std::cell::RefCell;

/// The tables, and the names of the numbers in them.
pub(super) struct Tables<'a> {
    pub(super) kernel: &'a dyn Kernel,
    pub(super) names: &'a Names,
    failed: RefCell<Option<KernelError>>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(kernel: &'a dyn Kernel, names: &'a Names) -> Self {
        Self { kernel, names, failed: RefCell::default() }
    }

    /// The first read that failed: whatever was concluded since is worth nothing.
    pub(super) fn failure(&self) -> Option<KernelError> {
        self.failed.take()
    }

    /// An element of an array; `None`: the array is shorter.
    pub(super) fn array<V: Plain>(&self, table: Typed<u32, V>, index: u32) -> Option<V> {
        (index < self.kernel.length(table)).then(|| self.kernel.at(table, index))
    }

    /// The half of an element that packets read.
    pub(super) fn current<T: Plain>(&self, table: Typed<u32, Pair<T>>, index: u32) -> Option<T> {
        self.array(table, index).map(|pair| *pair.current())
    }

    fn read<T>(&self, result: Result<Option<T>, KernelError>) -> Option<T> {
        result.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            None
        })
    }

    /// The value of a key.
    pub(super) fn look<K: Plain, V: Plain>(&self, table: Typed<K, V>, key: &K) -> Option<V> {
        self.read(self.kernel.look(table, key))
    }

    /// The value of the longest prefix of a key.
    pub(super) fn longest<K: Plain, V: Plain>(&self, table: Typed<K, V>, key: &K) -> Option<V> {
        self.read(self.kernel.longest(table.table, bytes(key))).and_then(|found| value(&found))
    }

    /// Every entry, to find what a look-up by prefix does not tell: which one it was.
    pub(super) fn all<K: Plain, V: Plain>(&self, table: Typed<K, V>) -> Vec<(K, V)> {
        self.read(self.kernel.all(table).map(Some)).unwrap_or_default()
    }

    /// Whether an address is in a set.
    pub(super) fn in_set(&self, set: u32, family: u8, addr: &Addr) -> bool {
        let key = Member { bits: FIXED_BITS + width(family), set, family: family.into(), addr: *addr };
        self.longest(crate::sys::SETS, &key).is_some()
    }
}

/// Bits of an address of a family.
pub(super) fn width(family: u8) -> u32 {
    if family == family::V4 { 32 } else { 128 }
}
