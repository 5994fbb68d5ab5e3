//! Network policies.

use k8s_openapi::api::networking::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ConvertError, Of};
use crate::cluster::model::{
    IpBlock, Kind, NetworkPolicy, PeerPorts, PolicyPeer, PolicyPort, PolicyRule, PortRef,
};

/// A network policy.
///
/// # Errors
/// If a field can't be meant so.
pub fn policy(object: &v1::NetworkPolicy) -> Result<NetworkPolicy, ConvertError> {
    let of = Of::new(Kind::NetworkPolicy, &object.metadata).named()?;
    let spec = object.spec.clone().unwrap_or_default();
    // Without policyTypes it is about ingress, and about egress if it has rules of it.
    let (mut ingress, mut egress) = (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
    if let Some(types) = spec.policy_types.as_ref().filter(|types| !types.is_empty()) {
        (ingress, egress) = (false, false);
        for direction in types {
            match &**direction {
                "Ingress" => ingress = true,
                "Egress" => egress = true,
                other => {
                    return Err(of.wrong("spec.policyTypes", format!("`{other}` is none of Ingress, Egress")));
                }
            }
        }
    }
    let incoming = spec.ingress.iter().flatten();
    let incoming =
        incoming.map(|rule| self::rule(&of, "spec.ingress", rule.from.as_ref(), rule.ports.as_ref()));
    let outgoing = spec.egress.iter().flatten();
    let outgoing = outgoing.map(|rule| self::rule(&of, "spec.egress", rule.to.as_ref(), rule.ports.as_ref()));
    Ok(NetworkPolicy {
        pods: of.selector("spec.podSelector", spec.pod_selector.as_ref())?,
        ingress: if ingress { Some(incoming.collect::<Result<_, _>>()?) } else { None },
        egress: if egress { Some(outgoing.collect::<Result<_, _>>()?) } else { None },
        name: of.object.name,
    })
}

fn rule(
    of: &Of,
    field: &str,
    peers: Option<&Vec<v1::NetworkPolicyPeer>>,
    ports: Option<&Vec<v1::NetworkPolicyPort>>,
) -> Result<PolicyRule, ConvertError> {
    let peers = peers.into_iter().flatten().map(|peer| self::peer(of, field, peer));
    let ports = match ports.filter(|ports| !ports.is_empty()) {
        None => PeerPorts::All,
        Some(ports) => {
            PeerPorts::These(ports.iter().map(|port| self::port(of, field, port)).collect::<Result<_, _>>()?)
        }
    };
    Ok(PolicyRule { peers: peers.collect::<Result<_, _>>()?, ports })
}

fn peer(of: &Of, field: &str, peer: &v1::NetworkPolicyPeer) -> Result<PolicyPeer, ConvertError> {
    let by_label = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        Some(_) if by_label => Err(of.wrong(field, "a peer has an ipBlock beside a selector")),
        Some(block) => {
            let prefix = of.prefix(&format!("{field}.ipBlock.cidr"), &block.cidr)?;
            let except = of.prefixes(&format!("{field}.ipBlock.except"), block.except.as_ref())?;
            if let Some(outside) = except.iter().find(|except| !prefix.covers(except)) {
                let problem = format!("{outside} is not inside of {prefix}");
                return Err(of.wrong(format!("{field}.ipBlock.except"), problem));
            }
            Ok(PolicyPeer::Block(IpBlock { prefix, except }))
        }
        None if by_label => {
            let namespaces = peer.namespace_selector.as_ref();
            let namespaces = namespaces
                .map(|selector| of.selector(&format!("{field}.namespaceSelector"), Some(selector)))
                .transpose()?;
            let pods = of.selector(&format!("{field}.podSelector"), peer.pod_selector.as_ref())?;
            Ok(PolicyPeer::Pods { namespaces, pods })
        }
        None => Err(of.wrong(field, "a peer has neither a selector nor an ipBlock")),
    }
}

fn port(of: &Of, field: &str, port: &v1::NetworkPolicyPort) -> Result<PolicyPort, ConvertError> {
    let field = format!("{field}.ports");
    let protocol = of.protocol(&field, port.protocol.as_deref())?;
    let number = match (&port.port, port.end_port) {
        (None, None) => None,
        (Some(IntOrString::Int(first)), end) => {
            let first = of.port(&field, *first)?;
            let last = end.map_or(Ok(first), |end| of.port(&format!("{field}.endPort"), end))?;
            if last < first {
                return Err(of.wrong(format!("{field}.endPort"), format!("{last} is below {first}")));
            }
            Some(PortRef::Range(first, last))
        }
        (Some(IntOrString::String(name)), None) => Some(PortRef::Named(name.clone())),
        (_, Some(_)) => return Err(of.wrong(format!("{field}.endPort"), "needs a port that is a number")),
    };
    Ok(PolicyPort { protocol, port: number })
}
