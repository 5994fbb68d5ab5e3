//! The committed objects of the eBPF programs: built, recorded, compared.
//!
//! The workspace builds without a BPF toolchain, because the objects are
//! committed with a record of what they were built from. [`write()`] makes both
//! anew. [`check`] holds the objects to the record everywhere, and to a fresh
//! build where there is a toolchain: byte by byte if it is the recorded one,
//! otherwise by leaving the fresh objects for the tests to run on. [`mutate()`]
//! builds programs that are wrong, for the conformance rows to notice.

mod build;
mod digest;
mod instructions;
mod mutate;
mod mutations;
mod strip;
mod toolchain;

pub(crate) use build::{compile, is_compiler};

use anyhow::{Context, Result, bail};
use digest::Record;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use toolchain::Search;

/// Each program's object, stripped.
type Objects = BTreeMap<String, Vec<u8>>;

/// Builds every program, and replaces the committed objects and their record.
pub(crate) fn write(root: &Path) -> Result<()> {
    let places = Places::of(root)?;
    let search = Search::run(&places.workshop)?;
    let recorded = Record::read(&places.committed).ok().map(|record| record.toolchain);
    let Some(toolchain) = search.prefer(recorded.as_ref()) else {
        bail!(
            "the eBPF programs need bpf-linker and one of two compilers; missing here:\n  {}",
            search.missing.join("\n  ")
        );
    };
    println!("ebpf: building with {}", toolchain.versions);
    let objects = build::build(&places, toolchain, false)?;
    let wrong = instructions::violations(&objects)?;
    if !wrong.is_empty() {
        bail!("the programs do what not every supported kernel can:\n  {}", wrong.join("\n  "));
    }
    place(&objects, &places.committed)?;
    Record::new(&places.programs, &objects, toolchain.versions.clone())?.write(&places.committed)?;
    for (program, object) in &objects {
        println!("ebpf: {program}.o has {} bytes", object.len());
    }
    Ok(())
}

/// What is wrong with the committed objects.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let places = Places::of(root)?;
    let record = Record::read(&places.committed)?;
    let objects = read(&places.committed)?;
    let mut found = record.violations(&places.programs, &objects)?;
    found.extend(instructions::violations(&objects)?);
    found.extend(mutate::violations(&places.programs)?);
    // A build of other sources says nothing about these objects.
    if found.is_empty() {
        found.extend(rebuilt(&places, &record, &objects)?);
    }
    Ok(found)
}

/// Whether the conformance rows notice what is wrong with the programs: of everything, or of a stage.
pub(crate) fn mutate(root: &Path, only: Option<&str>) -> Result<()> {
    mutate::run(root, only)
}

/// What a fresh build has against the committed objects.
fn rebuilt(places: &Places, record: &Record, committed: &Objects) -> Result<Vec<String>> {
    let search = Search::run(&places.workshop)?;
    let Some(toolchain) = search.prefer(Some(&record.toolchain)) else {
        println!("ebpf: not rebuilt: {}", search.missing.join("; "));
        return Ok(Vec::new());
    };
    println!("ebpf: rebuilding with {}", toolchain.versions);
    let fresh = build::build(places, toolchain, true)?;
    let folder = places.workshop.join("obj");
    place(&fresh, &folder)?;
    if toolchain.versions == record.toolchain {
        return Ok(differences(committed, &fresh, &folder));
    }
    println!("ebpf: the committed objects are from {}", record.toolchain);
    println!("ebpf: fresh objects: LOXI_EBPF_OBJ={}", folder.display());
    instructions::violations(&fresh)
}

fn differences(committed: &Objects, fresh: &Objects, folder: &Path) -> Vec<String> {
    let differs = |program: &&String| committed.get(*program) != fresh.get(*program);
    fresh
        .keys()
        .filter(differs)
        .map(|program| {
            format!(
                "{program}.o is not what the recorded toolchain builds of these sources (that is in {}): \
                 run `cargo xtask ebpf` and commit the objects",
                folder.display()
            )
        })
        .collect()
}

/// The objects of a folder.
fn read(folder: &Path) -> Result<Objects> {
    let mut objects = Objects::new();
    for (program, path) in listed(folder)? {
        let object = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        objects.insert(program, object);
    }
    Ok(objects)
}

/// Makes the objects the only ones of a folder.
fn place(objects: &Objects, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for (_, path) in listed(folder)? {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    for (program, object) in objects {
        let path = folder.join(program).with_extension("o");
        fs::write(&path, object).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn listed(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension() == Some("o".as_ref())
            && let Some(program) = path.file_stem()
        {
            found.insert(program.to_string_lossy().into_owned(), path);
        }
    }
    Ok(found)
}

/// Where things are.
#[derive(Debug)]
struct Places {
    /// The whole tree.
    root: PathBuf,
    /// What the objects are built from: the folder of `programs` and `layout`.
    programs: PathBuf,
    /// The committed objects.
    committed: PathBuf,
    /// Build products.
    workshop: PathBuf,
}

impl Places {
    fn of(root: &Path) -> Result<Self> {
        // Cargo shows the compiler the real path, and that one has to be hidden.
        let root = root.canonicalize().context("finding the workspace")?;
        let metadata = build::metadata(&root, &["--no-deps"])?;
        let target =
            metadata["target_directory"].as_str().context("cargo metadata has no target directory")?;
        let workshop = Path::new(target).join("ebpf");
        fs::create_dir_all(&workshop).with_context(|| format!("making {}", workshop.display()))?;
        let programs = root.join("loxi-backend-ebpf");
        Ok(Self { committed: programs.join("obj"), programs, workshop, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(of: &[(&str, &[u8])]) -> Objects {
        of.iter().map(|(program, object)| ((*program).to_owned(), object.to_vec())).collect()
    }

    #[test]
    fn a_folder_has_only_the_objects_placed_last() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("digest.json"), "{}").unwrap();
        place(&objects(&[("old", b"1"), ("tc", b"2")]), folder.path()).unwrap();
        let last = objects(&[("tc", b"3"), ("xdp", b"4")]);
        place(&last, folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), last);
        assert!(folder.path().join("digest.json").exists());
    }

    #[test]
    fn each_object_that_builds_differently_is_named() {
        let committed = objects(&[("floor", b"1"), ("tc", b"2"), ("xdp", b"3")]);
        let fresh = objects(&[("floor", b"1"), ("tc", b"0"), ("xdp", b"3")]);
        let found = differences(&committed, &fresh, Path::new("/fresh"));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("tc.o is not what the recorded toolchain builds"), "{found:?}");
    }
}
