//! Memory that the programs and this process share.
//!
//! Programs may write any of it at any time, so nothing here is a reference: elements are copied
//! out word by word, and words are atomic.
#![allow(unsafe_code)]

use loxi_ebpf_layout::Plain;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// A mapped array.
#[derive(Debug)]
pub struct Memory {
    start: *mut AtomicU64,
    len: usize,
}

// SAFETY: the memory is a shared mapping that lives as long as this value, and is accessed by
// atomic words only, whoever else writes it.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// A word of it.
#[derive(Debug, Clone, Copy)]
pub struct Word<'a>(&'a AtomicU64);

impl Word<'_> {
    /// The value.
    #[must_use]
    pub fn load(self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Writes it after everything written before.
    pub fn store(self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Adds, and returns the value before.
    #[must_use]
    pub fn fetch_add(self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::AcqRel)
    }

    /// Writes, and returns the value before.
    #[must_use]
    pub fn swap(self, value: u64) -> u64 {
        self.0.swap(value, Ordering::AcqRel)
    }

    /// Replaces `old` by `new`; whether it was `old`.
    #[must_use]
    pub fn replace(self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Memory {
    /// Maps `len` bytes of a map.
    ///
    /// # Errors
    /// The kernel's answer; also if the length is no multiple of 8.
    pub(super) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::mapped(fd.as_raw_fd(), libc::MAP_SHARED, len)
    }

    /// Memory of this process alone, all zeroes, that takes no room until it is written.
    ///
    /// # Errors
    /// As for [`Memory::map`].
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        Self::mapped(-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, len)
    }

    fn mapped(fd: RawFd, flags: libc::c_int, len: usize) -> io::Result<Self> {
        if len == 0 || !len.is_multiple_of(8) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: a new mapping at an address that the kernel chooses; the result is checked.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), len })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The word at an offset in bytes, rounded down to a word; the last one beyond the end.
    #[must_use]
    pub fn word(&self, offset: usize) -> Word<'_> {
        let index = (offset / 8).min(self.len / 8 - 1);
        // SAFETY: the index is within the mapping, which starts at a page and lives as long as `self`.
        Word(unsafe { &*self.start.add(index) })
    }

    /// Copies a value out, word by word. Beyond the end: what the last words have.
    #[must_use]
    pub fn read<T: Plain>(&self, offset: usize) -> T {
        let mut value: T = super::raw::zero();
        let bytes = super::raw::bytes_of_mut(&mut value);
        if offset.is_multiple_of(8) && bytes.len().is_multiple_of(8) {
            for (n, word) in bytes.chunks_exact_mut(8).enumerate() {
                word.copy_from_slice(&self.word(offset + 8 * n).load().to_ne_bytes());
            }
            return value;
        }
        let mut at = offset;
        let mut left = bytes;
        while !left.is_empty() {
            let skip = at % 8;
            let n = left.len().min(8 - skip);
            let (now, later) = left.split_at_mut(n);
            now.copy_from_slice(&self.word(at).load().to_ne_bytes()[skip..skip + n]);
            at += n;
            left = later;
        }
        value
    }

    /// Writes a value, word by word. Where it doesn't begin or end at a word its neighbours' bytes stay.
    pub fn write<T: Plain>(&self, offset: usize, value: &T) {
        self.write_bytes(offset, super::raw::bytes_of(value));
    }

    /// Writes bytes, likewise.
    pub fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        let mut at = offset;
        let mut left = bytes;
        while !left.is_empty() {
            let skip = at % 8;
            let n = left.len().min(8 - skip);
            let word = self.word(at);
            let mut whole = word.load().to_ne_bytes();
            whole[skip..skip + n].copy_from_slice(&left[..n]);
            word.store(u64::from_ne_bytes(whole));
            at += n;
            left = &left[n..];
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping that `mapped` made, once; no reference to it outlives `self`.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
