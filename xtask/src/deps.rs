//! The dependency table of the workspace, and its check.
//!
//! The table is the one of `docs/architecture.md`. Normal and build
//! dependencies are held to it, optional ones included; dev-dependencies are
//! free. A workspace member that the table does not name is a violation: a new
//! crate states its place before it gets in.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What one crate may depend on among the workspace's members.
#[derive(Debug, Clone, Copy)]
enum May {
    /// Exactly these.
    Only(&'static [&'static str]),
    /// Any member: tests, benches and the lab see everything.
    All,
}

use May::{All, Only};

const TABLE: &[(&str, May)] = &[
    ("loxi-core", Only(&[])),
    ("loxi-reference", Only(&["loxi-core"])),
    ("loxi-conformance", Only(&["loxi-core", "loxi-reference"])),
    ("loxi-linux", Only(&[])),
    ("loxi-softpath", Only(&["loxi-core"])),
    ("loxi-backend-ebpf", Only(&["loxi-core", "loxi-linux", "loxi-softpath", "loxi-ebpf-layout"])),
    ("loxi-ebpf-layout", Only(&[])),
    ("loxi-backend-dpdk-sim", BACKEND),
    ("loxi-backend-bluefield", BACKEND),
    ("loxi-channel", Only(&["loxi-core"])),
    (
        "loxilightd",
        Only(&[
            "loxi-core",
            "loxi-reference",
            "loxi-linux",
            "loxi-softpath",
            "loxi-backend-ebpf",
            "loxi-backend-dpdk-sim",
            "loxi-backend-bluefield",
            "loxi-channel",
        ]),
    ),
    ("loxi-agent", Only(&["loxi-core", "loxi-channel", "loxi-linux", "loxi-cni-proto"])),
    ("loxi-cni", Only(&["loxi-cni-proto"])),
    ("loxi-cni-proto", Only(&[])),
    ("llcli", Only(&["loxi-core", "loxi-channel"])),
    ("loxi-tests", All),
    ("loxi-benches", All),
    ("lab", All),
    ("xtask", Only(&[])),
];

const BACKEND: May = Only(&["loxi-core", "loxi-linux", "loxi-softpath"]);

/// Every violation of the table in the workspace at `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    violations(&metadata)
}

fn violations(metadata: &Value) -> Result<Vec<String>> {
    let table: BTreeMap<_, _> = TABLE.iter().copied().collect();
    let packages = list(metadata, "packages")?;
    let members = packages.iter().map(|package| text(package, "name")).collect::<Result<Vec<_>>>()?;

    let mut found = Vec::new();
    for package in packages {
        let name = text(package, "name")?;
        let Some(may) = table.get(name) else {
            found.push(format!("`{name}` is not in the dependency table"));
            continue;
        };
        for dependency in list(package, "dependencies")? {
            let on = text(dependency, "name")?;
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            if kind == "dev" || !members.contains(&on) {
                continue;
            }
            // A stranger owns some of our names on the registry.
            if dependency["path"].is_null() {
                found.push(format!("`{name}` takes `{on}` from elsewhere than a path"));
            }
            if let Only(allowed) = may
                && !allowed.contains(&on)
            {
                found.push(format!("`{name}` may not depend on `{on}` ({kind} dependency)"));
            }
        }
    }
    Ok(found)
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field].as_array().with_context(|| format!("cargo metadata has no list `{field}`"))
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("cargo metadata has no text `{field}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A crate and what it depends on, each with the kind of the dependency.
    type Package<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

    fn workspace(packages: &[Package<'_>]) -> Value {
        let packages: Vec<_> = packages
            .iter()
            .map(|(name, dependencies)| {
                let dependencies: Vec<_> = dependencies
                    .iter()
                    .map(|(on, kind)| json!({ "name": on, "kind": kind, "path": "/somewhere" }))
                    .collect();
                json!({ "name": name, "dependencies": dependencies })
            })
            .collect();
        json!({ "packages": packages })
    }

    #[test]
    fn what_the_table_allows_passes() {
        let good = workspace(&[
            ("loxi-core", &[("serde", None)]),
            ("loxi-channel", &[("loxi-core", None), ("nng", None)]),
            ("llcli", &[("loxi-core", None), ("loxi-channel", None)]),
            ("lab", &[("llcli", None), ("loxi-channel", None)]),
        ]);
        assert_eq!(violations(&good).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn normal_and_build_dependencies_are_held_and_dev_ones_free() {
        let bad = workspace(&[
            ("loxi-core", &[]),
            ("loxi-linux", &[]),
            ("llcli", &[("loxi-linux", None), ("loxi-linux", Some("build")), ("loxi-linux", Some("dev"))]),
        ]);
        assert_eq!(
            violations(&bad).unwrap(),
            [
                "`llcli` may not depend on `loxi-linux` (normal dependency)",
                "`llcli` may not depend on `loxi-linux` (build dependency)",
            ]
        );
    }

    #[test]
    fn a_crate_without_a_place_is_named() {
        let unknown = workspace(&[("loxi-surprise", &[])]);
        assert_eq!(violations(&unknown).unwrap(), ["`loxi-surprise` is not in the dependency table"]);
    }

    #[test]
    fn a_member_from_the_registry_is_refused() {
        let bad = json!({ "packages": [
            { "name": "loxi-core", "dependencies": [] },
            { "name": "loxi-reference",
              "dependencies": [{ "name": "loxi-core", "kind": null, "path": null }] },
        ] });
        assert_eq!(
            violations(&bad).unwrap(),
            ["`loxi-reference` takes `loxi-core` from elsewhere than a path"]
        );
    }

    #[test]
    fn the_table_names_only_crates_that_it_has() {
        let names: Vec<_> = TABLE.iter().map(|(name, _)| *name).collect();
        for (name, may) in TABLE {
            if let Only(allowed) = may {
                for on in *allowed {
                    assert!(names.contains(on), "{name} names {on}");
                }
            }
        }
    }
}
