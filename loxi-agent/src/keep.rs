//! The cluster on disk: what an agent knows after a restart while nobody tells it anything.
//!
//! One file: a line that says what it is and the checksum of what follows, then JSON. It is written beside and renamed,
//! so there is always a whole one. A file that is damaged or of a later version is not believed and not touched.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use loxi_linux::file::write_private;

use crate::cluster::Cluster;
use crate::digest::sha256;

/// What the first line begins with.
const HEAD: &str = "loxi-agent cluster 1 ";

/// Why there is nothing to know from disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It isn't what it should be.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Reads what was kept; none if nothing was.
///
/// # Errors
/// If there is a file that can't be believed.
pub fn load(path: &Path) -> Result<Option<Cluster>, KeepError> {
    let damaged = |problem: &str| KeepError::Damaged { path: path.to_owned(), problem: problem.to_owned() };
    let mut text = String::new();
    match File::open(path).and_then(|mut file| file.read_to_string(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged("not text")),
        Err(source) => return Err(KeepError::Io { path: path.to_owned(), source }),
        Ok(_) => {}
    }
    let (head, body) = text.split_once('\n').ok_or_else(|| damaged("not a whole line"))?;
    let sum = head.strip_prefix(HEAD).ok_or_else(|| damaged("not a cluster of version 1"))?;
    if sum != sha256(body) {
        return Err(damaged("the checksum is another one"));
    }
    serde_json::from_str(body).map(Some).map_err(|error| damaged(&error.to_string()))
}

/// Writes a cluster down, readable by this user alone.
///
/// # Errors
/// If the file can't be written; then the one of before stands.
pub fn save(path: &Path, cluster: &Cluster) -> Result<(), KeepError> {
    let failed = |source| KeepError::Io { path: path.to_owned(), source };
    let body = serde_json::to_string(cluster)
        .map_err(|error| KeepError::Damaged { path: path.to_owned(), problem: error.to_string() })?;
    write_private(path, format!("{HEAD}{}\n{body}", sha256(&body)).as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Event;
    use crate::cluster::model::{Name, Node, Selector};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        cluster.apply(Event::Put(
            Node {
                name: Name::of_cluster("n1"),
                internal_ips: vec!["10.0.0.1".parse().unwrap()],
                pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
                ..Node::default()
            }
            .into(),
        ));
        let policy = crate::cluster::model::NetworkPolicy {
            name: Name::new("a", "b"),
            pods: Selector::default(),
            ingress: Some(Vec::new()),
            egress: None,
        };
        cluster.apply(Event::Put(policy.into()));
        cluster
    }

    #[test]
    fn what_was_saved_is_loaded_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster");
        assert_eq!(load(&path).unwrap(), None);
        save(&path, &cluster()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(cluster()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        save(&path, &Cluster::default()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(Cluster::default()));
    }

    #[test]
    fn what_is_damaged_is_not_believed_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster");
        save(&path, &cluster()).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in [0, 25, whole.len() - 2] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(matches!(load(&path), Err(KeepError::Damaged { .. })), "{at}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(load(&path).is_err());
    }
}
