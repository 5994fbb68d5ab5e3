//! nftables, through the `nft` program.
//!
//! A [`Table`] is applied whole and atomically: the old one of its name goes and the new one comes in the same
//! transaction. `nft` runs in the calling thread's network namespace. Names carry
//! the owner's label, so that a table is found again by name alone.

mod rulesets;

use std::io::{self, Write};
use std::process::{Command, Stdio};

pub use rulesets::{Drop, LocalPort, ingress_drops, local_ports, masquerade};

/// Why a ruleset was not applied or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// The program could not be started or spoken to.
    #[error("run nft to {operation}: {source}")]
    Run {
        /// What it was to do.
        operation: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The program refused; the ruleset is as it was.
    #[error("nft: {operation}: {message}")]
    Refused {
        /// What it was to do.
        operation: String,
        /// What it printed.
        message: String,
    },
    /// The program printed something else than its JSON.
    #[error("nft: {operation}: unexpected output: {detail}")]
    Output {
        /// What it was to do.
        operation: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A name has characters that nft's language gives another meaning.
    #[error("{name:?} can't name a table, chain or device")]
    BadName {
        /// The name.
        name: String,
    },
}

/// The family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// A device's ingress.
    Netdev,
}

impl Family {
    fn word(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        }
    }
}

/// The name of a table with its family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// The family.
    pub family: Family,
    /// The name.
    pub name: String,
}

/// A whole table: its name and the chains between its braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    id: TableId,
    body: String,
}

impl Table {
    /// A table with chains in nft's own language.
    ///
    /// # Errors
    /// If the name is more than letters, digits, `-`, `_` and `.`.
    pub fn new(family: Family, name: &str, body: String) -> Result<Self, NftError> {
        let id = TableId { family, name: checked(name)?.into() };
        Ok(Self { id, body })
    }

    /// Family and name.
    #[must_use]
    pub fn id(&self) -> &TableId {
        &self.id
    }

    /// The script that replaces the table of this name by this one.
    #[must_use]
    pub fn script(&self) -> String {
        let (family, name) = (self.id.family.word(), &self.id.name);
        // The first line makes the deletion succeed where there was none.
        format!(
            "table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{\n{}}}\n",
            self.body
        )
    }
}

/// A name that nft reads as one word; keywords are no danger where we put names.
fn checked(name: &str) -> Result<&str, NftError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain) {
        Ok(name)
    } else {
        Err(NftError::BadName { name: name.into() })
    }
}

/// Replaces the table of this name, atomically.
///
/// # Errors
/// If nft refuses; then the ruleset is as it was.
pub fn apply(table: &Table) -> Result<(), NftError> {
    apply_text(&table.script())
}

/// Applies a script as one transaction.
///
/// # Errors
/// If nft refuses; then the ruleset is as it was.
pub fn apply_text(script: &str) -> Result<(), NftError> {
    nft("apply a ruleset", &["-f", "-"], script).map(drop)
}

/// The whole ruleset of the namespace as nft's JSON.
///
/// # Errors
/// If nft can't be run.
pub fn list_json() -> Result<String, NftError> {
    nft("list the ruleset", &["-j", "list", "ruleset"], "")
}

/// The tables of the families known here.
///
/// # Errors
/// If nft can't be run or prints something else than a list of tables.
pub fn tables() -> Result<Vec<TableId>, NftError> {
    let operation = "list the tables";
    let text = nft(operation, &["-j", "list", "tables"], "")?;
    let bad = |detail: String| NftError::Output { operation: operation.into(), detail };
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let items = json["nftables"].as_array().ok_or_else(|| bad("no list".into()))?;
    Ok(items
        .iter()
        .filter_map(|item| {
            let table = item.get("table")?;
            let family = match table["family"].as_str()? {
                "inet" => Family::Inet,
                "netdev" => Family::Netdev,
                _ => return None,
            };
            Some(TableId { family, name: table["name"].as_str()?.into() })
        })
        .collect())
}

/// Deletes a table. A missing one is no error.
///
/// # Errors
/// If nft refuses.
pub fn delete(id: &TableId) -> Result<(), NftError> {
    let (family, name) = (id.family.word(), checked(&id.name)?);
    apply_text(&format!("table {family} {name}\ndelete table {family} {name}\n"))
}

fn nft(operation: &str, args: &[&str], input: &str) -> Result<String, NftError> {
    let run = |source| NftError::Run { operation: operation.into(), source };
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    // nft reads everything before it prints anything, so this can't block for good. Its end of
    // the pipe closes with the value.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(run)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(NftError::Refused { operation: operation.into(), message });
    }
    written.map_err(run)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
