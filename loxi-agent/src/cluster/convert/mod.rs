//! From the API's objects to the model.
//!
//! An object that can't be meant so is refused as a whole, with the field that is wrong. One that is meant and none of
//! ours (a headless service, endpoints that are names) gives nothing.

mod endpoints;
mod node;
mod pod;
mod policy;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use loxi_core::net::IpPrefix;

use super::model::{Expression, Kind, Name, Operator, Protocol, Reference, Selector};

pub use endpoints::slice;
pub use node::node;
pub use pod::{namespace, pod};
pub use policy::policy;
pub use service::service;

/// Why an object can't be meant so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub struct ConvertError {
    /// The object.
    pub object: Reference,
    /// The field, as the API names it.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// An object being converted: it names itself where something is wrong.
struct Of {
    object: Reference,
}

impl Of {
    fn new(kind: Kind, metadata: &ObjectMeta) -> Self {
        let name = metadata.name.clone().unwrap_or_default();
        // The API server's answer for an object without one; manifests leave it out.
        let namespace = || metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = match kind {
            Kind::Node | Kind::Namespace => Name::of_cluster(name),
            _ => Name::new(namespace(), name),
        };
        Self { object: Reference { kind, name } }
    }

    fn named(self) -> Result<Self, ConvertError> {
        if self.object.name.name.is_empty() {
            Err(self.wrong("metadata.name", "is missing"))
        } else {
            Ok(self)
        }
    }

    fn wrong(&self, field: impl Into<String>, problem: impl Into<String>) -> ConvertError {
        ConvertError { object: self.object.clone(), field: field.into(), problem: problem.into() }
    }

    fn address(&self, field: &str, text: &str) -> Result<IpAddr, ConvertError> {
        text.parse().map_err(|_| self.wrong(field, format!("`{text}` is no IP address")))
    }

    fn addresses(&self, field: &str, texts: Option<&Vec<String>>) -> Result<Vec<IpAddr>, ConvertError> {
        texts.into_iter().flatten().map(|text| self.address(field, text)).collect()
    }

    /// A network in CIDR notation. Bits beyond its length don't count, as in Kubernetes.
    fn prefix(&self, field: &str, text: &str) -> Result<IpPrefix, ConvertError> {
        let parsed = text.split_once('/').and_then(|(address, len)| {
            let (address, len) = (address.parse::<IpAddr>().ok()?, len.parse::<u8>().ok()?);
            (len <= if address.is_ipv4() { 32 } else { 128 }).then(|| IpPrefix::containing(address, len))
        });
        parsed.ok_or_else(|| self.wrong(field, format!("`{text}` is no network in CIDR notation")))
    }

    fn prefixes(&self, field: &str, texts: Option<&Vec<String>>) -> Result<BTreeSet<IpPrefix>, ConvertError> {
        texts.into_iter().flatten().map(|text| self.prefix(field, text.trim())).collect()
    }

    fn port(&self, field: &str, number: i32) -> Result<u16, ConvertError> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.ok_or_else(|| self.wrong(field, format!("{number} is not from 1 to 65535")))
    }

    fn protocol(&self, field: &str, text: Option<&str>) -> Result<Protocol, ConvertError> {
        match text {
            None | Some("TCP") => Ok(Protocol::Tcp),
            Some("UDP") => Ok(Protocol::Udp),
            Some("SCTP") => Ok(Protocol::Sctp),
            Some(other) => Err(self.wrong(field, format!("`{other}` is none of TCP, UDP, SCTP"))),
        }
    }

    fn selector(&self, field: &str, selector: Option<&LabelSelector>) -> Result<Selector, ConvertError> {
        let Some(selector) = selector else { return Ok(Selector::default()) };
        let expressions = selector.match_expressions.iter().flatten().map(|requirement| {
            let values = || requirement.values.iter().flatten().cloned().collect::<BTreeSet<_>>();
            let operator = match &*requirement.operator {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let field = format!("{field}.matchExpressions.operator");
                    return Err(
                        self.wrong(field, format!("`{other}` is none of In, NotIn, Exists, DoesNotExist"))
                    );
                }
            };
            Ok(Expression { key: requirement.key.clone(), operator })
        });
        let labels = selector.match_labels.clone().unwrap_or_default();
        Ok(Selector { labels, expressions: expressions.collect::<Result<_, _>>()? })
    }
}
