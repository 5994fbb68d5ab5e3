//! Whether the conformance rows would notice a wrong program.
//!
//! Each of [`MUTATIONS`] is made in a copy of the programs' sources, which is
//! built and put before the rows. Rows have to fail: a program that no longer
//! loads shows nothing, and one that passes shows that a row is missing. That
//! every mutation still finds its place is part of `cargo xtask ebpf --check`.

use super::mutations::{MUTATIONS, Mutation};
use super::toolchain::{Search, Toolchain};
use super::{Places, build, place};
use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Mutations that don't find their place in the sources exactly once.
pub(super) fn violations(programs: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for mutation in MUTATIONS {
        let path = programs.join("programs/src").join(mutation.file);
        let source = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        found.extend(misplaced(mutation, &source));
    }
    Ok(found)
}

fn misplaced(mutation: &Mutation, source: &str) -> Option<String> {
    let times = source.matches(mutation.old).count();
    (times != 1).then(|| {
        format!(
            "the mutation `{}` finds its text {times} times in {}: bring xtask/src/ebpf/mutations.rs up to date",
            mutation.what, mutation.file
        )
    })
}

/// Makes the mutations, of a stage or with a word in their description if that is asked for, and
/// says which rows notice each.
pub(super) fn run(root: &Path, only: Option<&str>) -> Result<()> {
    let places = Places::of(root)?;
    let wrong = violations(&places.programs)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let wanted = |mutation: &&Mutation| {
        only.is_none_or(|only| match only.parse::<u8>() {
            Ok(stage) => mutation.stage == stage,
            Err(_) => mutation.what.contains(only),
        })
    };
    let chosen: Vec<&Mutation> = MUTATIONS.iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "no mutation is of this stage or has this word in its description");
    let search = Search::run(&places.workshop)?;
    let Some(toolchain) = search.prefer(None) else {
        bail!("the programs can't be built here:\n  {}", search.missing.join("\n  "));
    };
    let bench = Bench::new(&places, toolchain)?;
    let begun = Instant::now();
    bench.build()?;
    let unchanged = bench.rows()?;
    ensure!(unchanged == Noticed::No, "the rows fail without any mutation: {unchanged}");

    let mut table = Vec::new();
    for (n, mutation) in chosen.iter().enumerate() {
        let noticed = bench.judge(mutation)?;
        println!("mutate: {}/{} {}: {}: {noticed}", n + 1, chosen.len(), mutation.stage, mutation.what);
        table.push((*mutation, noticed));
    }
    println!("\n{:>5}  {:<64}  caught by", "stage", "mutation");
    for (mutation, noticed) in &table {
        println!("{:>5}  {:<64}  {noticed}", mutation.stage, mutation.what);
    }
    println!("{} mutations in {} s", table.len(), begun.elapsed().as_secs());
    let missed = table.iter().filter(|(_, noticed)| !matches!(noticed, Noticed::By(..))).count();
    ensure!(missed == 0, "{missed} mutation(s) that no row notices: add the row to loxi-conformance/rows");
    Ok(())
}

/// A copy of the sources that is changed, built, and put before the rows.
struct Bench<'a> {
    places: Places,
    toolchain: &'a Toolchain,
}

/// What became of a mutant.
#[derive(Debug, PartialEq, Eq)]
enum Noticed {
    /// Rows failed: the first one, and how many more.
    By(String, usize),
    /// The rows passed.
    No,
    /// It is no program at all: it doesn't build or load.
    Broken(String),
}

impl fmt::Display for Noticed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(row, 0) => f.write_str(row),
            Self::By(row, more) => write!(f, "{row} (and {more} more)"),
            Self::No => f.write_str("NOT CAUGHT"),
            Self::Broken(why) => write!(f, "NOT TRIED: {why}"),
        }
    }
}

impl<'a> Bench<'a> {
    fn new(of: &Places, toolchain: &'a Toolchain) -> Result<Self> {
        let workshop = of.workshop.join("mutants");
        let programs = workshop.join("sources");
        if programs.exists() {
            fs::remove_dir_all(&programs).with_context(|| format!("removing {}", programs.display()))?;
        }
        for folder in ["programs", "layout"] {
            copy(&of.programs.join(folder), &programs.join(folder))?;
        }
        let committed = workshop.join("obj");
        let places = Places { root: of.root.clone(), programs, committed, workshop };
        Ok(Self { places, toolchain })
    }

