//! What a run has found, for people as it goes and for programs when it is over.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::daemon::{Backend, Hooks};
use crate::plan::Family;
use crate::rows::{Outcome, Row};
use crate::session::Progress;

/// How a row went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowResult {
    /// The row's name.
    pub name: String,
    /// Its family.
    pub family: Family,
    /// Whether it passed.
    pub ok: bool,
    /// How long its traffic took.
    pub ms: u64,
    /// What was seen, or what was wrong.
    pub detail: String,
}

impl RowResult {
    /// A row passes if its traffic did and nothing is wrong with the proof.
    #[must_use]
    pub fn new(row: &Row, outcome: Outcome, wrong: &[String], took: Duration) -> Self {
        let (arrived, seen) = match outcome {
            Ok(seen) => (true, seen),
            Err(missed) => (false, missed),
        };
        let detail = std::iter::once(&seen).chain(wrong).map(String::as_str).collect::<Vec<_>>().join("; ");
        Self {
            name: row.name.clone(),
            family: row.family,
            ok: arrived && wrong.is_empty(),
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            detail,
        }
    }
}

/// Something that must hold before and after the rows, whatever passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What must hold.
    pub name: String,
    /// Whether it does.
    pub ok: bool,
    /// What contradicts it.
    pub detail: String,
}

/// What ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// This program.
    pub lab: String,
    /// The daemon, as it says.
    pub daemon: String,
    /// The kernel.
    pub kernel: String,
}

/// How many rows went how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// All of them.
    pub rows: usize,
    /// Those that passed.
    pub passed: usize,
    /// Those that did not.
    pub failed: usize,
    /// From the first to the last.
    pub ms: u64,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The instance.
    pub instance: String,
    /// The daemons' backend.
    pub backend: Backend,
    /// Where its programs were.
    pub hooks: Hooks,
    /// What ran.
    pub versions: Versions,
    /// How many rows went how.
    pub totals: Totals,
    /// What must hold whatever passes.
    pub checks: Vec<Check>,
    /// The rows.
    pub rows: Vec<RowResult>,
}

impl Report {
    /// Every row has passed, and there was one; every check holds.
    #[must_use]
    pub fn all_passed(&self) -> bool {
        self.checks_hold() && self.totals.rows > 0 && self.totals.failed == 0
    }

    /// No row has passed, and there was one; every check holds.
    #[must_use]
    pub fn all_failed(&self) -> bool {
        self.checks_hold() && self.totals.rows > 0 && self.totals.passed == 0
    }

    fn checks_hold(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// Writes it as JSON. Under sudo the file is given to the user who asked.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text)?;
        let id = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        match (id("SUDO_UID"), id("SUDO_GID")) {
            (Some(user), Some(group)) => std::os::unix::fs::chown(path, Some(user), Some(group)),
            _ => Ok(()),
        }
    }
}

impl Totals {
    /// Counts results.
    #[must_use]
    pub fn of(rows: &[RowResult], took: Duration) -> Self {
        let passed = rows.iter().filter(|row| row.ok).count();
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { rows: rows.len(), passed, failed: rows.len() - passed, ms }
    }
}

/// The live table on standard output. On a terminal the last line shows what is going on; elsewhere, and
/// in CI, there are only the finished lines.
#[derive(Debug)]
pub struct Table {
    live: bool,
    colours: bool,
    done: usize,
    rows: usize,
}

impl Table {
    /// A table for this standard output.
    #[must_use]
    pub fn new() -> Self {
        let live = std::io::stdout().is_terminal() && std::env::var_os("CI").is_none();
        Self { live, colours: live && std::env::var_os("NO_COLOR").is_none(), done: 0, rows: 0 }
    }

    /// A table of so many rows begins.
    pub fn begin(&mut self, rows: usize) {
        (self.done, self.rows) = (0, rows);
    }

    /// What is going on besides rows.
    pub fn status(&self, words: &str) {
        if self.live {
            // Without the end of the line: the next one takes its place.
            print!("\r\x1b[K{words}");
            let _ = std::io::stdout().flush();
        } else {
            println!("{words}");
        }
    }

    /// A check or another line.
    pub fn line(&self, words: &str) {
        println!("{}{words}", if self.live { "\r\x1b[K" } else { "" });
    }

    /// A check's line.
    pub fn check(&self, check: &Check) {
        let detail = if check.detail.is_empty() { String::new() } else { format!(": {}", check.detail) };
        self.line(&format!("{} {}{detail}", self.mark(check.ok), check.name));
    }

    /// A row's line, or the line that stands for what is going on.
    pub fn tell(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Begun(row) => {
                if self.live {
                    let next = self.done + 1;
                    self.status(&format!("[{next}/{}] {} {} …", self.rows, row.family, row.name));
                }
            }
            Progress::Ended(result) => {
                self.done += 1;
                let RowResult { name, family, ok, ms, detail } = result;
                self.line(&format!("{} {family} {name:<52} {ms:>6} ms  {detail}", self.mark(*ok)));
                if self.live {
                    self.status(&format!("[{}/{}]", self.done, self.rows));
                }
            }
        }
    }

    fn mark(&self, ok: bool) -> &'static str {
        match (ok, self.colours) {
            (true, false) => "  ok",
            (false, false) => "FAIL",
            (true, true) => "\x1b[32m  ok\x1b[0m",
            (false, true) => "\x1b[31mFAIL\x1b[0m",
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(passed: &[bool], check: bool) -> Report {
        let row = crate::rows::table().remove(0);
        let outcome = |ok: &bool| if *ok { Ok("seen".into()) } else { Err("missed".into()) };
        let rows: Vec<_> =
            passed.iter().map(|ok| RowResult::new(&row, outcome(ok), &[], Duration::ZERO)).collect();
        Report {
            instance: "lab".into(),
            backend: Backend::None,
            hooks: Hooks::Tc,
            versions: Versions { lab: "0".into(), daemon: "0".into(), kernel: "0".into() },
            totals: Totals::of(&rows, Duration::ZERO),
            checks: vec![Check { name: "c".into(), ok: check, detail: String::new() }],
            rows,
        }
    }

    #[test]
    fn nothing_run_is_nothing_passed() {
        assert!(!report(&[], true).all_passed() && !report(&[], true).all_failed());
        assert!(report(&[true, true], true).all_passed());
        assert!(!report(&[true, false], true).all_passed() && !report(&[true, false], true).all_failed());
        assert!(report(&[false], true).all_failed());
        assert!(!report(&[true], false).all_passed() && !report(&[false], false).all_failed());
    }

    #[test]
    fn traffic_without_proof_is_a_failure() {
        let row = crate::rows::table().remove(0);
        let wrong = ["the kernel did it".to_owned()];
        let result = RowResult::new(&row, Ok("ttl 64".into()), &wrong, Duration::from_millis(3));
        assert!(!result.ok);
        assert_eq!(result.detail, "ttl 64; the kernel did it");
    }
}
