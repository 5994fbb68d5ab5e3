//! Services.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1;

use super::{ConvertError, Of};
use crate::cluster::model::{
    ClientAffinity, Kind, Service, ServiceKind, ServicePort, TrafficDistribution, TrafficPolicy,
};

/// The label by which a service chooses another proxy.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The label of a service without cluster addresses.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Seconds of affinity unless given.
const AFFINITY_S: i32 = 10_800;

/// A service; none if it isn't this proxy's, or has no addresses of the cluster (headless, `ExternalName`).
///
/// # Errors
/// If a field can't be meant so.
pub fn service(object: &v1::Service) -> Result<Option<Service>, ConvertError> {
    let of = Of::new(Kind::Service, &object.metadata).named()?;
    let Some(spec) = &object.spec else { return Ok(None) };
    let labelled = |label| object.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
    let kind = match spec.type_.as_deref() {
        None | Some("ClusterIP") => ServiceKind::ClusterIp,
        Some("NodePort") => ServiceKind::NodePort,
        Some("LoadBalancer") => ServiceKind::LoadBalancer,
        Some("ExternalName") => return Ok(None),
        Some(other) => return Err(of.wrong("spec.type", format!("`{other}` is no type of service"))),
    };
    let mut cluster_ips = spec.cluster_ips.clone().unwrap_or_default();
    if cluster_ips.is_empty() {
        cluster_ips.extend(spec.cluster_ip.clone());
    }
    cluster_ips.retain(|ip| !ip.is_empty());
    if labelled(PROXY_NAME)
        || labelled(HEADLESS)
        || cluster_ips.iter().any(|ip| ip == "None")
        || cluster_ips.is_empty()
    {
        return Ok(None);
    }
    Ok(Some(Service {
        kind,
        cluster_ips: of.addresses("spec.clusterIPs", Some(&cluster_ips))?,
        external_ips: of.addresses("spec.externalIPs", spec.external_ips.as_ref())?.into_iter().collect(),
        load_balancer_ips: load_balancer_ips(&of, object, kind)?,
        source_ranges: of
            .prefixes("spec.loadBalancerSourceRanges", spec.load_balancer_source_ranges.as_ref())?,
        ports: ports(&of, spec, kind)?,
        affinity: affinity(&of, spec)?,
        internal_traffic_policy: traffic_policy(&of, "internal", spec.internal_traffic_policy.as_deref())?,
        external_traffic_policy: traffic_policy(&of, "external", spec.external_traffic_policy.as_deref())?,
        traffic_distribution: match spec.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => TrafficDistribution::SameZone,
            Some("PreferSameNode") => TrafficDistribution::SameNode,
            // A preference that is not known is none: the API lets vendors add theirs.
            _ => TrafficDistribution::Any,
        },
        health_check_node_port: match spec.health_check_node_port {
            None | Some(0) => None,
            Some(port) => Some(of.port("spec.healthCheckNodePort", port)?),
        },
        name: of.object.name,
    }))
}

fn load_balancer_ips(
    of: &Of,
    object: &v1::Service,
    kind: ServiceKind,
) -> Result<BTreeSet<std::net::IpAddr>, ConvertError> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    let ours = |ingress: &&v1::LoadBalancerIngress| {
        kind == ServiceKind::LoadBalancer && ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP"
    };
    let ips = ingress.filter(ours).filter_map(|ingress| ingress.ip.as_ref());
    ips.map(|ip| of.address("status.loadBalancer.ingress.ip", ip)).collect()
}

fn ports(of: &Of, spec: &v1::ServiceSpec, kind: ServiceKind) -> Result<Vec<ServicePort>, ConvertError> {
    let port = |port: &v1::ServicePort| {
        let node_port = port.node_port.filter(|port| *port != 0 && kind != ServiceKind::ClusterIp);
        Ok(ServicePort {
            name: port.name.clone().unwrap_or_default(),
            protocol: of.protocol("spec.ports.protocol", port.protocol.as_deref())?,
            port: of.port("spec.ports.port", port.port)?,
            node_port: node_port.map(|port| of.port("spec.ports.nodePort", port)).transpose()?,
        })
    };
    let ports: Vec<ServicePort> = spec.ports.iter().flatten().map(port).collect::<Result<_, _>>()?;
    let mut numbers = BTreeSet::new();
    match ports.iter().find(|port| !numbers.insert((port.protocol, port.port))) {
        Some(twice) => {
            Err(of.wrong("spec.ports", format!("{} {:?} is there twice", twice.port, twice.protocol)))
        }
        None => Ok(ports),
    }
}

fn affinity(of: &Of, spec: &v1::ServiceSpec) -> Result<Option<ClientAffinity>, ConvertError> {
    match spec.session_affinity.as_deref() {
        None | Some("None" | "") => Ok(None),
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_S);
            match u32::try_from(seconds) {
                Ok(timeout_s @ 1..=86_400) => Ok(Some(ClientAffinity { timeout_s })),
                _ => Err(of.wrong(
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                    format!("{seconds} is not from 1 to 86400"),
                )),
            }
        }
        Some(other) => Err(of.wrong("spec.sessionAffinity", format!("`{other}` is none of None, ClientIP"))),
    }
}

fn traffic_policy(of: &Of, which: &str, policy: Option<&str>) -> Result<TrafficPolicy, ConvertError> {
    match policy {
        None | Some("Cluster" | "") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => {
            Err(of
                .wrong(format!("spec.{which}TrafficPolicy"), format!("`{other}` is none of Cluster, Local")))
        }
    }
}
