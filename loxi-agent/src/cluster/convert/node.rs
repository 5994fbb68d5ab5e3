//! Nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1;

use super::{ConvertError, Of};
use crate::cluster::model::{Kind, Node};

/// The label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A node.
///
/// # Errors
/// If an address or a network is none.
pub fn node(object: &v1::Node) -> Result<Node, ConvertError> {
    let of = Of::new(Kind::Node, &object.metadata).named()?;
    let spec = object.spec.clone().unwrap_or_default();
    let mut cidrs = spec.pod_cidrs.unwrap_or_default();
    // The older field has the first of the newer one.
    if cidrs.is_empty() {
        cidrs.extend(spec.pod_cidr);
    }
    let pod_cidrs =
        cidrs.iter().map(|text| of.prefix("spec.podCIDRs", text)).collect::<Result<Vec<_>, _>>()?;
    for v4 in [true, false] {
        if pod_cidrs.iter().filter(|cidr| cidr.is_ipv4() == v4).count() > 1 {
            return Err(of.wrong("spec.podCIDRs", "more than one network of a family"));
        }
    }
    let listed = object.status.as_ref().and_then(|status| status.addresses.as_ref());
    let addresses = |kind: &str| -> Result<Vec<IpAddr>, ConvertError> {
        let of_kind = listed.into_iter().flatten().filter(|address| address.type_ == kind);
        of_kind.map(|address| of.address("status.addresses", &address.address)).collect()
    };
    Ok(Node {
        internal_ips: addresses("InternalIP")?,
        external_ips: addresses("ExternalIP")?.into_iter().collect::<BTreeSet<_>>(),
        pod_cidrs,
        zone: object.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned(),
        name: of.object.name,
    })
}
