//! The state file: what survives a restart.
//!
//! Configuration with its owners and generation, results of past transactions,
//! everything learned, and the ports that somebody has detached. It is written
//! after each transaction, before that is acknowledged, and every few seconds
//! while something changes; always as a whole, to a new file that then takes the
//! old one's place.
//!
//! ```text
//! LOXISTATE 1 <FNV-1a of the body, 16 hex digits> <length of the body>\n
//! <body: CBOR of Kept>
//! ```
//!
//! A file that is anything else is refused, and stays: only `--discard-state`
//! goes on without it. Times in it are those of one boot; after another boot the
//! learned state is left out, since its ages mean nothing.

use crate::Engine;
use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::{DataplaneError, LocalSnapshot};
use loxi_core::net::PortName;
use loxi_core::packet::State;
use loxi_linux::file::write_private;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const MAGIC: &str = "LOXISTATE";
const VERSION: &str = "1";
/// Longest first line.
const HEADER_MAX: usize = 80;
/// Deepest nesting of the body; that of our types is far less.
const DEPTH: usize = 64;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The kernel's name for this boot; empty where it gives none.
    pub boot: String,
    /// Ports that are to stay detached.
    #[serde(default)]
    pub detached: BTreeSet<PortName>,
    /// The dataplane.
    pub snapshot: LocalSnapshot,
}

/// Why a state file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// It can't be read or written.
    #[error("state file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what was written.
    #[error(
        "state file {}: {problem}; nothing was changed. Start with --discard-state to go on without it",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// FNV-1a, 64 bit: finds damage, not malice. The file is its owner's alone.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The kernel's name for this boot.
#[must_use]
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// The bytes of a state file.
///
/// # Errors
/// In words, if the state has no encoding.
pub fn encode(kept: &Kept) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    ciborium::into_writer(kept, &mut body).map_err(|error| error.to_string())?;
    let mut bytes = format!("{MAGIC} {VERSION} {:016x} {}\n", digest(&body), body.len()).into_bytes();
    bytes.append(&mut body);
    Ok(bytes)
}

/// What is in the bytes of a state file.
///
/// # Errors
/// In words, what is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<Kept, String> {
    let end = bytes.iter().take(HEADER_MAX).position(|byte| *byte == b'\n');
    let header = end.and_then(|end| std::str::from_utf8(&bytes[..end]).ok()).ok_or("it has no header")?;
    let body = &bytes[header.len() + 1..];
    let fields: Vec<_> = header.split(' ').collect();
    let &[magic, version, sum, length] = &fields[..] else {
        return Err("it has no header".to_owned());
    };
    if magic != MAGIC {
        return Err("it is no state file".to_owned());
    }
    if version != VERSION {
        return Err(format!("it is of version {version}, this daemon reads {VERSION}"));
    }
    if length != body.len().to_string() {
        return Err(format!("its length is wrong: {length} bytes were written, {} are there", body.len()));
    }
    if sum != format!("{:016x}", digest(body)) {
        return Err("its checksum is wrong".to_owned());
    }
    ciborium::de::from_reader_with_recursion_limit(body, DEPTH).map_err(|error| error.to_string())
}

/// Reads a state file; `None` if there is none.
///
/// # Errors
/// [`KeepError`].
pub fn load(path: &Path) -> Result<Option<Kept>, KeepError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(KeepError::Io { path: path.to_owned(), source }),
    };
    let mut kept = decode(&bytes).map_err(|problem| KeepError::Corrupt { path: path.to_owned(), problem })?;
    if kept.boot != boot_id() {
        tracing::info!("the state file is of an earlier boot: flows and learned addresses are left out");
        kept.snapshot.state = State::default();
    }
    Ok(Some(kept))
}

/// Writes the state file.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    boot: String,
    detached: Mutex<BTreeSet<PortName>>,
    /// Digest of what was written last. Held while saving: files are written in the order of their states.
    written: Mutex<Option<u64>>,
    saves: AtomicU64,
    failures: AtomicU64,
}

