//! The record beside the committed objects: from what they were built, by what.

use super::Objects;
use super::toolchain::Versions;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const NAME: &str = "digest.json";

/// Everything that shapes the objects, under the folder of `programs` and `layout`.
const SOURCES: &[&str] = &["programs", "layout/Cargo.toml", "layout/src"];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    sources: String,
    objects: BTreeMap<String, String>,
    pub(super) toolchain: Versions,
}

impl Record {
    pub(super) fn new(programs: &Path, objects: &Objects, toolchain: Versions) -> Result<Self> {
        let objects = objects.iter().map(|(program, object)| (program.clone(), hex(object))).collect();
        Ok(Self { sources: sources(programs)?, objects, toolchain })
    }

    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let text = fs::read(&path)
            .with_context(|| format!("reading {} (`cargo xtask ebpf` writes it)", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// How sources and objects differ from what is recorded.
    pub(super) fn violations(&self, programs: &Path, objects: &Objects) -> Result<Vec<String>> {
        const REMEDY: &str = "run `cargo xtask ebpf` and commit the objects";
        let mut found = Vec::new();
        if sources(programs)? != self.sources {
            found.push(format!("the programs' sources changed after the objects were built: {REMEDY}"));
        }
        for (program, recorded) in &self.objects {
            match objects.get(program) {
                None => found.push(format!("{program}.o is recorded but missing: {REMEDY}")),
                Some(object) if hex(object) != *recorded => {
                    found.push(format!("{program}.o is not the object that {NAME} records: {REMEDY}"));
                }
                Some(_) => {}
            }
        }
        for program in objects.keys().filter(|program| !self.objects.contains_key(*program)) {
            found.push(format!("{program}.o is in no record: {REMEDY}"));
        }
        Ok(found)
    }
}

/// One digest of all sources: of each file's name, length and content, in the order of names.
fn sources(programs: &Path) -> Result<String> {
    let mut files = Vec::new();
    for part in SOURCES {
        collect(&programs.join(part), &mut files)?;
    }
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(programs).unwrap_or(&file).to_string_lossy();
        for field in [name.as_bytes(), &content] {
            digest.update(u64::try_from(field.len())?.to_le_bytes());
            digest.update(field);
        }
    }
    Ok(format!("{:x}", digest.finalize()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("reading {}", path.display());
    if !fs::metadata(path).with_context(context)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(context)? {
        let path = entry?.path();
        if !skipped(&path) {
            collect(&path, files)?;
        }
    }
    Ok(())
}

/// Build products, and what editors and git leave behind.
fn skipped(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "target" || name.ends_with('~') || (name.starts_with('.') && name != ".cargo")
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &[&str] = &[
        "layout/Cargo.toml",
        "layout/src/lib.rs",
        "layout/src/deep/er.rs",
        "programs/.cargo/config.toml",
        "programs/Cargo.lock",
        "programs/Cargo.toml",
        "programs/build.rs",
        "programs/src/bin/tc.rs",
        "programs/src/lib.rs",
    ];

    fn put(root: &Path, name: &str, content: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in TREE {
            put(root.path(), name, name);
        }
        root
    }

    fn recorded(root: &Path) -> (Record, Objects) {
        let objects = Objects::from([("tc".into(), b"first".to_vec()), ("xdp".into(), b"second".to_vec())]);
        (Record::new(root, &objects, Versions::default()).unwrap(), objects)
    }

    #[test]
    fn the_digest_depends_on_every_source_and_on_nothing_else() {
        let root = tree();
        let root = root.path();
        let before = sources(root).unwrap();
        for name in TREE {
            put(root, name, "changed");
            assert_ne!(sources(root).unwrap(), before, "{name}");
            put(root, name, name);
            assert_eq!(sources(root).unwrap(), before, "{name}");
        }
        for name in
            ["programs/target/x/tc", "programs/.gitignore", "layout/README.md", "obj/tc.o", "src/lib.rs"]
        {
            put(root, name, "");
            assert_eq!(sources(root).unwrap(), before, "{name}");
        }
    }

    #[test]
    fn the_digest_sees_new_and_renamed_files_and_moved_bytes() {
        let root = tree();
        let root = root.path();
        let before = sources(root).unwrap();
        put(root, "programs/src/new.rs", "");
        let with_new = sources(root).unwrap();
        assert_ne!(with_new, before);
        fs::rename(root.join("programs/src/new.rs"), root.join("programs/src/other.rs")).unwrap();
        assert_ne!(sources(root).unwrap(), with_new);
    }

    #[test]
    fn the_digest_does_not_depend_on_the_folder() {
        assert_eq!(sources(tree().path()).unwrap(), sources(tree().path()).unwrap());
    }

    #[test]
    fn what_was_recorded_passes() {
        let root = tree();
        let (record, objects) = recorded(root.path());
        assert_eq!(record.violations(root.path(), &objects).unwrap(), Vec::<String>::new());
        record.write(root.path()).unwrap();
        assert_eq!(Record::read(root.path()).unwrap(), record);
    }

    #[test]
    fn changed_sources_are_told() {
        let root = tree();
        let (record, objects) = recorded(root.path());
        put(root.path(), "layout/src/lib.rs", "other");
        assert_eq!(
            record.violations(root.path(), &objects).unwrap(),
            ["the programs' sources changed after the objects were built: \
              run `cargo xtask ebpf` and commit the objects"]
        );
    }

    #[test]
    fn altered_missing_and_stray_objects_are_told() {
        let root = tree();
        let (record, mut objects) = recorded(root.path());
        objects.insert("tc".into(), b"altered".to_vec());
        objects.remove("xdp");
        objects.insert("stray".into(), Vec::new());
        assert_eq!(
            record.violations(root.path(), &objects).unwrap(),
            [
                "tc.o is not the object that digest.json records: run `cargo xtask ebpf` and commit the objects",
                "xdp.o is recorded but missing: run `cargo xtask ebpf` and commit the objects",
                "stray.o is in no record: run `cargo xtask ebpf` and commit the objects",
            ]
        );
    }
}
