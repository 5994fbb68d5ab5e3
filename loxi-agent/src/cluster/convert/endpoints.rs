//! Endpoints of services.

use k8s_openapi::api::discovery::v1;

use super::{ConvertError, Of};
use crate::cluster::model::{Endpoint, EndpointPort, EndpointSlice, Kind};

/// The label that names a slice's service.
const SERVICE: &str = "kubernetes.io/service-name";

/// A slice of endpoints; none if it is of no service, or its endpoints are names.
///
/// # Errors
/// If an address or a port is none, or of another family than the slice.
pub fn slice(object: &v1::EndpointSlice) -> Result<Option<EndpointSlice>, ConvertError> {
    let of = Of::new(Kind::EndpointSlice, &object.metadata).named()?;
    let v4 = match &*object.address_type {
        "IPv4" => true,
        "IPv6" => false,
        "FQDN" => return Ok(None),
        other => return Err(of.wrong("addressType", format!("`{other}` is none of IPv4, IPv6, FQDN"))),
    };
    let Some(service) = object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE)) else {
        return Ok(None);
    };
    let mut ports = Vec::new();
    for port in object.ports.iter().flatten() {
        // A port without a number is of endpoints without ports of that name.
        let Some(number) = port.port else { continue };
        ports.push(EndpointPort {
            name: port.name.clone().unwrap_or_default(),
            protocol: of.protocol("ports.protocol", port.protocol.as_deref())?,
            port: of.port("ports.port", number)?,
        });
    }
    let mut endpoints = Vec::new();
    for endpoint in &object.endpoints {
        // One without addresses is of nobody.
        let Some(first) = endpoint.addresses.first() else { continue };
        let address = of.address("endpoints.addresses", first)?;
        if address.is_ipv4() != v4 {
            return Err(of.wrong("endpoints.addresses", format!("{address} is not {}", object.address_type)));
        }
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let hints = endpoint.hints.clone().unwrap_or_default();
        endpoints.push(Endpoint {
            address,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            node: endpoint.node_name.clone(),
            zones: hints.for_zones.into_iter().flatten().map(|zone| zone.name).collect(),
            nodes: hints.for_nodes.into_iter().flatten().map(|node| node.name).collect(),
        });
    }
    Ok(Some(EndpointSlice { service: service.clone(), ports, endpoints, name: of.object.name }))
}
