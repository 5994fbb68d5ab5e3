//! Kernel settings by dotted key, as `net.ipv4.ip_forward`.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens the file,
//! so a key belongs to the namespace the calling thread is in: enter first, then
//! read or write. As in sysctl(8) a slash inside a component stands for a dot,
//! which names of VLAN devices contain: `net.ipv4.conf.eth0/1.rp_filter`.

use std::io;
use std::path::{Path, PathBuf};

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// The key has an empty component or would leave `/proc/sys`.
    #[error("{key:?} is not a sysctl key")]
    BadKey {
        /// The key as given.
        key: String,
    },
    /// The file could not be read.
    #[error("read sysctl {key}: {source}")]
    Read {
        /// The key.
        key: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The value was not taken.
    #[error("set sysctl {key} to {value:?}: {source}")]
    Write {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl SysctlError {
    /// The key does not exist here: a kernel without IPv6, or a device that is gone.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
            }
            Self::BadKey { .. } => false,
        }
    }
}

/// The key of a device's setting; dots of its name are written as sysctl(8) wants.
#[must_use]
pub fn device_key(family: &str, device: &str, name: &str) -> String {
    format!("net.{family}.conf.{}.{name}", device.replace('.', "/"))
}

/// Reads a setting, without the final newline.
///
/// # Errors
/// If the key is malformed, unknown or unreadable.
pub fn read(key: &str) -> Result<String, SysctlError> {
    let path = path_of(key)?;
    std::fs::read_to_string(path)
        .map(|text| text.trim_end().to_owned())
        .map_err(|source| SysctlError::Read { key: key.into(), source })
}

/// Writes a setting.
///
/// # Errors
/// If the key is malformed or unknown, or the kernel refuses the value.
pub fn write(key: &str, value: &str) -> Result<(), SysctlError> {
    let path = path_of(key)?;
    std::fs::write(path, value).map_err(|source| SysctlError::Write {
        key: key.into(),
        value: value.into(),
        source,
    })
}

fn path_of(key: &str) -> Result<PathBuf, SysctlError> {
    let bad = || SysctlError::BadKey { key: key.into() };
    let mut path = Path::new("/proc/sys").to_path_buf();
    for part in key.split('.') {
        let part = part.replace('/', ".");
        if part.is_empty() || part == "." || part == ".." || part.contains('\0') {
            return Err(bad());
        }
        path.push(part);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_paths() {
        assert_eq!(
            path_of("net.ipv4.conf.eth0/1.rp_filter").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/eth0.1/rp_filter")
        );
        assert_eq!(device_key("ipv6", "eth0.1", "disable_ipv6"), "net.ipv6.conf.eth0/1.disable_ipv6");
        for bad in ["", "net..x", "net.//.x", "a.b."] {
            assert!(matches!(path_of(bad), Err(SysctlError::BadKey { .. })), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = read("net.no.such.key").unwrap_err();
        assert!(error.is_missing());
        assert!(error.to_string().contains("net.no.such.key"));
    }
}
