//! What this node's dataplane shall have, derived from the cluster and from what is attached here.
//!
//! Each controller turns objects of the cluster into entities. It is told of changes and says anew what the objects that
//! are touched by one contribute ([`Ledger::contribute`]); so the work is as large as the change. All of it is pure:
//! nothing here knows a dataplane, a kernel or an API server.
//!
//! The contract of a `Controller`: after any sequence of changes, and settling, its contributions are those that one
//! would have made that is told of the final cluster at once. Property tests hold each of them to it.

#[cfg(test)]
pub(crate) mod fixture;
mod ledger;
mod names;
mod node;
mod pods;
mod policy;
mod service;
mod settings;

pub use ledger::{Contributor, Ledger};
pub use node::vtep_mac;
pub use service::local_endpoints;
pub use settings::{Macs, Names, Overlay, Settings};

use std::collections::BTreeMap;
use std::net::IpAddr;

use loxi_core::net::{MacAddr, Mtu, PortName};
use serde::{Deserialize, Serialize};

use crate::cluster::model::Name;
use crate::cluster::{Change, Cluster};

/// A pod's interface on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container runtime's sandbox.
    pub container: String,
    /// The interface's name there.
    pub ifname: String,
    /// The pod, if the runtime named one.
    pub pod: Option<PodIdentity>,
    /// The dataplane's end.
    pub port: PortName,
    /// The pod's Ethernet address.
    pub mac: MacAddr,
    /// The pod's addresses, one per family at most.
    pub addresses: Vec<IpAddr>,
    /// Largest packet of the interface.
    pub mtu: Mtu,
    /// Ports of the node that lead to the pod.
    pub host_ports: Vec<HostPort>,
}

/// Which pod an interface is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Its name.
    pub name: Name,
    /// Its uid, if the runtime told it.
    pub uid: Option<String>,
}

/// A port of the node that leads to a pod (`hostPort`; the CNI capability `portMappings`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// The node's address; none: all of them.
    pub address: Option<IpAddr>,
    /// The protocol.
    pub protocol: crate::cluster::model::Protocol,
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
}

/// The interfaces of this node's pods, by the dataplane's port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachments(BTreeMap<PortName, Attachment>);

impl Attachments {
    /// All of them, by port.
    pub fn iter(&self) -> impl Iterator<Item = &Attachment> {
        self.0.values()
    }

    /// That of a port.
    #[must_use]
    pub fn get(&self, port: &PortName) -> Option<&Attachment> {
        self.0.get(port)
    }

    /// Those of a pod.
    pub fn of_pod<'a>(&'a self, pod: &'a Name) -> impl Iterator<Item = &'a Attachment> {
        self.iter().filter(move |attachment| attachment.pod.as_ref().is_some_and(|of| of.name == *pod))
    }
}

/// What a controller may look at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What doesn't change while the agent runs.
    pub settings: &'a Settings,
    /// The cluster, with the change already.
    pub cluster: &'a Cluster,
    /// This node's interfaces, with the change already.
    pub attachments: &'a Attachments,
}

/// What has changed.
#[derive(Debug, Clone, Copy)]
pub enum Changed<'a> {
    /// An object of the cluster.
    Object(&'a Change),
    /// An interface of this node has come, or has gone: what it was.
    Attachment {
        /// The dataplane's port.
        port: &'a PortName,
        /// What it was; none: it is new.
        old: Option<&'a Attachment>,
    },
}

/// Derives entities from some kinds of objects.
trait Controller: std::fmt::Debug + Send {
    /// Says anew what is touched by a change.
    fn changed(&mut self, view: View<'_>, changed: Changed<'_>, ledger: &mut Ledger);

    /// Says anew what many objects contribute together, once after any number of changes.
    fn settle(&mut self, view: View<'_>, ledger: &mut Ledger) {
        let _ = (view, ledger);
    }
}

/// Everything derived, and what of it the dataplane hasn't got yet.
#[derive(Debug)]
pub struct Intent {
    settings: Settings,
    cluster: Cluster,
    attachments: Attachments,
    controllers: Vec<Box<dyn Controller>>,
    ledger: Ledger,
}

impl Intent {
    /// The intent of a node in an empty cluster.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut ledger = Ledger::default();
        let controllers: Vec<Box<dyn Controller>> = vec![
            Box::new(node::Nodes::new(&settings, &mut ledger)),
            Box::new(pods::Pods),
            Box::new(service::Services::default()),
            Box::new(policy::Policies::default()),
        ];
        Self {
            settings,
            cluster: Cluster::default(),
            attachments: Attachments::default(),
            controllers,
            ledger,
        }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// This node's interfaces.
    #[must_use]
    pub fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// What doesn't change while the agent runs.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The entities, and which of them the dataplane hasn't got.
    pub fn ledger(&mut self) -> &mut Ledger {
        let view = View { settings: &self.settings, cluster: &self.cluster, attachments: &self.attachments };
        for controller in &mut self.controllers {
            controller.settle(view, &mut self.ledger);
        }
        &mut self.ledger
    }

    /// Takes an event of the source over.
    pub fn apply(&mut self, event: crate::cluster::Event) {
        for change in self.cluster.apply(event) {
            self.tell(Changed::Object(&change));
        }
    }

    /// An interface has been made.
    pub fn attach(&mut self, attachment: Attachment) {
        let port = attachment.port.clone();
        let old = self.attachments.0.insert(port.clone(), attachment);
        self.tell(Changed::Attachment { port: &port, old: old.as_ref() });
    }

    /// An interface is gone.
    pub fn detach(&mut self, port: &PortName) {
        if let Some(old) = self.attachments.0.remove(port) {
            self.tell(Changed::Attachment { port, old: Some(&old) });
        }
    }

    fn tell(&mut self, changed: Changed<'_>) {
        let view = View { settings: &self.settings, cluster: &self.cluster, attachments: &self.attachments };
        for controller in &mut self.controllers {
            controller.changed(view, changed, &mut self.ledger);
        }
    }
}
