//! JSON Schema of the text form.

use super::PipelineText;

/// The JSON Schema (draft 2020-12) of a pipeline file, as indented JSON.
#[must_use]
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(PipelineText);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
