//! What an interface is known by.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A container and the name of an interface there. Both are fit for a file's name, and neither has a colon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Key {
    container: String,
    ifname: String,
}

/// A container or an interface can't be named so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} can't be {value:?}")]
pub struct KeyError {
    /// Which of the two.
    pub what: &'static str,
    /// The name.
    pub value: String,
}

#[derive(Serialize, Deserialize)]
struct Parts {
    container: String,
    ifname: String,
}

impl Key {
    /// The longest name of a container, so that a file can be called after it.
    pub const MAX_CONTAINER: usize = 200;

    /// Checks both names.
    ///
    /// # Errors
    /// If one is empty, too long, or has characters that CNI doesn't allow.
    pub fn new(container: &str, ifname: &str) -> Result<Self, KeyError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let starts = container.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || container.len() > Self::MAX_CONTAINER || !container.chars().all(plain) {
            return Err(KeyError { what: "a container's id", value: container.into() });
        }
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if ifname.is_empty() || ifname.len() > 15 || matches!(ifname, "." | "..") || ifname.contains(bad) {
            return Err(KeyError { what: "an interface's name", value: ifname.into() });
        }
        Ok(Self { container: container.into(), ifname: ifname.into() })
    }

    /// The container.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The interface.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.ifname
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container, self.ifname)
    }
}

impl TryFrom<Parts> for Key {
    type Error = KeyError;
    fn try_from(parts: Parts) -> Result<Self, KeyError> {
        Self::new(&parts.container, &parts.ifname)
    }
}

impl From<Key> for Parts {
    fn from(key: Key) -> Self {
        Self { container: key.container, ifname: key.ifname }
    }
}
