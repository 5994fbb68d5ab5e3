//! House rules for source files that neither rustfmt nor clippy hold.
//!
//! A file has at most [`LINE_LIMIT`] lines, carries no mark of unfinished
//! work, and no module is a drawer for what found no name. Build products,
//! hidden folders and folders of generated code are not looked at.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

const LINE_LIMIT: usize = 600;

/// Written in halves, so that this file passes its own check.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

const DRAWERS: &[&str] = &["util", "utils", "helper", "helpers", "misc", "common"];

const SOURCES: &[&str] = &["rs", "sh", "py", "c", "h"];

/// Every violation in the tree at `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        found.extend(judge(name, &String::from_utf8_lossy(&content)));
    }
    Ok(found)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if skipped(&path) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if is_source(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn skipped(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_symlink()
        || name.starts_with('.')
        || name == "generated"
        || name == "corpus"
        || name == "target"
        || name.starts_with("target-")
}

fn is_source(path: &Path) -> bool {
    match path.extension() {
        Some(extension) => SOURCES.iter().any(|known| extension == *known),
        // Scripts are named after what they do, without an extension.
        None => path.parent().and_then(Path::file_name) == Some("scripts".as_ref()),
    }
}

fn judge(name: &Path, content: &str) -> Vec<String> {
    let mut found = Vec::new();
    let shown = name.display();
    let lines = content.lines().count();
    if lines > LINE_LIMIT {
        found.push(format!("{shown}: {lines} lines, the limit is {LINE_LIMIT}"));
    }
    for (number, line) in content.lines().enumerate() {
        for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
            found.push(format!("{shown}:{}: unfinished work ({mark})", number + 1));
        }
    }
    let module = match name.file_stem() {
        Some(stem) if stem == "mod" => name.parent().and_then(Path::file_name),
        stem => stem,
    };
    if name.extension() == Some("rs".as_ref())
        && let Some(module) = module
        && DRAWERS.iter().any(|drawer| module == *drawer)
    {
        let module = module.to_string_lossy();
        found.push(format!("{shown}: a module named `{module}` says nothing"));
    }
    found
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, content: &str) -> Vec<String> {
        judge(Path::new(name), content)
    }

    #[test]
    fn the_limit_is_inclusive() {
        assert!(judged("a.rs", &"x\n".repeat(LINE_LIMIT)).is_empty());
        assert_eq!(judged("a.rs", &"x\n".repeat(LINE_LIMIT + 1)), ["a.rs: 601 lines, the limit is 600"]);
    }

    #[test]
    fn marks_are_found_as_words_with_their_line() {
        let content = format!("fine\n// {}: later\nMASTODON {}S", MARKS[0], MARKS[0]);
        assert_eq!(judged("a.rs", &content), [format!("a.rs:2: unfinished work ({})", MARKS[0])]);
    }

    #[test]
    fn drawers_are_refused_in_both_spellings() {
        for name in ["x/utils.rs", "x/utils/mod.rs"] {
            assert_eq!(judged(name, ""), [format!("{name}: a module named `utils` says nothing")]);
        }
        assert!(judged("x/lookups.rs", "").is_empty());
    }

    #[test]
    fn build_products_are_not_looked_at() {
        for name in ["/w/target", "/w/target-chan", "/w/.git", "/w/x/generated"] {
            assert!(skipped(Path::new(name)), "{name}");
        }
        assert!(!skipped(Path::new("/w/targets")));
    }

    #[test]
    fn scripts_count_as_sources() {
        assert!(is_source(Path::new("scripts/preflight")));
        assert!(is_source(Path::new("a/b.rs")));
        assert!(!is_source(Path::new("README.md")));
    }
}
