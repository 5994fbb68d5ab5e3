//! Running programs in a place: a network namespace and a mount namespace.
//!
//! Each node of a lab sees a `/run` of its own, so that the names of sockets, locks
//! and namespaces are the same on every node. A [`MountNs`] is such a
//! view; a [`Place`] combines it with a [`NetNs`], and programs started there
//! inherit both. The work is done on a thread of its own: the caller's thread
//! never changes namespace, also not for a moment.
//!
//! Mounts made inside a [`MountNs`] don't reach the outside; those made and taken away
//! outside do reach the inside (propagation is `slave`), so that a namespace file
//! deleted by its maker is not held alive by every node.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::ffi;
use crate::netns::NetNs;

/// Why a mount namespace could not be made or a program not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// A mount of the new view failed.
    #[error("mount {what} at {}: {source}", at.display())]
    Mount {
        /// Kind or source of the mount.
        what: String,
        /// Where it was to be.
        at: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another system call failed.
    #[error("{operation}: {source}")]
    Os {
        /// What was being done.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// One mount of a new view.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountSetup {
    /// An empty memory file system at a folder.
    Tmpfs {
        /// The folder, made if missing.
        at: PathBuf,
    },
    /// A folder, with what is mounted below it now, seen at another. What is mounted below it
    /// later is seen too only if the folder's mount is shared; otherwise mount it inside
    /// ([`MountNs::run`]).
    Bind {
        /// What to show.
        from: PathBuf,
        /// Where, an existing folder or file.
        at: PathBuf,
    },
    /// A new bpf file system at a folder.
    Bpffs {
        /// The folder, made if missing.
        at: PathBuf,
    },
}

/// A mount namespace; it lives as long as this value or a program in it.
#[derive(Debug)]
pub struct MountNs {
    fd: OwnedFd,
}

impl MountNs {
    /// Copies the process's view and makes `mounts` in the copy, in order.
    ///
    /// # Errors
    /// If the kernel refuses one; then nothing of it is left.
    pub fn create(mounts: &[MountSetup]) -> Result<Self, PlaceError> {
        on_a_thread(|| {
            ffi::unshare_mounts().map_err(os("unshare mounts"))?;
            rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
                .map_err(|e| os("make mounts slaves")(e.into()))?;
            for mount in mounts {
                apply(mount)?;
            }
            let file = File::open("/proc/thread-self/ns/mnt").map_err(os("open mount ns"))?;
            Ok(Self { fd: file.into() })
        })
    }

    /// Runs `work` on a new thread that sees this view.
    ///
    /// # Errors
    /// If the thread can't be started or can't enter; then `work` has not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, PlaceError> {
        on_a_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    fn enter(&self) -> Result<(), PlaceError> {
        ffi::unshare_fs().map_err(os("unshare fs"))?;
        ffi::setns(self.fd.as_fd(), libc::CLONE_NEWNS).map_err(os("enter mount ns"))
    }
}

fn apply(mount: &MountSetup) -> Result<(), PlaceError> {
    let (what, at, result) = match mount {
        MountSetup::Tmpfs { at } => ("tmpfs".into(), at, fresh("tmpfs", at)),
        MountSetup::Bpffs { at } => ("bpf".into(), at, fresh("bpf", at)),
        MountSetup::Bind { from, at } => (
            from.display().to_string(),
            at,
            rustix::mount::mount_bind_recursive(from, at).map_err(Into::into),
        ),
    };
    result.map_err(|source| PlaceError::Mount { what, at: at.clone(), source })
}

fn fresh(kind: &str, at: &PathBuf) -> io::Result<()> {
    std::fs::create_dir_all(at)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount(kind, at, kind, flags, None)?)
}

/// Where a program runs; what is `None` is as for the caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place<'a> {
    /// The network namespace.
    pub net: Option<&'a NetNs>,
    /// The mount namespace.
    pub mounts: Option<&'a MountNs>,
}

impl Place<'_> {
    /// Starts `command` here.
    ///
    /// A parent-death signal (`PR_SET_PDEATHSIG`) set on the command would be sent at
    /// once, because the thread that starts the program ends with this call.
    ///
    /// # Errors
    /// If a namespace can't be entered or the program not be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, PlaceError> {
        self.with(command, Command::spawn)
    }

    /// Runs `command` here to its end and collects its output.
    ///
    /// # Errors
    /// As [`Place::spawn`]. A program that ends with a failure is no error.
    pub fn output(&self, command: &mut Command) -> Result<std::process::Output, PlaceError> {
        self.with(command, Command::output)
    }

    fn with<T: Send>(
        &self,
        command: &mut Command,
        start: impl FnOnce(&mut Command) -> io::Result<T> + Send,
    ) -> Result<T, PlaceError> {
        on_a_thread(|| {
            // The mount namespace last: the network namespace is a descriptor,
            // so the order matters only for what else is opened by name.
            if let Some(net) = self.net {
                ffi::setns(net.as_fd(), libc::CLONE_NEWNET).map_err(os("enter network ns"))?;
            }
            if let Some(mounts) = self.mounts {
                mounts.enter()?;
            }
            start(command).map_err(|source| PlaceError::Spawn {
                program: command.get_program().to_string_lossy().into_owned(),
                source,
            })
        })
    }
}

fn os(operation: &'static str) -> impl FnOnce(io::Error) -> PlaceError {
    move |source| PlaceError::Os { operation, source }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, PlaceError> + Send) -> Result<T, PlaceError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("place".into())
            .spawn_scoped(scope, work)
            .map_err(os("start a thread"))?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
