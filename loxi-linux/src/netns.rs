//! Network namespaces: making, opening and entering them.
//!
//! A thread is in one namespace at a time. [`enter`] moves the calling thread
//! and gives a guard that takes it back; the guard is not `Send`, because it
//! speaks of the thread that made it. [`NetNs::run`] moves a thread of its own,
//! which ends with the closure, so nothing of the caller is moved at all.
//!
//! If a guard can't restore the namespace the process aborts: a thread that goes
//! on in the wrong namespace would change the wrong machine. Nothing else
//! here panics or aborts.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::ffi;

/// Where `ip netns` keeps its names.
pub const RUN_NETNS: &str = "/run/netns";
const THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// Why a namespace could not be made, opened, entered or deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetNsError {
    /// A name is empty or has a slash.
    #[error("{name:?} can't name a network namespace")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The file is there but is no network namespace.
    #[error("{path} is not a network namespace")]
    NotANamespace {
        /// The file.
        path: String,
    },
    /// A system call failed.
    #[error("{operation} network namespace {object}: {source}")]
    Os {
        /// What was being done: `create`, `open`, `enter`, …
        operation: &'static str,
        /// Path or description of the namespace.
        object: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn os(operation: &'static str, object: impl ToString) -> impl FnOnce(io::Error) -> NetNsError {
    let object = object.to_string();
    move |source| NetNsError::Os { operation, object, source }
}

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    path: Option<PathBuf>,
}

impl NetNs {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self, NetNsError> {
        let file = File::open(THIS_THREAD).map_err(os("open", THIS_THREAD))?;
        Ok(Self { fd: file.into(), path: None })
    }

    /// Makes a namespace without a name: it lasts as long as someone holds it.
    ///
    /// # Errors
    /// If the kernel refuses (no privilege, limits).
    pub fn anonymous() -> Result<Self, NetNsError> {
        on_a_thread("create", "anonymous", || {
            ffi::unshare_net()?;
            File::open(THIS_THREAD)
        })
        .map(|file| Self { fd: file.into(), path: None })
    }

