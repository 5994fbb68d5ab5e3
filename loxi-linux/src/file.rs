//! Files of this machine's programs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file as a whole, readable by its owner alone. What is written first is called as the file is, with `.new`
/// behind.
///
/// # Errors
/// If the folder can't be written; the old file stands then.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    // Before it takes the old one's place: a machine that loses power has one of both.
    file.sync_all()?;
    fs::rename(&new, path)
}
