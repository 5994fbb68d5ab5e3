//! What the cluster is: the nodes, pods, services and policies of the plan, as manifests that every agent reads.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::plan::{self, Family, NODES, PODS, SERVER_PORT, SERVICE_PORT, Spot};
use crate::services::{SERVICES, Service};

/// The pod of the first node that a policy guards.
pub const GUARDED_POD: u8 = 3;

/// The files of the cluster: name and content.
#[must_use]
pub fn files() -> [(&'static str, String); 4] {
    [
        ("nodes.yaml", text(&nodes())),
        ("pods.yaml", text(&pods())),
        ("services.yaml", text(&services())),
        ("policies.yaml", text(&[policy()])),
    ]
}

/// Documents of YAML, which JSON is as well.
fn text(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object:#}\n")).collect()
}

fn both<T>(of: impl Fn(Family) -> T) -> [T; 2] {
    Family::ALL.map(of)
}

fn texts(of: impl Fn(Family) -> IpAddr) -> [String; 2] {
    both(|family| of(family).to_string())
}

fn nodes() -> Vec<Value> {
    let node = |node: u8| {
        let addresses = texts(|family| plan::on_wire(node, family));
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": Spot::Node(node).to_string() },
            "spec": { "podCIDRs": both(|family| plan::pod_cidr(node, family).to_string()) },
            "status": { "addresses": addresses.map(|ip| json!({ "type": "InternalIP", "address": ip })) },
        })
    };
    let mut objects = NODES.map(node).to_vec();
    objects.push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "default" } }));
    objects
}

fn pods() -> Vec<Value> {
    let pod = |node: u8, pod: u8| {
        let name = Spot::Pod(node, pod).to_string();
        let ips = texts(|family| plan::pod(node, pod, family));
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "labels": { "pod": name } },
            "spec": { "nodeName": Spot::Node(node).to_string() },
            "status": { "phase": "Running", "podIPs": ips.map(|ip| json!({ "ip": ip })) },
        })
    };
    NODES.into_iter().flat_map(|node| PODS.map(|number| pod(node, number))).collect()
}

fn services() -> Vec<Value> {
    SERVICES.iter().flat_map(service).collect()
}

/// A service and its endpoints, in slices of one family each.
fn service(service: &Service) -> Vec<Value> {
    let addresses = texts(|family| service.address(family));
    let port = |protocol: &str| {
        let mut port = json!({
            "name": protocol.to_lowercase(), "protocol": protocol,
            "port": SERVICE_PORT, "targetPort": SERVER_PORT,
        });
        if let Some(number) = service.node_port {
            port["nodePort"] = number.into();
        }
        port
    };
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": service.name, "namespace": "default" },
        "spec": {
            "type": if service.node_port.is_some() { "NodePort" } else { "ClusterIP" },
            "clusterIP": addresses[0], "clusterIPs": addresses,
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
            "ports": [port("TCP"), port("UDP")],
        },
    })];
    for (family, kind) in Family::ALL.into_iter().zip(["IPv4", "IPv6"]) {
        let endpoint = |(node, pod): &(u8, u8)| {
            json!({
                "addresses": [plan::pod(*node, *pod, family).to_string()],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": Spot::Node(*node).to_string(),
            })
        };
        let port = |protocol: &str| json!({ "name": protocol.to_lowercase(), "protocol": protocol, "port": SERVER_PORT });
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{family}", service.name), "namespace": "default",
                "labels": { "kubernetes.io/service-name": service.name },
            },
            "addressType": kind,
            "endpoints": service.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [port("TCP"), port("UDP")],
        }));
    }
    objects
}

/// The guarded pod accepts TCP at the server's port from the first pod of its node, and nothing else.
fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "guard", "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "pod": Spot::Pod(1, GUARDED_POD).to_string() } },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{ "podSelector": { "matchLabels": { "pod": Spot::Pod(1, 1).to_string() } } }],
                "ports": [{ "protocol": "TCP", "port": SERVER_PORT }],
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_an_object_of_the_cluster() {
        let kinds: Vec<String> = files()
            .iter()
            .flat_map(|(_, text)| text.split("---\n").skip(1).map(str::to_owned).collect::<Vec<_>>())
            .map(|document| {
                let value: Value = serde_json::from_str(&document).unwrap();
                value["kind"].as_str().unwrap().to_owned()
            })
            .collect();
        let count = |kind: &str| kinds.iter().filter(|one| *one == kind).count();
        assert_eq!((count("Node"), count("Pod"), count("NetworkPolicy")), (2, 6, 1));
        assert_eq!((count("Service"), count("EndpointSlice")), (SERVICES.len(), 2 * SERVICES.len()));
    }
}
