//! The compilers that can build the programs, and what is missing where none can.
//!
//! A compiler needs the sources of `core`, because no toolchain carries it
//! built for BPF, and `bpf-linker`, whose LLVM writes the instructions. Either
//! rustup's nightly, pinned by name, or what Debian packages.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NIGHTLY: &str = "nightly-2026-05-20";
const LINKER: &str = "0.13.0";

/// The compiler of Debian, and the oldest that knows the intrinsics of `src/atomic.rs` as they are used.
const DEBIANS: &str = "/usr/bin/rustc";
const OLDEST: (u32, u32) = (1, 96);

/// What decides about an object's bytes besides its sources.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Versions {
    rustc: String,
    rustc_llvm: String,
    bpf_linker: String,
    bpf_linker_llvm: String,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, rustc_llvm, bpf_linker, bpf_linker_llvm } = self;
        write!(f, "rustc {rustc} (LLVM {rustc_llvm}), bpf-linker {bpf_linker} (LLVM {bpf_linker_llvm})")
    }
}

/// A complete one.
#[derive(Debug)]
pub(super) struct Toolchain {
    pub(super) versions: Versions,
    pub(super) rustc: PathBuf,
    pub(super) cargo: PathBuf,
    /// The folder that has the sources of `core` in it.
    pub(super) sources: PathBuf,
}

/// What this machine has.
#[derive(Debug)]
pub(super) struct Search {
    toolchains: Vec<Toolchain>,
    /// For each that is not complete, what it lacks and how to get that.
    pub(super) missing: Vec<String>,
}

impl Search {
    pub(super) fn run(workshop: &Path) -> Result<Self> {
        let linker = linker(workshop)?;
        let mut search = Self { toolchains: Vec::new(), missing: Vec::new() };
        for compiler in [rustups(), debians()] {
            let found = match (&linker, compiler) {
                (Some(linker), Ok(compiler)) => compiler.with(linker),
                (None, Ok(_)) => continue,
                (_, Err(missing)) => Err(missing),
            };
            match found {
                Ok(toolchain) => search.toolchains.push(toolchain),
                Err(missing) => search.missing.push(missing),
            }
        }
        if linker.is_none() {
            search.missing.push(format!(
                "no bpf-linker in PATH (on Debian: scripts/ebpf-toolchain; elsewhere: its release {LINKER})"
            ));
        }
        Ok(search)
    }

    /// The one with these versions, or else the first.
    pub(super) fn prefer(&self, versions: Option<&Versions>) -> Option<&Toolchain> {
        let same = |toolchain: &&Toolchain| Some(&toolchain.versions) == versions;
        self.toolchains.iter().find(same).or(self.toolchains.first())
    }
}

struct Compiler {
    version: String,
    llvm: String,
    rustc: PathBuf,
    cargo: PathBuf,
    sources: PathBuf,
}

struct Linker {
    version: String,
    llvm: String,
}

impl Compiler {
    fn with(self, linker: &Linker) -> Result<Toolchain, String> {
        if major(&self.llvm) > major(&linker.llvm) {
            return Err(format!(
                "bpf-linker's LLVM {} can't read what the LLVM {} of {} writes (a newer bpf-linker can)",
                linker.llvm,
                self.llvm,
                self.rustc.display()
            ));
        }
        let versions = Versions {
            rustc: self.version,
            rustc_llvm: self.llvm,
            bpf_linker: linker.version.clone(),
            bpf_linker_llvm: linker.llvm.clone(),
        };
        Ok(Toolchain { versions, rustc: self.rustc, cargo: self.cargo, sources: self.sources })
    }
}

/// Unknown versions pass: the build itself will tell.
fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

fn rustups() -> Result<Compiler, String> {
    let install = format!("rustup toolchain install {NIGHTLY} --profile minimal --component rust-src");
    let which = |program| {
        let mut rustup = Command::new("rustup");
        // Asking for a toolchain must not install it.
        rustup.env("RUSTUP_AUTO_INSTALL", "0").args(["which", "--toolchain", NIGHTLY, program]);
        answer(&mut rustup).map(PathBuf::from)
    };
    let (Some(rustc), Some(cargo)) = (which("rustc"), which("cargo")) else {
        return Err(format!("rustup has no {NIGHTLY} ({install})"));
    };
    compiler(rustc, cargo).map_err(|lack| format!("rustup's {NIGHTLY} {lack} ({install})"))
}

fn debians() -> Result<Compiler, String> {
    let remedy = "(on Debian: scripts/ebpf-toolchain)";
    if !Path::new(DEBIANS).exists() {
        return Err(format!("there is no {DEBIANS} {remedy}"));
    }
    compiler(DEBIANS.into(), env!("CARGO").into()).map_err(|lack| format!("{DEBIANS} {lack} {remedy}"))
}

/// The compiler at a path, or what is wrong with it.
fn compiler(rustc: PathBuf, cargo: PathBuf) -> Result<Compiler, String> {
    let ask = |option| answer(Command::new(&rustc).arg(option));
    let (Some(about), Some(root)) = (ask("-vV"), ask("--print=sysroot")) else {
        return Err("doesn't run".to_owned());
    };
    let (version, llvm) = versions(&about).ok_or("doesn't tell its version")?;
    if release(&version) < Some(OLDEST) {
        return Err(format!("is {version}, and the programs need {}.{} or newer", OLDEST.0, OLDEST.1));
    }
    let sources = Path::new(&root).join("lib/rustlib/src/rust");
    if !sources.join("library/core").is_dir() {
        return Err("has no sources of core".to_owned());
    }
    Ok(Compiler { version, llvm, rustc, cargo, sources })
}