    /// Why this process can make no namespaces; none: it can. One is made to see, and goes at once.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("it needs root to make network namespaces".to_owned());
        }
        let error = Self::anonymous().err()?;
        Some(format!("this machine allows no network namespaces: {error}"))
    }

    /// Makes a namespace and binds it to `path`, so that it outlives the process.
    /// Missing folders are made. An existing file at `path` is an error.
    ///
    /// # Errors
    /// If the file is there already or the kernel refuses; then nothing is left.
    pub fn create_at(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref();
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(os("create", path.display()))?;
        }
        File::create_new(path).map_err(os("create", path.display()))?;
        let target = path.to_path_buf();
        let made = on_a_thread("create", &path.display().to_string(), move || {
            ffi::unshare_net()?;
            rustix::mount::mount_bind(THIS_THREAD, &target)?;
            File::open(THIS_THREAD)
        });
        match made {
            Ok(file) => Ok(Self { fd: file.into(), path: Some(path.to_path_buf()) }),
            Err(error) => {
                // The file alone names nothing; failing to remove it changes no answer.
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// Makes a namespace that `ip netns` knows by `name`.
    ///
    /// # Errors
    /// As [`NetNs::create_at`], and for a name with a slash.
    pub fn create(name: &str) -> Result<Self, NetNsError> {
        let path = named(name)?;
        share_mounts_of(Path::new(RUN_NETNS)).map_err(os("create", path.display()))?;
        Self::create_at(path)
    }

    /// Opens the namespace bound to `path` (or `/proc/…/ns/net`).
    ///
    /// # Errors
    /// If there is no such file or it is something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(os("open", path.display()))?;
        // A file whose mount is gone is an ordinary empty file: setns would
        // say EINVAL much later.
        let here = File::open(THIS_THREAD).and_then(|f| f.metadata());
        let here = here.map_err(os("open", THIS_THREAD))?;
        let there = file.metadata().map_err(os("open", path.display()))?;
        if here.dev() != there.dev() {
            return Err(NetNsError::NotANamespace { path: path.display().to_string() });
        }
        Ok(Self { fd: file.into(), path: Some(path.to_path_buf()) })
    }

    /// Opens the namespace that `ip netns` knows by `name`.
    ///
    /// # Errors
    /// As [`NetNs::open`], and for a name with a slash.
    pub fn open_name(name: &str) -> Result<Self, NetNsError> {
        Self::open(named(name)?)
    }

    /// Opens the namespace of a process.
    ///
    /// # Errors
    /// If the process is gone or not ours to look at.
    pub fn open_pid(pid: u32) -> Result<Self, NetNsError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Takes away the name `path`: the namespace ends when nobody holds it.
    ///
    /// # Errors
    /// If it can't be unmounted or removed. A missing file is an error too.
    pub fn delete_at(path: impl AsRef<Path>) -> Result<(), NetNsError> {
        let path = path.as_ref();
        match rustix::mount::unmount(path, UnmountFlags::DETACH) {
            // Not a mount: the remains of an interrupted creation.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(os("delete", path.display())(error.into())),
        }
        std::fs::remove_file(path).map_err(os("delete", path.display()))
    }

    /// Takes away the name `name` of `ip netns`.
    ///
    /// # Errors
    /// As [`NetNs::delete_at`].
    pub fn delete(name: &str) -> Result<(), NetNsError> {
        Self::delete_at(named(name)?)
    }

    /// The file it was made at or opened from.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What tells namespaces apart: the inode of the kernel's namespace file.
    ///
    /// # Errors
    /// If the descriptor can't be looked at.
    pub fn id(&self) -> Result<u64, NetNsError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| os("stat", self.label())(e.into()))?;
        Ok(stat.st_ino)
    }

    /// Another handle to the same namespace.
    ///
    /// # Errors
    /// If descriptors have run out.
    pub fn try_clone(&self) -> Result<Self, NetNsError> {
        let fd = self.fd.try_clone().map_err(os("clone", self.label()))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// Runs `work` on a new thread inside the namespace and waits for it. A panic of
    /// `work` continues in the caller.
    ///
    /// # Errors
    /// If the thread can't be started or can't enter; then `work` has not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || {
                    ffi::setns(self.fd.as_fd(), libc::CLONE_NEWNET)?;
                    Ok(work())
                })
                .map_err(os("enter", self.label()))?;
            match thread.join() {
                Ok(result) => result.map_err(os("enter", self.label())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn label(&self) -> String {
        self.path.as_ref().map_or_else(|| "(unnamed)".into(), |p| p.display().to_string())
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Keeps the calling thread in a namespace; dropping it takes the thread back.
///
/// Guards nest, and are to be dropped in the reverse order of their making.
#[derive(Debug)]
#[must_use = "the thread leaves the namespace when the guard is dropped"]
pub struct NetNsGuard {
    before: OwnedFd,
    // A raw pointer is neither Send nor Sync: the guard belongs to its thread.
    thread: PhantomData<*const ()>,
}

/// Moves the calling thread into `ns`.
///
/// # Errors
/// If the thread may not enter; then it is where it was.
pub fn enter(ns: &NetNs) -> Result<NetNsGuard, NetNsError> {
    let before = NetNs::current()?.fd;
    ffi::setns(ns.fd.as_fd(), libc::CLONE_NEWNET).map_err(os("enter", ns.label()))?;
    Ok(NetNsGuard { before, thread: PhantomData })
}

impl Drop for NetNsGuard {
    fn drop(&mut self) {
        if let Err(error) = ffi::setns(self.before.as_fd(), libc::CLONE_NEWNET) {
            tracing::error!(%error, "can't leave a network namespace");
            eprintln!("loxi-linux: can't leave a network namespace: {error}; aborting");
            std::process::abort();
        }
    }
}

fn named(name: &str) -> Result<PathBuf, NetNsError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(NetNsError::BadName { name: name.into() });
    }
    Ok(Path::new(RUN_NETNS).join(name))
}

/// Makes `dir` a shared mount, as `ip netns` does: a name that is deleted later
/// then disappears from the mount namespaces copied in between, which
/// otherwise would keep the namespace alive.
fn share_mounts_of(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let share =
        || rustix::mount::mount_change(dir, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match share() {
        Err(rustix::io::Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(dir, dir)?;
            Ok(share()?)
        }
        other => Ok(other?),
    }
}

fn on_a_thread<T: Send>(
    operation: &'static str,
    object: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, NetNsError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .and_then(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .map_err(os(operation, object))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for bad in ["", ".", "..", "a/b", "../x"] {
            assert!(matches!(named(bad), Err(NetNsError::BadName { .. })), "{bad:?}");
        }
        assert_eq!(named("a").unwrap(), Path::new("/run/netns/a"));
    }

    #[test]
    fn an_ordinary_file_is_no_namespace() {
        let error = NetNs::open("/proc/version").unwrap_err();
        assert!(matches!(error, NetNsError::NotANamespace { .. }), "{error}");
    }
}
