//! A build whose bytes depend on sources and toolchain only.
//!
//! Two things of a machine get into an object. Source paths, in BTF's line
//! info: each folder that sources come from is given a name of its own. And
//! cargo's hash of a package, which is part of the names by which the compiler
//! orders functions: for packages outside of the programs' workspace, as
//! `layout` and `core` are, it covers where they are. So cargo calls this
//! binary in place of the compiler, which puts the package's name and version
//! there ([`compile`]). What the environment says about flags and profiles
//! doesn't count.

use super::toolchain::Toolchain;
use super::{Objects, Places, strip};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "bpfel-unknown-none";

/// Set for this binary where it stands in for the compiler.
const COMPILER: &str = "LOXI_XTASK_IS_COMPILER";

/// Builds every program; `again` also what the last build left.
pub(super) fn build(places: &Places, toolchain: &Toolchain, again: bool) -> Result<Objects> {
    let folder = places.programs.join("programs");
    let target = places.workshop.join("target");
    let metadata = metadata(&folder, &["--locked", "--filter-platform", TARGET])?;
    if again {
        let mut clean = cargo(toolchain, &folder, &target, "clean")?;
        // Of what the configuration says, cleaning ignores the target.
        clean.args(["--quiet", "--target", TARGET]);
        for package in ours(&metadata)? {
            clean.args(["--package", package]);
        }
        run(&mut clean)?;
    }
    let flags: Vec<_> = renamed(places, toolchain, &metadata)?
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect();
    // JSON's lists of texts are TOML's.
    let flags = format!("build.rustflags={}", serde_json::to_string(&flags)?);
    run(cargo(toolchain, &folder, &target, "build")?.args(["--bins", "--locked", "--config", &flags]))?;

    let mut objects = Objects::new();
    for program in programs(&metadata)? {
        let path = target.join(TARGET).join("release").join(program);
        let object = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        objects.insert(program.to_owned(), strip::strip(&object).with_context(|| program.to_owned())?);
    }
    Ok(objects)
}

/// What cargo says about the package in a folder.
pub(super) fn metadata(folder: &Path, options: &[&str]) -> Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1"])
        .args(options)
        .current_dir(folder)
        .output()
        .context("running cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

/// Whether cargo called this binary in place of the compiler.
pub(crate) fn is_compiler() -> bool {
    env::var_os(COMPILER).is_some()
}

/// Becomes the compiler, with a hash that has nothing of this machine.
pub(crate) fn compile() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let compiler = arguments.next().context("called without a compiler")?;
    let package = ["CARGO_PKG_NAME", "CARGO_PKG_VERSION"].map(|name| env::var(name).unwrap_or_default());
    let arguments = pinned(arguments.collect(), &package.join("-"));
    Err(Command::new(&compiler).args(arguments).exec())
        .with_context(|| format!("running {}", compiler.display()))
}

/// The compiler's arguments, with the package in place of its hash if it is compiled for BPF.
fn pinned(mut arguments: Vec<OsString>, package: &str) -> Vec<OsString> {
    if arguments.iter().any(|argument| argument == TARGET) {
        for argument in &mut arguments {
            if argument.to_string_lossy().starts_with("metadata=") {
                *argument = format!("metadata={package}").into();
            }
        }
    }
    arguments
}

fn cargo(toolchain: &Toolchain, folder: &Path, target: &Path, command: &str) -> Result<Command> {
    let mut cargo = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os().filter(|(name, _)| is_setting(name)) {
        cargo.env_remove(name);
    }
    cargo
        .args([command, "--release", "--target-dir"])
        .arg(target)
        .current_dir(folder)
        .env("RUSTC", &toolchain.rustc)
        // `core` is built along, with a compiler that need not be a nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC_WRAPPER", env::current_exe().context("finding this binary")?)
        .env(COMPILER, "1")
        // Otherwise the bindings would be those of this machine's architecture.
        .env("AYA_BPF_TARGET_ARCH", "x86_64");
    Ok(cargo)
}

/// Whether a variable would change what cargo builds here.
fn is_setting(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let flags = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_INCREMENTAL"];
    let groups = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];
    flags.contains(&&*name)
        || (groups.iter().any(|group| name.starts_with(group)) && name != "CARGO_BUILD_JOBS")
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    if !status.success() {
        bail!("the programs don't build ({status})");
    }
    Ok(())
}

/// The folders that sources come from, with the names that objects have for them.
fn renamed(places: &Places, toolchain: &Toolchain, metadata: &Value) -> Result<Vec<(PathBuf, String)>> {
    let mut folders = vec![(places.root.clone(), "/loxi".to_owned())];
    for package in packages(metadata)?.iter().filter(|package| !package["source"].is_null()) {
        let manifest = Path::new(text(package, "manifest_path")?);
        let folder = manifest.parent().context("a manifest without a folder")?;
        folders
            .push((folder.to_owned(), format!("/{}-{}", text(package, "name")?, text(package, "version")?)));
    }
    // Cargo takes the one, and Debian has the other behind it.
    let real = toolchain.sources.canonicalize().context("finding core's sources")?;
    folders.extend([toolchain.sources.clone(), real].map(|folder| (folder, "/rust".to_owned())));
    Ok(folders)
}

fn programs(metadata: &Value) -> Result<Vec<&str>> {
    let mut found = Vec::new();
    for package in packages(metadata)?.iter().filter(|package| package["source"].is_null()) {
        for target in package["targets"].as_array().context("a package without targets")? {
            let is_program =
                target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"));
            if is_program {
                found.push(text(target, "name")?);
            }
        }
    }
    ensure!(!found.is_empty(), "there are no programs");
    Ok(found)
}

fn ours(metadata: &Value) -> Result<Vec<&str>> {
    let ours = packages(metadata)?.iter().filter(|package| package["source"].is_null());
    ours.map(|package| text(package, "name")).collect()
}

fn packages(metadata: &Value) -> Result<&Vec<Value>> {
    metadata["packages"].as_array().context("cargo metadata has no packages")
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("cargo metadata has no text `{field}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn arguments(of: &[&str]) -> Vec<OsString> {
        of.iter().map(OsString::from).collect()
    }

    #[test]
    fn only_the_hash_of_what_is_compiled_for_bpf_is_replaced() {
        let bpf =
            ["--crate-name", "x", "-C", "metadata=12ab", "-C", "extra-filename=-12ab", "--target", TARGET];
        let mut expected = bpf;
        expected[3] = "metadata=layout-0.1.0";
        assert_eq!(pinned(arguments(&bpf), "layout-0.1.0"), arguments(&expected));
        assert_eq!(pinned(arguments(&bpf[..6]), "layout-0.1.0"), arguments(&bpf[..6]));
    }

    #[test]
    fn the_environment_decides_how_fast_but_not_what() {
        for name in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_PROFILE_RELEASE_LTO", "CARGO_TARGET_DIR"] {
            assert!(is_setting(name.as_ref()), "{name}");
        }
        for name in ["PATH", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS"] {
            assert!(!is_setting(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn the_programs_are_the_binaries_of_our_packages() {
        let metadata = json!({ "packages": [
            { "name": "dependency", "source": "registry", "targets": [{ "name": "tool", "kind": ["bin"] }] },
            { "name": "programs", "source": null, "targets": [
                { "name": "programs", "kind": ["lib"] },
                { "name": "tc", "kind": ["bin"] },
                { "name": "xdp", "kind": ["bin"] },
            ] },
        ] });
        assert_eq!(programs(&metadata).unwrap(), ["tc", "xdp"]);
        assert_eq!(ours(&metadata).unwrap(), ["programs"]);
    }
}
