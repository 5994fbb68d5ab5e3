//! Objects from manifests: YAML or JSON, several documents in a file, lists of objects.
//!
//! Kinds that no packet depends on are passed over. What is wrong is named by the document's number and the object.

use serde_json::Value;

use super::decode::{self, DecodeError};
use crate::cluster::convert::ConvertError;
use crate::cluster::model::Object;

/// Why a manifest can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is no YAML.
    #[error("{0}")]
    Syntax(String),
    /// A document is no object.
    #[error("document {document}: {field} is missing")]
    Missing {
        /// Its number, from 1.
        document: usize,
        /// What every object has.
        field: &'static str,
    },
    /// An object is not of its kind's form.
    #[error("document {document}: {kind} {name}: {problem}")]
    Form {
        /// Its number, from 1.
        document: usize,
        /// The kind that it says it is.
        kind: String,
        /// Its name, if it has one.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// An object can't be meant so.
    #[error("document {document}: {source}")]
    Meaning {
        /// Its number, from 1.
        document: usize,
        /// What is wrong.
        source: ConvertError,
    },
}

/// The objects of a manifest, in order.
///
/// # Errors
/// If any of them can't be read: then none is taken.
pub fn parse(text: &str) -> Result<Vec<Object>, ManifestError> {
    // YAML 1.2's booleans: a label's value `y` or `no` is a text.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| ManifestError::Syntax(error.to_string()))?;
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate().filter(|(_, document)| !document.is_null()) {
        one(index + 1, document, &mut objects)?;
    }
    Ok(objects)
}

fn one(document: usize, mut value: Value, objects: &mut Vec<Object>) -> Result<(), ManifestError> {
    let text = |value: &Value, field: &'static str| match value.get(field).and_then(Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => Err(ManifestError::Missing { document, field }),
    };
    let (version, kind) = (text(&value, "apiVersion")?, text(&value, "kind")?);
    if kind.ends_with("List")
        && let Some(Value::Array(items)) = value.get_mut("items").map(Value::take)
    {
        return items.into_iter().try_for_each(|item| one(document, item, objects));
    }
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let object = decode::object(&version, &kind, value).map_err(|error| match error {
        DecodeError::Meaning(source) => ManifestError::Meaning { document, source },
        DecodeError::Form(error) => ManifestError::Form { document, kind, name, problem: error.to_string() },
    })?;
    objects.extend(object);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::model::Kind;

    #[test]
    fn documents_lists_and_other_kinds() {
        let text = "---
# nothing here
---
apiVersion: v1
kind: Namespace
metadata: {name: web}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: n1}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}
- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: web}}
";
        let objects = parse(text).unwrap();
        let kinds: Vec<Kind> = objects.iter().map(Object::kind).collect();
        assert_eq!(kinds, [Kind::Namespace, Kind::Node, Kind::Pod]);
        assert_eq!(objects[2].name().to_string(), "web/p");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
        for (text, said) in [
            ("a: [", "line 1"),
            ("kind: Node", "document 1: apiVersion is missing"),
            (
                &*format!("{node}---\n{node}spec: {{podCIDRs: [10.0.0.0/33]}}"),
                "document 2: Node n1: spec.podCIDRs: `10.0.0.0/33`",
            ),
            (&*format!("{node}spec: {{podCIDRs: 7}}"), "document 1: Node n1: invalid type"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
