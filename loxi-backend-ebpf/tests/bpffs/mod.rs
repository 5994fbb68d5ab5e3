//! What is kept on a bpf file system, as bpftool sees it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A bpf file system of the test's own.
pub struct Mounted(tempfile::TempDir);

impl Mounted {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()).status().unwrap();
        assert!(mounted.success(), "a bpf file system can't be mounted");
        Self(folder)
    }

    pub fn pins(&self) -> PathBuf {
        self.0.path().join("node")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn bpftool(args: &[&str], map: &Path, more: &[String]) -> Vec<u8> {
    let output =
        Command::new("bpftool").args(args).arg("pinned").arg(map).args(more).output().expect("bpftool runs");
    assert!(output.status.success(), "bpftool {args:?} {}: {output:?}", map.display());
    output.stdout
}

fn hex(of: &str, bytes: &[u8]) -> Vec<String> {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    [of.to_owned(), "hex".to_owned()].into_iter().chain(digits).collect()
}

/// Keys and values of a map.
pub fn dump(map: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let found: serde_json::Value =
        serde_json::from_slice(&bpftool(&["-j", "map", "dump"], map, &[])).unwrap();
    let bytes = |value: &serde_json::Value| {
        let digits = value.as_array().unwrap().iter();
        digits.map(|digit| u8::from_str_radix(&digit.as_str().unwrap()[2..], 16).unwrap()).collect()
    };
    found.as_array().unwrap().iter().map(|entry| (bytes(&entry["key"]), bytes(&entry["value"]))).collect()
}

pub fn update(map: &Path, key: &[u8], value: &[u8]) {
    bpftool(&["map", "update"], map, &[hex("key", key), hex("value", value)].concat());
}

/// What stands in every map that isn't large, as the kernel tells it.
pub fn tables(pins: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(pins).unwrap() {
        let path = file.unwrap().path();
        let shown =
            Command::new("bpftool").args(["-j", "map", "show", "pinned"]).arg(&path).output().unwrap();
        let Ok(shown) = serde_json::from_slice::<serde_json::Value>(&shown.stdout) else { continue };
        let kind = shown["type"].as_str().unwrap_or_default();
        let entries = shown["max_entries"].as_u64().unwrap_or(u64::MAX);
        let readable = !matches!(kind, "prog_array" | "ringbuf" | "devmap" | "");
        if readable && (entries <= 4096 || kind.ends_with("hash") || kind == "lpm_trie") {
            all.push((path.clone(), bpftool(&["-j", "map", "dump"], &path, &[])));
        }
    }
    assert!(all.len() > 20, "only {} maps were read", all.len());
    all.sort();
    all
}

/// The kernel's numbers of everything that is kept, by path below the folder; of folders none.
pub fn ids(pins: &Path) -> BTreeMap<PathBuf, Option<u64>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![pins.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(pins).unwrap().to_owned();
            let id = if path.is_dir() { None } else { Some(id(&path)) };
            found.insert(name, id);
            if id.is_none() {
                folders.push(path);
            }
        }
    }
    found
}

/// The kernel's number of what is kept at a path.
fn id(path: &Path) -> u64 {
    let asked = |kind: &str| {
        let shown = Command::new("bpftool")
            .args(["-j", kind, "show", "pinned"])
            .arg(path)
            .output()
            .expect("bpftool runs");
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).ok()?;
        shown["id"].as_u64()
    };
    let id = ["map", "prog", "link"].into_iter().find_map(asked);
    id.unwrap_or_else(|| panic!("bpftool does not know {}", path.display()))
}
