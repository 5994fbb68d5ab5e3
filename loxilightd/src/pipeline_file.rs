//! The pipeline file: the whole set of the owner `file`.
//!
//! It is read as a whole before anything is asked of the dataplane; a file that
//! can't be read, or that the dataplane refuses, changes nothing. The same file
//! again changes nothing either: its transaction is the digest of its content,
//! and the generation from which that was applied, so that going back to an earlier
//! file is not mistaken for a repetition.

use crate::Engine;
use crate::keep::digest;
use loxi_core::change::{Applied, Transaction};
use loxi_core::dataplane::DataplaneError;
use loxi_core::ir::{Entity, Owner};
use loxi_core::text::{self, TextError};
use std::io;
use std::path::{Path, PathBuf};

/// The owner of what the file describes.
pub const OWNER: &str = "file";

/// Why a pipeline file was not applied. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It can't be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no pipeline, and this is where.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: u64,
        /// What is wrong there.
        message: String,
    },
    /// It is no pipeline.
    #[error("{}: {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TextError,
    },
    /// The dataplane does not want it.
    #[error("{}: {source}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<DataplaneError>,
    },
}

/// Reads the entities of a file, and a digest of it.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path) -> Result<(Vec<Entity>, u64), FileError> {
    let owned = || path.to_owned();
    let content = std::fs::read_to_string(path).map_err(|source| FileError::Io { path: owned(), source })?;
    let json = path.extension().is_some_and(|extension| extension == "json");
    let entities = if json { text::from_json(&content) } else { text::from_yaml(&content) };
    let entities = entities.map_err(|error| match error {
        TextError::Syntax { line, column, message } if line > 0 => {
            FileError::Syntax { path: owned(), line, column, message }
        }
        source => FileError::Text { path: owned(), source },
    })?;
    Ok((entities, digest(content.as_bytes())))
}

/// Makes the owner's set what the file says.
///
/// # Errors
/// [`FileError`].
pub fn apply(engine: &Engine, path: &Path) -> Result<Applied, FileError> {
    let refused = |source| FileError::Refused { path: path.to_owned(), source: Box::new(source) };
    let (entities, digest) = read(path)?;
    let owner = Owner::new(OWNER).map_err(|error| refused(DataplaneError::Internal(error.to_string())))?;
    let id = format!("file-{digest:016x}-{}", engine.generation());
    let applied = engine.apply(&Transaction::replace(id, owner, entities)).map_err(refused)?;
    tracing::info!(
        path = %path.display(),
        generation = applied.generation.0,
        created = applied.created,
        updated = applied.updated,
        deleted = applied.deleted,
        "pipeline file applied"
    );
    Ok(applied)
}
