//! A cluster in a folder: ordinary manifests, read again whenever one of them changes.
//!
//! A file that can't be read or understood keeps what it said before, and is named until it is right again. Where two
//! files have the same object the first by name has it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::manifest::{self, ManifestError};
use super::{Source, Update};
use crate::cluster::Event;
use crate::cluster::model::{Kind, Object, Reference};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 << 20;
/// For how long after a change more of them are waited for: an editor makes several at once.
const SETTLE: Duration = Duration::from_millis(20);
/// How often the folder is looked at without being told of a change.
const LOOK: Duration = Duration::from_secs(2);

/// Why a file of the folder says nothing new.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("larger than {LARGEST} bytes")]
    TooLarge,
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// A folder of manifests (`*.yaml`, `*.yml`, `*.json`).
#[derive(Debug)]
pub struct Directory {
    folder: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Why the folder itself can't be read.
    unreadable: Option<String>,
}

/// What a file said when it was read last.
#[derive(Debug)]
struct File {
    /// When it was changed, and its length.
    version: (SystemTime, u64),
    objects: Vec<Object>,
    wrong: Option<String>,
}

impl Directory {
    /// The cluster of a folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), files: BTreeMap::new(), unreadable: None }
    }

    /// Reads what has changed; whether anything has.
    fn read(&mut self) -> bool {
        let found = match list(&self.folder) {
            Ok(found) => found,
            Err(error) => {
                let said = Some(format!("{}: {error}", self.folder.display()));
                return std::mem::replace(&mut self.unreadable, said.clone()) != said;
            }
        };
        let mut changed = self.unreadable.take().is_some();
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        changed |= self.files.len() != before;
        for (path, version) in found {
            if self.files.get(&path).is_some_and(|file| file.version == version) {
                continue;
            }
            changed = true;
            let before = self.files.remove(&path).map(|file| file.objects).unwrap_or_default();
            let file = match objects(&path) {
                Ok(objects) => File { version, objects, wrong: None },
                Err(error) => {
                    let wrong = format!("{}: {error}", path.display());
                    tracing::error!(error = %wrong, "what the manifest said before stands");
                    File { version, objects: before, wrong: Some(wrong) }
                }
            };
            self.files.insert(path, file);
        }
        changed
    }

    fn events(&self) -> Vec<Event> {
        let mut seen: BTreeSet<Reference> = BTreeSet::new();
        let mut by_kind: BTreeMap<Kind, Vec<Object>> =
            Kind::ALL.iter().map(|kind| (*kind, Vec::new())).collect();
        for (path, file) in &self.files {
            for object in &file.objects {
                if seen.insert(object.reference()) {
                    by_kind.entry(object.kind()).or_default().push(object.clone());
                } else {
                    let file = path.display();
                    tracing::warn!(object = %object.reference(), %file, "it is in an earlier file already");
                }
            }
        }
        by_kind.into_iter().map(|(kind, objects)| Event::All(kind, objects)).collect()
    }

    /// Why what was told may not be what is there.
    fn stale(&self) -> Option<Arc<str>> {
        let wrong = self.files.values().find_map(|file| file.wrong.as_deref());
        self.unreadable.as_deref().or(wrong).map(Arc::from)
    }
}

#[async_trait::async_trait]
impl Source for Directory {
    async fn run(mut self: Box<Self>, to: mpsc::Sender<Update>) {
        let (told, mut changes) = mpsc::channel::<()>(1);
        // Without it the folder is looked at from time to time all the same.
        let _watcher = watch(&self.folder, told);
        let mut synced = false;
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let changed = self.read();
                (self, changed)
            });
            let changed;
            (self, changed) = match read.await {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(%error, "reading manifests has ended");
                    return;
                }
            };
            if changed || !synced {
                for event in self.events() {
                    if to.send(Update::Event(event)).await.is_err() {
                        return;
                    }
                }
                if to.send(Update::Stale(self.stale())).await.is_err() {
                    return;
                }
            }
            // A folder that isn't there yet says nothing of what there is.
            if !synced && self.unreadable.is_none() {
                synced = true;
                if to.send(Update::Synced).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                _ = changes.recv() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK) => {}
                () = to.closed() => return,
            }
        }
    }
}

fn watch(folder: &Path, told: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let tell = move |_: notify::Result<notify::Event>| {
        // One that waits already tells as much.
        let _ = told.try_send(());
    };
    let watching = notify::recommended_watcher(tell).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(
            |error| tracing::warn!(folder = %folder.display(), %error, "looking every {LOOK:?} instead"),
        )
        .ok()
}

fn list(folder: &Path) -> std::io::Result<BTreeMap<PathBuf, (SystemTime, u64)>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let manifest =
            path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|one| end == *one));
        if hidden || !manifest {
            continue;
        }
        match std::fs::metadata(&path) {
            Ok(about) if about.is_file() => {
                found.insert(path, (about.modified()?, about.len()));
            }
            Ok(_) => {}
            // It went since.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn objects(path: &Path) -> Result<Vec<Object>, FileError> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(FileError::TooLarge);
    }
    Ok(manifest::parse(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> String {
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n")
    }

    fn names(event: Event) -> Vec<String> {
        match event {
            Event::All(Kind::Namespace, objects) => {
                objects.iter().map(|object| object.name().to_string()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What is told until the next word about staleness: the namespaces, and that word.
    async fn told(from: &mut mpsc::Receiver<Update>) -> (Vec<String>, Option<Arc<str>>) {
        let mut namespaces = Vec::new();
        loop {
            let update = tokio::time::timeout(Duration::from_secs(20), from.recv()).await;
            match update.expect("it tells").expect("it goes on") {
                Update::Event(event) => namespaces.extend(names(event)),
                Update::Stale(why) => return (namespaces, why),
                Update::Synced => {}
            }
        }
    }

    #[tokio::test]
    async fn changes_are_told_and_what_is_wrong_keeps_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("b.yaml"), namespace("b")).unwrap();
        std::fs::write(file("notes.txt"), "not read").unwrap();
        let (to, mut from) = mpsc::channel(100);
        tokio::spawn(Box::new(Directory::new(folder.path())).run(to));
        assert_eq!(told(&mut from).await, (vec!["b".into()], None));

        std::fs::write(file(".new"), format!("{}---\n{}", namespace("a"), namespace("b"))).unwrap();
        std::fs::rename(file(".new"), file("a.yaml")).unwrap();
        assert_eq!(told(&mut from).await.0, ["a", "b"]);

        std::fs::write(file("a.yaml"), "apiVersion: v1\nkind: [").unwrap();
        let (names, why) = told(&mut from).await;
        assert_eq!(names, ["a", "b"]);
        assert!(why.unwrap().contains("a.yaml"));

        std::fs::remove_file(file("a.yaml")).unwrap();
        assert_eq!(told(&mut from).await, (vec!["b".into()], None));
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("later");
        let (to, mut from) = mpsc::channel(100);
        tokio::spawn(Box::new(Directory::new(&inside)).run(to));
        assert!(told(&mut from).await.1.unwrap().contains("later"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("a.json"), namespace("a")).unwrap();
        let until = async { while from.recv().await.expect("it goes on") != Update::Synced {} };
        tokio::time::timeout(Duration::from_secs(20), until).await.expect("it is read once it is there");
    }
}
