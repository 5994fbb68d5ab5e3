//! Files that are read, and errors that name the place in them.

use crate::failure::Failure;
use loxi_core::ir::Entity;
use loxi_core::text::{self, TextError};
use std::io::Read;
use std::path::Path;

/// A file's name in messages.
fn shown(path: &Path) -> String {
    if path.as_os_str() == "-" { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// The bytes of a file; `-` is stdin.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|content| bytes = content)
    };
    read.map_err(|error| Failure::Input(format!("{}: {error}", shown(path))))?;
    Ok(bytes)
}

fn content(path: &Path) -> Result<String, Failure> {
    String::from_utf8(bytes(path)?)
        .map_err(|error| Failure::Input(format!("{}: not UTF-8: {error}", shown(path))))
}

/// What is wrong, after `FILE:LINE:COLUMN` where that is known.
fn placed(path: &Path, error: TextError) -> Failure {
    let file = shown(path);
    Failure::Input(match error {
        TextError::Syntax { line, column, message } if line > 0 => {
            format!("{file}:{line}:{column}: {message}")
        }
        other => format!("{file}: {other}"),
    })
}

/// The entities of a pipeline file.
pub(crate) fn entities(path: &Path) -> Result<Vec<Entity>, Failure> {
    let content = content(path)?;
    let json = path.extension().is_some_and(|extension| extension == "json");
    let entities = if json { text::from_json(&content) } else { text::from_yaml(&content) };
    entities.map_err(|error| placed(path, error))
}

/// Any other value, in YAML or JSON.
pub(crate) fn value<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    text::parse_yaml(&content(path)?).map_err(|error| placed(path, error))
}
