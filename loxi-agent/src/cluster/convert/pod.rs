//! Pods and namespaces.

use k8s_openapi::api::core::v1;

use super::{ConvertError, Of};
use crate::cluster::model::{ContainerPort, Kind, Namespace, Pod};

/// The label that every namespace has, with its own name.
const OWN_NAME: &str = "kubernetes.io/metadata.name";

/// A namespace.
///
/// # Errors
/// If it has no name.
pub fn namespace(object: &v1::Namespace) -> Result<Namespace, ConvertError> {
    let of = Of::new(Kind::Namespace, &object.metadata).named()?;
    let mut labels = object.metadata.labels.clone().unwrap_or_default();
    labels.insert(OWN_NAME.to_owned(), of.object.name.name.clone());
    Ok(Namespace { name: of.object.name, labels })
}

/// A pod.
///
/// # Errors
/// If an address or a port is none.
pub fn pod(object: &v1::Pod) -> Result<Pod, ConvertError> {
    let of = Of::new(Kind::Pod, &object.metadata).named()?;
    let spec = object.spec.as_ref();
    let status = object.status.clone().unwrap_or_default();
    let mut ips: Vec<String> = status.pod_ips.into_iter().flatten().map(|ip| ip.ip).collect();
    if ips.is_empty() {
        ips.extend(status.pod_ip);
    }
    ips.retain(|ip| !ip.is_empty());
    let sidecar = |container: &&v1::Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec
        .into_iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar)));
    let mut ports = Vec::new();
    for port in containers.flat_map(|container| container.ports.iter().flatten()) {
        let Some(name) = port.name.clone().filter(|name| !name.is_empty()) else { continue };
        ports.push(ContainerPort {
            name,
            protocol: of.protocol("spec.containers.ports.protocol", port.protocol.as_deref())?,
            number: of.port("spec.containers.ports.containerPort", port.container_port)?,
        });
    }
    Ok(Pod {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        node: spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or_default(),
        ips: of.addresses("status.podIPs", Some(&ips))?,
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        ports,
        name: of.object.name,
    })
}