    fn build(&self) -> Result<()> {
        let objects = build::build(&self.places, self.toolchain, false)?;
        place(&objects, &self.places.committed)
    }

    fn judge(&self, mutation: &Mutation) -> Result<Noticed> {
        let path = self.places.programs.join("programs/src").join(mutation.file);
        let source = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mutant = source.replacen(mutation.old, mutation.new, 1);
        fs::write(&path, mutant).with_context(|| format!("writing {}", path.display()))?;
        let built = self.build();
        // Before anything else fails: the next one begins from the source as it is.
        fs::write(&path, source).with_context(|| format!("writing {}", path.display()))?;
        match built {
            Ok(()) => self.rows(),
            Err(_) => Ok(Noticed::Broken("it doesn't build".to_owned())),
        }
    }

    /// Puts the objects before the rows, at TC, then where nobody noticed at XDP.
    fn rows(&self) -> Result<Noticed> {
        for hook in ["rows_at_tc", "rows_at_xdp"] {
            let output = Command::new(env!("CARGO"))
                .args(["test", "--quiet", "--package", "loxi-backend-ebpf", "--test", "conformance", hook])
                .current_dir(&self.places.root)
                .env("LOXI_EBPF_OBJ", &self.places.committed)
                .output()
                .context("running the rows")?;
            if output.status.success() {
                continue;
            }
            return Ok(noticed(&String::from_utf8_lossy(&output.stdout), hook));
        }
        Ok(Noticed::No)
    }
}

/// Who noticed, by what a failed test has printed: the report names each row that failed, more than once.
fn noticed(printed: &str, hook: &str) -> Noticed {
    let mut rows: Vec<&str> = Vec::new();
    for row in printed.lines().filter_map(|line| line.trim_start().split("FAILED ").nth(1)) {
        if row.contains(": ") && !rows.contains(&row) {
            rows.push(row);
        }
    }
    match rows.split_first() {
        Some((first, more)) if hook == "rows_at_tc" => Noticed::By((*first).to_owned(), more.len()),
        Some((first, more)) => Noticed::By(format!("{first}, at XDP"), more.len()),
        None => Noticed::Broken(why_not(printed)),
    }
}

/// Why there was no row at all: what the test panicked with, which may go on for megabytes.
fn why_not(printed: &str) -> String {
    let mut lines = printed.lines().skip_while(|line| !line.contains("panicked at"));
    let said: String = lines.nth(1).unwrap_or("it failed without a word").chars().take(160).collect();
    format!("it doesn't load: {said}")
}

/// Copies sources, without build products.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name() == "target" {
            continue;
        }
        if path.is_dir() {
            copy(&path, &copied)?;
        } else {
            fs::copy(&path, &copied).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUTATION: Mutation =
        Mutation { stage: 3, file: "stage/ingress.rs", old: "if a {", new: "if true {", what: "a" };

    #[test]
    fn a_mutation_must_find_its_place_once() {
        assert_eq!(misplaced(&MUTATION, "if a { if b {"), None);
        assert!(misplaced(&MUTATION, "if b {").unwrap().contains("finds its text 0 times"));
        assert!(misplaced(&MUTATION, "if a { if a {").unwrap().contains("finds its text 2 times"));
    }

    #[test]
    fn rows_that_fail_are_named_once() {
        let printed = "FAILED policy.yaml: one\n  step 1: x\nFAILED nat.yaml: two\nFAILED policy.yaml: one\n\
                       rows 1\ntest rows_at_tc ... FAILED\ntest result: FAILED. 0 passed";
        assert_eq!(noticed(printed, "rows_at_tc"), Noticed::By("policy.yaml: one".to_owned(), 1));
        let unloaded = "thread panicked at x.rs:1:\nLoad(Object)\ntest rows_at_tc ... FAILED\ntest result: FAILED. 0 passed";
        assert_eq!(
            noticed(unloaded, "rows_at_tc"),
            Noticed::Broken("it doesn't load: Load(Object)".to_owned())
        );
    }

    #[test]
    fn mutations_change_something_at_every_stage_that_there_is() {
        for mutation in MUTATIONS {
            assert_ne!(mutation.old, mutation.new, "{}", mutation.what);
        }
        // Access lists and meters have no programs yet.
        let without = [2, 15];
        for stage in (0..=16).filter(|stage| !without.contains(stage)) {
            assert!(MUTATIONS.iter().any(|mutation| mutation.stage == stage), "none at stage {stage}");
        }
    }
}
