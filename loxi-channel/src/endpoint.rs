//! Where an instance's sockets are, and who may reach them.
//!
//! An instance has a folder of mode 0700, and in it two sockets of mode 0600:
//! `control.sock` for requests and `events.sock` for events. The folder is the
//! guard: it is closed to others before a socket exists in it.

use std::io;
use std::path::{Path, PathBuf};

/// The folder under which every instance has its own.
pub const RUN_FOLDER: &str = "/run/loxi";

/// Longest path of a unix socket (`sun_path` without its end, unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// The folder of one instance's sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    folder: PathBuf,
}

/// Why a folder can't hold an instance's sockets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Instances are named in lower-case letters, digits and `-`.
    #[error("`{name}` is not an instance name: 1 to 32 of a-z, 0-9 and -, beginning with a letter or digit")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The kernel would not take the sockets' paths.
    #[error("{}: too long a path for a unix socket (limit {SOCKET_PATH_MAX} bytes)", folder.display())]
    PathTooLong {
        /// The folder asked for.
        folder: PathBuf,
    },
    /// Paths go into a URL, as UTF-8.
    #[error("{}: not UTF-8, or not absolute, or with a zero byte", folder.display())]
    Path {
        /// The folder asked for.
        folder: PathBuf,
    },
    /// Somebody else could reach in.
    #[error("{}: not a folder that belongs to this user", folder.display())]
    NotOurs {
        /// The folder asked for.
        folder: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", folder.display())]
    Io {
        /// The folder asked for.
        folder: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Endpoint {
    /// The endpoint of an instance, in its place under [`RUN_FOLDER`].
    pub fn instance(name: &str) -> Result<Self, EndpointError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let valid = (1..=32).contains(&name.len())
            && name.chars().all(|c| good(c) || c == '-')
            && name.starts_with(good);
        if !valid {
            return Err(EndpointError::Name { name: name.to_owned() });
        }
        Self::in_folder(Path::new(RUN_FOLDER).join(name))
    }

    /// An endpoint in a folder of the caller's choice (absolute).
    pub fn in_folder(folder: impl Into<PathBuf>) -> Result<Self, EndpointError> {
        let folder = folder.into();
        match folder.to_str() {
            Some(text) if folder.is_absolute() && !text.contains('\0') => {}
            _ => return Err(EndpointError::Path { folder }),
        }
        let endpoint = Self { folder };
        if endpoint.control().as_os_str().len() > SOCKET_PATH_MAX {
            return Err(EndpointError::PathTooLong { folder: endpoint.folder });
        }
        Ok(endpoint)
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The socket that takes requests.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// The socket that gives events.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.folder.join("events.sock")
    }

    /// Makes the folder, or closes it to others if it is there and ours.
    #[cfg(feature = "server")]
    pub fn prepare(&self) -> Result<(), EndpointError> {
        use std::fs;
        use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

        let failed = |source| EndpointError::Io { folder: self.folder.clone(), source };
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        // Not followed: a link could lead into a folder of somebody else.
        let found = fs::symlink_metadata(&self.folder).map_err(failed)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(EndpointError::NotOurs { folder: self.folder.clone() });
        }
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_are_folder_names() {
        assert_eq!(
            Endpoint::instance("node-1").unwrap().control(),
            Path::new("/run/loxi/node-1/control.sock")
        );
        for bad in ["", "..", "a/b", "-a", "Ä", "A", &"a".repeat(33)] {
            assert!(matches!(Endpoint::instance(bad), Err(EndpointError::Name { .. })), "{bad}");
        }
    }

    #[test]
    fn paths_that_no_socket_can_have_are_refused() {
        assert!(matches!(
            Endpoint::in_folder(format!("/{}", "x".repeat(120))),
            Err(EndpointError::PathTooLong { .. })
        ));
        assert!(matches!(Endpoint::in_folder("relative"), Err(EndpointError::Path { .. })));
    }

    #[cfg(feature = "server")]
    #[test]
    fn the_folder_is_closed_to_others_even_if_it_was_open() {
        use std::os::unix::fs::PermissionsExt;
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("one");
        let endpoint = Endpoint::in_folder(&folder).unwrap();
        for _ in 0..2 {
            endpoint.prepare().unwrap();
            let mode = folder.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_link_in_place_of_the_folder_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("one");
        std::os::unix::fs::symlink(temporary.path(), &folder).unwrap();
        assert!(matches!(
            Endpoint::in_folder(&folder).unwrap().prepare(),
            Err(EndpointError::NotOurs { .. })
        ));
    }
}
