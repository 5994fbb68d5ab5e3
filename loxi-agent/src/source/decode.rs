//! An object from what the API calls JSON, whoever has told it.

use k8s_openapi::api::{core, discovery, networking};
use serde_json::{Value, from_value};

use crate::cluster::convert::{self, ConvertError};
use crate::cluster::model::Object;

/// Why an object can't be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not of its kind's form.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// It can't be meant so.
    #[error(transparent)]
    Meaning(#[from] ConvertError),
}

/// The object of a kind; none if no packet depends on it.
///
/// # Errors
/// If it can't be understood.
pub fn object(version: &str, kind: &str, mut value: Value) -> Result<Option<Object>, DecodeError> {
    // Of no meaning here, and written by many: their form is not to keep anybody from knowing the rest.
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("conditions");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    Ok(match (version, kind) {
        ("v1", "Node") => Some(convert::node(&from_value::<core::v1::Node>(value)?)?.into()),
        ("v1", "Namespace") => Some(convert::namespace(&from_value::<core::v1::Namespace>(value)?)?.into()),
        ("v1", "Pod") => Some(convert::pod(&from_value::<core::v1::Pod>(value)?)?.into()),
        ("v1", "Service") => convert::service(&from_value::<core::v1::Service>(value)?)?.map(Object::from),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            convert::slice(&from_value::<discovery::v1::EndpointSlice>(value)?)?.map(Object::from)
        }
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            Some(convert::policy(&from_value::<networking::v1::NetworkPolicy>(value)?)?.into())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_that_nobody_reads_may_have_any_form() {
        let service = json!({"metadata": {"name": "a", "namespace": "b", "managedFields": [{"time": null}]},
            "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]},
            "status": {"conditions": [{"type": "x", "lastTransitionTime": null}]}});
        assert!(object("v1", "Service", service.clone()).unwrap().is_some());
        assert!(object("apps/v1", "Service", service.clone()).unwrap().is_none());
        let mut wrong = service;
        wrong["spec"]["ports"] = "none".into();
        assert!(matches!(object("v1", "Service", wrong), Err(DecodeError::Form(_))));
    }
}
