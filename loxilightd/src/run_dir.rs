//! The instance's folder, and that nobody else holds it.
//!
//! | file | what |
//! | --- | --- |
//! | `control.sock`, `events.sock` | the channel |
//! | `lock` | locked (flock) while a daemon holds the instance; its pid |
//! | `state.cbor` | see [`crate::keep`] |
//! | `ready` | there while the daemon serves; its pid |
//!
//! The kernel gives the lock back when the process ends, however it ends.

use loxi_channel::Endpoint;
use loxi_channel::endpoint::EndpointError;
use loxi_linux::file::write_private;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Why an instance can't be held.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// The folder can't be ours.
    #[error(transparent)]
    Folder(#[from] EndpointError),
    /// Another daemon is there.
    #[error("{} is held by process {holder}: only one daemon may hold an instance", folder.display())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Its pid, as it says.
        holder: String,
    },
    /// The lock file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An instance's folder, held until this is dropped.
#[derive(Debug)]
pub struct RunDir {
    endpoint: Endpoint,
    _lock: File,
}

impl RunDir {
    /// Takes hold of the folder, making it if it is missing.
    ///
    /// # Errors
    /// [`HoldError`].
    pub fn hold(endpoint: Endpoint) -> Result<Self, HoldError> {
        endpoint.prepare()?;
        let path = endpoint.folder().join("lock");
        let io = |source| HoldError::Io { path: path.clone(), source };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).map_err(io)?;
                let holder = match holder.trim() {
                    // Locked, and its number not written yet.
                    "" => "that has just started".to_owned(),
                    pid => pid.to_owned(),
                };
                return Err(HoldError::Held { folder: endpoint.folder().to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        lock.set_len(0).map_err(io)?;
        lock.rewind().map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        let held = Self { endpoint, _lock: lock };
        // Left by one that was killed.
        held.not_ready();
        for socket in [held.endpoint.control(), held.endpoint.events()] {
            let _ = std::fs::remove_file(socket);
        }
        Ok(held)
    }

    /// The sockets in it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The state file.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.endpoint.folder().join("state.cbor")
    }

    fn ready_file(&self) -> PathBuf {
        self.endpoint.folder().join("ready")
    }

    /// Says that the daemon serves.
    ///
    /// # Errors
    /// [`HoldError::Io`].
    pub fn ready(&self) -> Result<(), HoldError> {
        let path = self.ready_file();
        write_private(&path, format!("{}\n", std::process::id()).as_bytes())
            .map_err(|source| HoldError::Io { path, source })
    }

    /// Says that it no longer does.
    pub fn not_ready(&self) {
        // Missing is as good as removed.
        let _ = std::fs::remove_file(self.ready_file());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_folder(folder.path().join("run")).unwrap();
        let first = RunDir::hold(endpoint.clone()).unwrap();
        let error = RunDir::hold(endpoint.clone()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        first.ready().unwrap();
        drop(first);
        let again = RunDir::hold(endpoint).unwrap();
        assert!(!again.ready_file().exists(), "not ready yet");
    }
}
