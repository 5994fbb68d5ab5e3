//! Pods get their interfaces as on a real node: the CNI plugin is started as container runtimes start it, with the
//! configuration that the node's agent has published.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use loxi_linux::place::{Place, PlaceError};
use serde_json::{Value, json};

use crate::agent::configuration;
use crate::plan::{self, Family, Spot};
use crate::world::{PODS_NETNS, World};

/// Why a pod has no interface.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The plugin's configuration.
    #[error("{}: {reason}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The plugin can't be started or told.
    #[error("loxi-cni ADD of {pod}: {source}")]
    Io {
        /// For whom.
        pod: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The plugin can't be started.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The plugin says no, or something that it shouldn't.
    #[error("loxi-cni ADD of {pod}: {answer}")]
    Refused {
        /// For whom.
        pod: String,
        /// Its answer.
        answer: String,
    },
}

/// The runtime of a node.
#[derive(Debug, Clone, Copy)]
pub struct Runtime<'a> {
    /// Where.
    pub world: &'a World,
    /// The node.
    pub node: u8,
    /// The plugin.
    pub plugin: &'a Path,
    /// Where host-local is.
    pub host_local: &'a Path,
}

impl Runtime<'_> {
    /// Gives a pod its interface, with the Ethernet and IP addresses of the plan.
    ///
    /// # Errors
    /// If it hasn't got it, or it has others.
    pub fn add(&self, pod: u8) -> Result<(), AttachError> {
        let spot = Spot::Pod(self.node, pod);
        let answer = self.ask(spot, &self.configuration(pod)?)?;
        let addresses = answer["ips"].as_array().into_iter().flatten();
        let addresses: Vec<IpAddr> =
            addresses.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect();
        if addresses == Family::ALL.map(|family| plan::pod(self.node, pod, family)) {
            Ok(())
        } else {
            Err(AttachError::Refused { pod: spot.to_string(), answer: answer.to_string() })
        }
    }

    /// The plugin's answer.
    fn ask(&self, spot: Spot, input: &Value) -> Result<Value, AttachError> {
        let (world, plan) = (self.world, self.world.plan());
        let failed = |source| AttachError::Io { pod: spot.to_string(), source };
        let mut command = Command::new(self.plugin);
        command
            .env_clear()
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", format!("{}-{spot}", plan.instance()))
            .env("CNI_NETNS", format!("/run/{PODS_NETNS}/{spot}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.host_local)
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={spot}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let place = Place { net: world.spot(Spot::Node(self.node)), mounts: world.mounts(self.node) };
        let mut child = place.spawn(&mut command)?;
        // One that has ended without reading says why in its answer.
        let told =
            child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.to_string().as_bytes()));
        let output = child.wait_with_output().map_err(failed)?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let refused = |answer| AttachError::Refused { pod: spot.to_string(), answer };
        if !output.status.success() {
            return Err(refused(answer));
        }
        told.map_err(failed)?;
        serde_json::from_str(&answer).map_err(|_| refused(answer))
    }

    /// The plugin's configuration as a runtime makes it from a list (CNI specification, "Derive plugin configuration").
    fn configuration(&self, pod: u8) -> Result<Value, AttachError> {
        let path = configuration(self.world.plan(), self.node);
        let wrong = |reason: String| AttachError::Configuration { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let list: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let Some(Value::Object(mut plugin)) = list.pointer("/plugins/0").cloned() else {
            return Err(wrong("it lists no plugin".into()));
        };
        plugin.remove("capabilities");
        for key in ["name", "cniVersion"] {
            plugin.insert(key.into(), list[key].clone());
        }
        let ips = Family::ALL.map(|family| plan::pod(self.node, pod, family).to_string());
        let mac = self.world.plan().pod_mac(self.node, pod).to_string();
        plugin.insert("runtimeConfig".into(), json!({ "mac": mac, "ips": ips }));
        Ok(plugin.into())
    }
}
