//! The text form of a pipeline: YAML or JSON, strict.
//!
//! A file is one map with `version: 1` and a list per entity kind. Unknown
//! fields, duplicate keys and values out of range are refused with line and
//! column. Reading checks each value and that no key occurs twice in a list;
//! whether the entities fit together is [`crate::validate`]'s.

#[cfg(feature = "schema")]
mod schema;

#[cfg(feature = "schema")]
pub use schema::json_schema;

use crate::ir::*;
use crate::ir::{Entity, EntityKey, Pipeline, PipelineEntity};

/// Version of the text form that this crate reads and writes.
pub const VERSION: u32 = 1;

/// Longest file that is read, in bytes: 256 MiB.
pub const MAX_BYTES: usize = 256 << 20;

/// Why a text is no pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Not YAML or JSON of the right shape.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// Line, from 1; 0 where the parser gives none.
        line: u64,
        /// Column, from 1; 0 where the parser gives none.
        column: u64,
        /// What was expected and what was found.
        message: String,
    },
    /// The file's `version` is another.
    #[error("version {found} of the text form is not supported (supported: {VERSION})")]
    Version {
        /// The version that the file gives.
        found: u32,
    },
    /// Two entities of one list have the same key.
    #[error("{table}[{index}]: `{key}` was already given")]
    Duplicate {
        /// The list.
        table: &'static str,
        /// Index of the second one, from 0.
        index: usize,
        /// The key of both.
        key: Box<EntityKey>,
    },
    /// Larger than [`MAX_BYTES`].
    #[error("the text has {bytes} bytes, more than {MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

macro_rules! declare {
    ($(($variant:ident, $type:ident, $key:ident, $table:ident, $name:literal, $make_key:expr)),+ $(,)?) => {
        /// A pipeline as a file has it: a list per entity kind.
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct PipelineText {
            /// Version of the text form: 1.
            pub version: u32,
            $(
                #[doc = concat!("Every [`", stringify!($type), "`].")]
                #[serde(default, skip_serializing_if = "Vec::is_empty")]
                pub $table: Vec<$type>,
            )+
        }

        impl PipelineText {
            /// The entities in dependency order.
            ///
            /// # Errors
            /// [`TextError::Version`] or [`TextError::Duplicate`].
            pub fn into_entities(self) -> Result<Vec<Entity>, TextError> {
                if self.version != VERSION {
                    return Err(TextError::Version { found: self.version });
                }
                let mut entities = Vec::new();
                $(
                    let mut seen = std::collections::BTreeSet::new();
                    for (index, entity) in self.$table.into_iter().enumerate() {
                        let key = PipelineEntity::key(&entity);
                        if !seen.insert(key.clone()) {
                            let key = Box::new(EntityKey::$variant(key));
                            return Err(TextError::Duplicate { table: stringify!($table), index, key });
                        }
                        entities.push(Entity::$variant(entity));
                    }
                )+
                Ok(entities)
            }

            /// The text form of a pipeline; owners are not part of it.
            #[must_use]
            pub fn from_pipeline(pipeline: &Pipeline) -> Self {
                Self {
                    version: VERSION,
                    $($table: pipeline.$table().cloned().collect(),)+
                }
            }
        }
    };
}

crate::ir::entities!(declare);

/// Reads entities from YAML (of which JSON is a subset).
///
/// # Errors
/// [`TextError`] with the place of the first problem.
pub fn from_yaml(text: &str) -> Result<Vec<Entity>, TextError> {
    parse_yaml::<PipelineText>(text)?.into_entities()
}

/// Reads any of our types from YAML with the same strictness and limits.
///
/// # Errors
/// [`TextError::Syntax`] with the place of the first problem, [`TextError::TooLong`].
pub fn parse_yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, TextError> {
    if text.len() > MAX_BYTES {
        return Err(TextError::TooLong { bytes: text.len() });
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        TextError::Syntax { line, column, message: first_line(&error.to_string()) }
    })
}

/// The parser's message without the place, which we give ourselves, and
/// without the snippet that it draws below.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    match line.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((place, message)) if place.contains("column") => message.to_owned(),
        _ => line.to_owned(),
    }
}

/// Reads entities from JSON.
///
/// # Errors
/// [`TextError`] with the place of the first problem.
pub fn from_json(text: &str) -> Result<Vec<Entity>, TextError> {
    if text.len() > MAX_BYTES {
        return Err(TextError::TooLong { bytes: text.len() });
    }
    let text: PipelineText = serde_json::from_str(text).map_err(|error| TextError::Syntax {
        line: error.line() as u64,
        column: error.column() as u64,
        message: error.to_string(),
    })?;
    text.into_entities()
}

/// Writes a pipeline as YAML.
#[must_use]
pub fn to_yaml(pipeline: &Pipeline) -> String {
    // Our types have string keys and finite numbers, which YAML can always hold.
    serde_saphyr::to_string(&PipelineText::from_pipeline(pipeline)).unwrap_or_default()
}

/// Writes a pipeline as indented JSON.
#[must_use]
pub fn to_json(pipeline: &Pipeline) -> String {
    serde_json::to_string_pretty(&PipelineText::from_pipeline(pipeline)).unwrap_or_default()
}
