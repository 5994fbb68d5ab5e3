//! Who has an instance: a lock that goes with the process that holds it.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{FOLDER, WorldError};
use crate::plan::Plan;

/// The right to make and remove what is of an instance. Dropping it removes the lock's file.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// Takes an instance.
    ///
    /// # Errors
    /// If another process has it.
    pub fn take(plan: &Plan) -> Result<Self, WorldError> {
        let path = Path::new(FOLDER).join(format!("{}.lock", plan.instance()));
        let failed = |operation| {
            let path = path.clone();
            move |source| WorldError::File { operation, path, source }
        };
        loop {
            match std::fs::create_dir_all(FOLDER) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(WorldError::NotRoot { path: FOLDER.into() });
                }
                other => other.map_err(failed("make folder of"))?,
            }
            let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = match open {
                // The last holder of any instance took the folder with it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(failed("open"))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // Only words for the message: an empty name does as well.
                    let _ = file.read_to_string(&mut holder);
                    return Err(WorldError::Taken { instance: plan.instance().into(), holder });
                }
                Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
            }
            // Whoever held it may have removed the file before we got the lock of it.
            let same = match (file.metadata(), std::fs::metadata(&path)) {
                (Ok(locked), Ok(there)) => locked.ino() == there.ino(),
                _ => false,
            };
            if same {
                file.set_len(0).map_err(failed("write"))?;
                write!(file, "{}", std::process::id()).map_err(failed("write"))?;
                return Ok(Self { path, _lock: file });
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // An empty lock file that stays is in nobody's way.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_dir(FOLDER);
    }
}
