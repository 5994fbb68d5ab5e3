//! Processes by the network namespace they are in.
//!
//! A process that outlived its maker has no parent to ask; the namespace it is in tells
//! whose it is. Signals go by a descriptor of the process that is checked once it
//! is open, so a number that was given to another process meanwhile is never hit.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::netns::{NetNs, NetNsError};

/// A process that is known not to have been replaced by another.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    fd: OwnedFd,
}

/// What to tell a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// To end (SIGTERM).
    Ask,
    /// Nothing: it ends (SIGKILL).
    Force,
}

impl Process {
    /// A process by its number.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, fd: rustix::process::pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends it. One that has ended is no error.
    ///
    /// # Errors
    /// If it is not ours to end.
    pub fn stop(&self, how: Stop) -> io::Result<()> {
        let signal = match how {
            Stop::Ask => Signal::TERM,
            Stop::Force => Signal::KILL,
        };
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The number of its network namespace, as [`NetNs::id`] gives it.
    fn netns(&self) -> Option<u64> {
        let path = format!("/proc/{}/ns/net", self.id());
        std::fs::metadata(path).ok().map(|found| found.ino())
    }
}

/// The processes that are in one of these network namespaces, without the calling one. Threads
/// that are somewhere else than their process are not looked at.
///
/// # Errors
/// If `/proc` can't be read or a namespace not be looked at.
pub fn inside(namespaces: &[&NetNs]) -> Result<Vec<Process>, NetNsError> {
    let ids = namespaces.iter().map(|ns| ns.id()).collect::<Result<Vec<_>, _>>()?;
    let read = |source| NetNsError::Os { operation: "look for processes of", object: "/proc".into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may end at any moment; then it is in no namespace.
        let Ok(process) = Process::open(pid) else { continue };
        if pid != std::process::id() && process.netns().is_some_and(|id| ids.contains(&id)) {
            found.push(process);
        }
    }
    Ok(found)
}