impl Keeper {
    /// Keeps state in a file; `detached` as it was found there.
    #[must_use]
    pub fn new(path: PathBuf, detached: BTreeSet<PortName>) -> Self {
        Self {
            path,
            boot: boot_id(),
            detached: Mutex::new(detached),
            written: Mutex::new(None),
            saves: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Writes the state if it is not what was written last. A failure is logged and counted.
    pub fn save(&self, engine: &Engine) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // A failure is logged where it happens; what was written last is still there.
        let _ = self.write(&mut written, engine.save());
    }

    /// Applies a transaction that counts only once it is written; one that can't be is undone.
    ///
    /// # Errors
    /// As [`Local::apply_kept`](loxi_core::dataplane::Local::apply_kept).
    pub fn apply(&self, engine: &Engine, transaction: &Transaction) -> Result<Applied, DataplaneError> {
        // This lock comes before the engine's, as in `save`.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        engine.apply_kept(transaction, &mut |snapshot| self.write(&mut written, snapshot))
    }

    fn write(&self, written: &mut Option<u64>, snapshot: LocalSnapshot) -> Result<(), String> {
        let kept = Kept { boot: self.boot.clone(), detached: self.detached(), snapshot };
        let result = encode(&kept).and_then(|bytes| {
            let digest = digest(&bytes);
            if *written == Some(digest) {
                return Ok(());
            }
            write_private(&self.path, &bytes).map_err(|error| error.to_string())?;
            *written = Some(digest);
            self.saves.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        if let Err(error) = &result {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(path = %self.path.display(), error, "the state could not be saved");
        }
        result
    }

    /// Ports that are to stay detached.
    #[must_use]
    pub fn detached(&self) -> BTreeSet<PortName> {
        self.detached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes whether a port is to stay detached.
    pub fn set_detached(&self, port: &PortName, stay: bool) {
        let mut detached = self.detached.lock().unwrap_or_else(PoisonError::into_inner);
        if stay {
            detached.insert(port.clone());
        } else {
            detached.remove(port);
        }
    }

    /// How often the state was written, and how often that failed.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.saves.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loxi_core::change::{Generation, TransactionId};
    use loxi_core::ir::{Owned, Owner};
    use proptest::prelude::*;

    fn kept() -> Kept {
        let owner = Owner::new("test").unwrap();
        let entities = loxi_core::text::from_yaml("version: 1\nvrfs: [{name: pods}]\n").unwrap();
        let applied = Applied { generation: Generation(7), created: 1, updated: 0, deleted: 0 };
        Kept {
            boot: "b".to_owned(),
            detached: [PortName::new("hs1").unwrap()].into(),
            snapshot: LocalSnapshot {
                generation: Generation(7),
                entities: entities.into_iter().map(|entity| Owned { owner: owner.clone(), entity }).collect(),
                results: vec![(TransactionId("a".to_owned()), applied)],
                ..LocalSnapshot::default()
            },
        }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(decode(&encode(&kept()).unwrap()).unwrap(), kept());
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let good = encode(&kept()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            assert!(decode(&bad).is_err(), "byte {at}");
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(decode(b"").unwrap_err(), "it has no header");
    }

    #[test]
    fn arbitrary_bytes_are_refused() {
        proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..200), header: bool)| {
            let bytes = if header {
                let head = format!("{MAGIC} {VERSION} {:016x} {}\n", digest(&bytes), bytes.len());
                [head.as_bytes(), &bytes].concat()
            } else {
                bytes
            };
            prop_assert!(decode(&bytes).is_err());
        });
    }

    #[test]
    fn another_boot_keeps_the_configuration_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.cbor");
        assert!(load(&path).unwrap().is_none());
        let mut old = kept();
        old.snapshot.state.round_robin.clear();
        old.snapshot.state.policy_generations.push((PortName::new("hs1").unwrap(), 3));
        write_private(&path, &encode(&old).unwrap()).unwrap();
        let read = load(&path).unwrap().unwrap();
        assert_eq!(read.snapshot.state, State::default());
        assert_eq!(read.snapshot.entities, old.snapshot.entities);
        old.boot = boot_id();
        write_private(&path, &encode(&old).unwrap()).unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), old);
    }

    #[test]
    fn a_refused_file_is_named_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.cbor");
        std::fs::write(&path, "LOXISTATE 2 0 0\n").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("state.cbor") && error.contains("--discard-state"), "{error}");
        assert!(path.exists());
    }
}