/// Version and LLVM's version of what `rustc -vV` says.
fn versions(about: &str) -> Option<(String, String)> {
    let after = |start| about.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned);
    Some((after("rustc ")?, after("LLVM version: ")?))
}

fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn linker(workshop: &Path) -> Result<Option<Linker>> {
    let Some(about) = answer(Command::new("bpf-linker").arg("--version")) else { return Ok(None) };
    let version = about.rsplit(' ').next().unwrap_or_default().to_owned();
    // It has no option that tells its LLVM, but its bitcode begins with that.
    let (empty, bitcode) = (workshop.join("empty.ll"), workshop.join("empty.bc"));
    fs::write(&empty, "target triple = \"bpfel\"\n")
        .with_context(|| format!("writing {}", empty.display()))?;
    let linked =
        answer(Command::new("bpf-linker").args(["--emit", "llvm-bc", "-o"]).args([&bitcode, &empty]))
            .is_some();
    let llvm = if linked { fs::read(&bitcode).ok().and_then(|bitcode| producer(&bitcode)) } else { None };
    Ok(Some(Linker { version, llvm: llvm.unwrap_or_else(|| "unknown".to_owned()) }))
}

/// The version in the identification block that bitcode begins with: a length
/// of six bits, then letters of six bits each, at no byte's boundary.
fn producer(bitcode: &[u8]) -> Option<String> {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";
    const BLOCK: usize = 64;
    let bits: Vec<u8> =
        bitcode.iter().take(BLOCK).flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)).collect();
    let sixes =
        |at: usize| bits[at..].chunks_exact(6).map(|six| six.iter().rev().fold(0, |n, bit| n << 1 | bit));
    (0..bits.len()).find_map(|at| {
        let mut letters = sixes(at);
        let length = usize::from(letters.next()?);
        let name: String = letters.take(length).map(|six| char::from(LETTERS[usize::from(six)])).collect();
        let version = name.strip_prefix("LLVM")?;
        (name.len() == length && version.starts_with(|c: char| c.is_ascii_digit()))
            .then(|| version.to_owned())
    })
}

/// What a program says, if it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(rustc: &str) -> Toolchain {
        let compiler = Compiler {
            version: rustc.into(),
            llvm: "22.1.8".into(),
            rustc: "rustc".into(),
            cargo: "cargo".into(),
            sources: "rust".into(),
        };
        compiler.with(&Linker { version: LINKER.into(), llvm: "22.1.8".into() }).unwrap()
    }

    #[test]
    fn the_recorded_toolchain_is_preferred() {
        let search = Search { toolchains: vec![toolchain("1.97.0"), toolchain("1.96.0")], missing: vec![] };
        let recorded = toolchain("1.96.0").versions;
        assert_eq!(search.prefer(Some(&recorded)).unwrap().versions, recorded);
        let other = toolchain("1.98.0").versions;
        assert_eq!(search.prefer(Some(&other)).unwrap().versions.rustc, "1.97.0");
        assert_eq!(search.prefer(None).unwrap().versions.rustc, "1.97.0");
    }

    #[test]
    fn an_older_linker_is_told() {
        let compiler = Compiler {
            version: "1.96.0".into(),
            llvm: "22.1.8".into(),
            rustc: "rustc".into(),
            cargo: "cargo".into(),
            sources: "rust".into(),
        };
        let lack = compiler.with(&Linker { version: LINKER.into(), llvm: "21.1.0".into() }).unwrap_err();
        assert!(lack.starts_with("bpf-linker's LLVM 21.1.0 can't read"), "{lack}");
    }

    #[test]
    fn a_compiler_tells_its_versions() {
        let about = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                     release: 1.96.0\nLLVM version: 22.1.8\n";
        let (version, llvm) = versions(about).unwrap();
        assert_eq!(version, "1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)");
        assert_eq!(llvm, "22.1.8");
        assert!(release(&version) >= Some(OLDEST));
        assert!(release("1.63.0") < Some(OLDEST));
        assert!(release("2.0.0-nightly (0 2030-01-01)") > Some(OLDEST));
    }

    #[test]
    fn bitcode_tells_its_llvm() {
        let bitcode = [
            0x42, 0x43, 0xc0, 0xde, 0x35, 0x14, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x62, 0x0c, 0x30, 0x24,
            0x4a, 0x59, 0xbe, 0xa6, 0x6d, 0xfb, 0xb5, 0xcf, 0x0b, 0x51, 0x80, 0x4c, 0x01, 0x00, 0x00, 0x00,
        ];
        assert_eq!(producer(&bitcode).as_deref(), Some("22.1.8"));
        assert_eq!(producer(&bitcode[..20]), None);
        assert_eq!(producer(b"no bitcode"), None);
    }

    #[test]
    fn the_script_installs_the_linker_that_is_named_here() {
        let script = include_str!("../../../scripts/ebpf-toolchain");
        assert!(script.contains(&format!("linker={LINKER}\n")));
    }
}
