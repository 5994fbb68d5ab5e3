//! The interfaces of this node's pods on disk: a JSON file for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use loxi_core::net::PortName;
use loxi_linux::file::write_private;
use serde::{Deserialize, Serialize};

use super::Key;
use crate::intent::Attachment;
use crate::ipam::Tenant;

/// The version of the files' form.
const FORM: u32 = 1;
const SUFFIX: &str = ".json";
/// What a file's name ends in while it is written ([`write_private`]). One that is left was never an interface's.
const UNFINISHED: &str = ".new";
/// What a file is called that can't be read.
const ASIDE: &str = ".broken";

/// What is known of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The dataplane's port.
    pub port: PortName,
    /// Whose its addresses are.
    pub tenant: Tenant,
    /// How far it is.
    pub state: State,
}

/// How far an interface is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Being made or being taken away: any part of it may be there.
    Pending,
    /// All of it is there.
    Complete(Box<Complete>),
}

/// An interface that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// What the dataplane knows of it.
    pub attachment: Attachment,
    /// The addresses, as the pod has them.
    pub addresses: Vec<Address>,
}

/// An address of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The length of the network's prefix.
    pub len: u8,
    /// The network's gateway.
    pub gateway: IpAddr,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    key: Key,
    entry: Entry,
}

/// Why a file could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct StoreError {
    /// What was being done.
    pub operation: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

/// A file that could not be read, and is called otherwise now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Where it is now.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The interfaces, in memory and on disk. What is in memory is on disk.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    entries: Mutex<BTreeMap<Key, Entry>>,
}

fn at<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T, StoreError> {
    result.map_err(|source| StoreError { operation, path: path.into(), source })
}

impl Store {
    /// Reads a folder, which is made if it isn't there. Files that can't be read are renamed, and said.
    ///
    /// # Errors
    /// If the folder can't be made, read or written.
    pub fn open(folder: PathBuf) -> Result<(Self, Vec<Broken>), StoreError> {
        at("make folder", &folder, DirBuilder::new().recursive(true).mode(0o700).create(&folder))?;
        let mut entries = BTreeMap::new();
        let mut broken = Vec::new();
        let mut paths = Vec::new();
        for entry in at("list", &folder, std::fs::read_dir(&folder))? {
            paths.push(at("list", &folder, entry)?.path());
        }
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(UNFINISHED) {
                at("remove", &path, std::fs::remove_file(&path))?;
            } else if name.ends_with(SUFFIX) {
                match read(&path) {
                    Ok((key, entry)) if name == file_name(&key) => {
                        entries.insert(key, entry);
                    }
                    Ok((key, _)) => broken.push(aside(&path, format!("it is of {key}"))?),
                    Err(reason) => broken.push(aside(&path, reason)?),
                }
            }
        }
        Ok((Self { folder, entries: Mutex::new(entries) }, broken))
    }

    /// All keys, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.lock().keys().cloned().collect()
    }

    /// The interfaces that are complete.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        let complete = |entry: &Entry| match &entry.state {
            State::Complete(complete) => Some(complete.attachment.clone()),
            State::Pending => None,
        };
        self.lock().values().filter_map(complete).collect()
    }

    /// What is known of an interface.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.lock().get(key).cloned()
    }

    /// Gives an interface the lowest port that is neither a link nor another interface's, and writes that it is being made.
    ///
    /// # Errors
    /// If it can't be written; then nothing is known of it.
    pub fn reserve(&self, key: &Key, tenant: Tenant, links: &BTreeSet<String>) -> Result<Entry, StoreError> {
        // Held until it is written, so that no two get the same.
        let mut entries = self.lock();
        let used: BTreeSet<&str> = entries.values().map(|entry| entry.port.as_str()).collect();
        let free = (1u32..)
            .map(|number| format!("hs{number}"))
            .find(|name| !used.contains(name.as_str()) && !links.contains(name));
        let port = free.and_then(|name| PortName::new(name).ok()).ok_or_else(|| StoreError {
            operation: "find a free port for",
            path: self.path(key),
            source: io::ErrorKind::AddrInUse.into(),
        })?;
        let entry = Entry { port, tenant, state: State::Pending };
        self.write(key, &entry)?;
        entries.insert(key.clone(), entry.clone());
        Ok(entry)
    }

    /// Writes what is known of an interface.
    ///
    /// # Errors
    /// If it can't be written; then what was known before is.
    pub fn put(&self, key: &Key, entry: Entry) -> Result<(), StoreError> {
        let mut entries = self.lock();
        self.write(key, &entry)?;
        entries.insert(key.clone(), entry);
        Ok(())
    }

    /// Forgets an interface. One that isn't known is no error.
    ///
    /// # Errors
    /// If the file can't be removed; then it is still known.
    pub fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let mut entries = self.lock();
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => at("remove", &path, Err(error))?,
            _ => {}
        }
        at("sync", &self.folder, sync(&self.folder))?;
        entries.remove(key);
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(file_name(key))
    }

    /// A reader, also one after a crash, finds the old file or the new one.
    fn write(&self, key: &Key, entry: &Entry) -> Result<(), StoreError> {
        let path = self.path(key);
        let on_disk = OnDisk { version: FORM, key: key.clone(), entry: entry.clone() };
        let work = || {
            write_private(&path, serde_json::to_string_pretty(&on_disk)?.as_bytes())?;
            sync(&self.folder)
        };
        at("write", &path, work())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        // Changed last in each operation: a panic leaves what is on disk.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_name(key: &Key) -> String {
    format!("{key}{SUFFIX}")
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn read(path: &Path) -> Result<(Key, Entry), String> {
    #[derive(Deserialize)]
    struct Form {
        version: u32,
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let form: Form = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if form.version != FORM {
        return Err(format!("it is of version {}, this is {FORM}", form.version));
    }
    let on_disk: OnDisk = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok((on_disk.key, on_disk.entry))
}

fn aside(path: &Path, reason: String) -> Result<Broken, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(ASIDE);
    let to = PathBuf::from(name);
    at("rename", path, std::fs::rename(path, &to))?;
    Ok(Broken { path: to, reason })
}
