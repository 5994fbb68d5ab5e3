//! Checks of the workspace that cargo itself does not make.
//!
//! `cargo xtask deps` holds the crates to the dependency table, `cargo xtask
//! loc` holds the source files to the house rules. Both print every violation
//! before they fail, and change nothing. `cargo xtask measurements` writes
//! `docs/measurements.md` from the committed figures, `cargo xtask ebpf` the
//! committed objects of the eBPF programs.

mod deps;
mod ebpf;
mod loc;
mod measurements;

use anyhow::{Context, Result, bail};
use std::path::Path;

const HELP: &str = "usage: cargo xtask <check>

  deps   no crate depends on what the dependency table does not allow
  loc    no source file over the line limit, no leftover marks, no catch-all modules
  measurements [--check | --collect]
         writes docs/measurements.md from docs/measurements.json; --check only compares;
         --collect first takes the figures of the last `cargo bench` of this machine
  ebpf [--check | --mutate [STAGE | WORD]]
         builds the eBPF programs and writes loxi-backend-ebpf/obj; --check holds the objects there
         to their record, and to a fresh build where this machine has a toolchain; --mutate holds the
         conformance rows to noticing each mutation of the programs, or those of a stage or with a word";

fn main() -> Result<()> {
    if ebpf::is_compiler() {
        return ebpf::compile();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?;
    let mut arguments = std::env::args().skip(1);
    let check = arguments.next();
    let option = arguments.next();
    let only = arguments.next();
    let has_options = matches!(check.as_deref(), Some("measurements" | "ebpf"));
    let has_choice = check.as_deref() == Some("ebpf") && option.as_deref() == Some("--mutate");
    if arguments.next().is_some() || (only.is_some() && !has_choice) || (option.is_some() && !has_options) {
        bail!("one check at a time\n\n{HELP}");
    }
    match check.as_deref() {
        Some("deps") => report("deps", deps::check(root)?),
        Some("loc") => report("loc", loc::check(root)?),
        Some("measurements") => match option.as_deref() {
            None => measurements::write(root),
            Some("--collect") => measurements::collect(root).and_then(|()| measurements::write(root)),
            Some("--check") => report("measurements", measurements::check(root)?),
            Some(other) => bail!("unknown option `{other}`\n\n{HELP}"),
        },
        Some("ebpf") => match option.as_deref() {
            None => ebpf::write(root),
            Some("--check") => report("ebpf", ebpf::check(root)?),
            Some("--mutate") => ebpf::mutate(root, only.as_deref()),
            Some(other) => bail!("unknown option `{other}`\n\n{HELP}"),
        },
        None | Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(())
        }
        Some(other) => bail!("unknown check `{other}`\n\n{HELP}"),
    }
}

fn report(check: &str, violations: Vec<String>) -> Result<()> {
    for violation in &violations {
        eprintln!("{check}: {violation}");
    }
    if violations.is_empty() {
        println!("{check}: ok");
        Ok(())
    } else {
        bail!("{check}: {} violation(s)", violations.len());
    }
}
