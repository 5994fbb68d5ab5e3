//! What the runtime says: the network's configuration, and the pod's identity in `CNI_ARGS`.
//!
//! Only an ADD is read closely. Taking an interface away needs the network's name and where its addresses are kept, and
//! nothing else that is wrong may stand in its way.

use std::net::IpAddr;
use std::path::PathBuf;

use loxi_cni_proto::Dns;
use loxi_core::net::{MacAddr, Mtu};
use loxi_linux::Prefix;
use serde::Deserialize;
use serde_json::Value;

use super::{Key, PodError};
use crate::cluster::model::{Name, Protocol};
use crate::intent::{HostPort, PodIdentity};

/// One call about an interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// The interface.
    pub key: Key,
    /// The container's namespace; empty if it is gone.
    pub netns: PathBuf,
    /// `CNI_ARGS`, unread.
    pub args: String,
    /// The network.
    pub config: NetworkConfig,
}

/// The configuration of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// The network's name.
    pub name: String,
    /// Where its addresses are kept, if not at the usual place.
    pub data_dir: Option<PathBuf>,
    text: Value,
}

/// What an ADD asks for beside an interface.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Wanted {
    pub pod: Option<PodIdentity>,
    pub mtu: Option<Mtu>,
    pub mac: Option<MacAddr>,
    pub ips: Vec<IpAddr>,
    pub host_ports: Vec<HostPort>,
    pub dns: Dns,
}

impl TryFrom<loxi_cni_proto::Invocation> for Invocation {
    type Error = PodError;
    fn try_from(invocation: loxi_cni_proto::Invocation) -> Result<Self, PodError> {
        Ok(Self {
            key: Key::new(&invocation.container_id, &invocation.ifname)?,
            netns: invocation.netns.into(),
            args: invocation.args,
            config: NetworkConfig::parse(&invocation.config)?,
        })
    }
}

impl NetworkConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// If it is no JSON, or the network's name or `dataDir` can't be used as paths.
    pub fn parse(text: &str) -> Result<Self, PodError> {
        let text: Value = serde_json::from_str(text)?;
        let name = text.get("name").and_then(Value::as_str).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
            return Err(wrong("name", format!("{name:?} can't be a network's name")));
        }
        let data_dir = match text.get("dataDir") {
            None => None,
            Some(Value::String(path)) if path.starts_with('/') => Some(path.into()),
            Some(other) => return Err(wrong("dataDir", format!("{other} is no absolute path"))),
        };
        Ok(Self { name: name.to_owned(), data_dir, text })
    }

    /// Addresses of the result that the runtime remembers; none if it has passed none.
    pub(super) fn remembered(&self) -> Result<Option<Vec<IpAddr>>, PodError> {
        #[derive(Deserialize)]
        struct Result {
            #[serde(default)]
            ips: Vec<Ip>,
        }
        #[derive(Deserialize)]
        struct Ip {
            address: String,
        }
        let Some(result) = self.text.get("prevResult") else { return Ok(None) };
        let result = Result::deserialize(result)?;
        let parse = |ip: &Ip| ip.address.parse::<Prefix>().map(|prefix| prefix.addr);
        let parsed: std::result::Result<_, _> = result.ips.iter().map(parse).collect();
        parsed.map(Some).map_err(|error| wrong("prevResult", error.to_string()))
    }

    /// The attachments that GC is to keep. Those of other plugins' interfaces may be among them. CNI 1.1.0 has two names for
    /// the list: that of its text, and that of its first library.
    pub(super) fn valid(&self) -> Result<Vec<(String, String)>, PodError> {
        #[derive(Deserialize)]
        struct Attachment {
            #[serde(rename = "containerID")]
            container: String,
            ifname: String,
        }
        // Without the list nothing is known to be garbage.
        let list = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let list = list.iter().find_map(|name| self.text.get(name));
        let list = list.ok_or_else(|| wrong("cni.dev/valid-attachments", "it is missing".into()))?;
        let list = <Option<Vec<Attachment>>>::deserialize(list)?.unwrap_or_default();
        Ok(list.into_iter().map(|each| (each.container, each.ifname)).collect())
    }
}

fn wrong(field: &'static str, reason: String) -> PodError {
    PodError::Config { field, reason }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    mtu: Option<u64>,
    runtime_config: Option<RuntimeConfig>,
    dns: Option<DnsFields>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    mac: Option<String>,
    ips: Option<Vec<String>>,
    port_mappings: Option<Vec<PortMapping>>,
    bandwidth: Option<serde_json::Map<String, Value>>,
}

/// Also as containerd writes it: Go's decoder, which plugins usually have, doesn't look at the case of names.
#[derive(Deserialize)]
struct PortMapping {
    #[serde(default, rename = "hostPort", alias = "HostPort")]
    host_port: u16,
    #[serde(rename = "containerPort", alias = "ContainerPort")]
    container_port: u16,
    #[serde(default, alias = "Protocol")]
    protocol: String,
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    host_ip: String,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct DnsFields {
    nameservers: Vec<String>,
    domain: String,
    search: Vec<String>,
    options: Vec<String>,
}

impl Wanted {
    /// What an ADD asks for.
    pub(super) fn of(invocation: &Invocation) -> Result<Self, PodError> {
        let pod = identity(&invocation.args)?;
        let fields = Fields::deserialize(&invocation.config.text)?;
        let runtime = fields.runtime_config.unwrap_or_default();
        // A limit of nothing is no limit.
        let limits = runtime.bandwidth.unwrap_or_default();
        if limits.values().any(|limit| limit.as_u64() != Some(0)) {
            return Err(PodError::Unsupported("the capability `bandwidth`"));
        }
        let mtu = fields.mtu.filter(|mtu| *mtu != 0).map(mtu).transpose()?;
        let mac = runtime.mac.filter(|mac| !mac.is_empty()).map(|mac| station(&mac)).transpose()?;
        let ips = runtime.ips.unwrap_or_default();
        let ips: Result<Vec<_>, _> = ips.iter().map(|ip| ip.parse::<Prefix>().map(|ip| ip.addr)).collect();
        let ips = ips.map_err(|error| wrong("runtimeConfig.ips", error.to_string()))?;
        let mappings = runtime.port_mappings.unwrap_or_default();
        // Port 0 is of a container that exposes a port without asking for one of the node's.
        let mappings = mappings.iter().filter(|mapping| mapping.host_port != 0);
        let host_ports = mappings.map(host_port).collect::<Result<_, _>>()?;
        let DnsFields { nameservers, domain, search, options } = fields.dns.unwrap_or_default();
        Ok(Self { pod, mtu, mac, ips, host_ports, dns: Dns { nameservers, domain, search, options } })
    }
}

fn mtu(mtu: u64) -> Result<Mtu, PodError> {
    // The layout serves IPv6, which doesn't work on less.
    let fits = u16::try_from(mtu).ok().filter(|mtu| *mtu >= 1280).and_then(|mtu| Mtu::new(mtu).ok());
    fits.ok_or_else(|| wrong("mtu", format!("{mtu} is not from 1280 to 65535")))
}

fn station(text: &str) -> Result<MacAddr, PodError> {
    let mac: Option<MacAddr> = text.parse().ok();
    let mac = mac.filter(|mac| mac.is_unicast());
    mac.ok_or_else(|| wrong("runtimeConfig.mac", format!("{text:?} is no station's address")))
}

fn host_port(mapping: &PortMapping) -> Result<HostPort, PodError> {
    let bad = |reason: String| wrong("runtimeConfig.portMappings", reason);
    let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(bad(format!("{other:?} is no protocol"))),
    };
    if mapping.container_port == 0 {
        return Err(bad("a pod's port can't be 0".into()));
    }
    let address: Option<IpAddr> = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| bad(format!("{text:?} is no address")))?),
    };
    Ok(HostPort {
        address: address.filter(|address| !address.is_unspecified()),
        protocol,
        host_port: mapping.host_port,
        container_port: mapping.container_port,
    })
}

/// The pod that `CNI_ARGS` names; none if it names none.
fn identity(args: &str) -> Result<Option<PodIdentity>, PodError> {
    let (mut namespace, mut name, mut uid, mut unknown) = (None, None, None, None);
    let mut lenient = false;
    for part in args.split(';').filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(PodError::Args(format!("{part:?} is no KEY=VALUE")));
        };
        let value = (!value.is_empty()).then(|| value.to_owned());
        match key {
            "IgnoreUnknown" => lenient = matches!(value.as_deref(), Some("1" | "true" | "True" | "TRUE")),
            "K8S_POD_NAMESPACE" => namespace = value,
            "K8S_POD_NAME" => name = value,
            "K8S_POD_UID" => uid = value,
            "K8S_POD_INFRA_CONTAINER_ID" => {}
            _ => unknown = Some(key),
        }
    }
    match (namespace, name) {
        _ if unknown.is_some() && !lenient => {
            Err(PodError::Args(format!("{} is not known", unknown.unwrap_or_default())))
        }
        (Some(namespace), Some(name)) => Ok(Some(PodIdentity { name: Name::new(namespace, name), uid })),
        (None, None) => Ok(None),
        _ => Err(PodError::Args("a pod has a name and a namespace, here is one of them".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted(config: Value, args: &str) -> Result<Wanted, PodError> {
        let mut text = json!({ "cniVersion": "1.0.0", "name": "loxi" });
        for (key, value) in config.as_object().unwrap() {
            text[key] = value.clone();
        }
        Wanted::of(&Invocation {
            key: Key::new("c1", "eth0").unwrap(),
            netns: "/run/netns/x".into(),
            args: args.into(),
            config: NetworkConfig::parse(&text.to_string())?,
        })
    }

    #[test]
    fn the_pod_is_named_by_the_arguments() {
        let all = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=a;K8S_POD_UID=u;X=1";
        let pod = identity(all).unwrap().unwrap();
        assert_eq!((pod.name, pod.uid.as_deref()), (Name::new("ns", "a"), Some("u")));
        assert_eq!(identity("").unwrap(), None);
        assert_eq!(identity("IgnoreUnknown=true;X=1").unwrap(), None);
        for bad in ["X=1", "IgnoreUnknown=0;X=1", "K8S_POD_NAME=a", "K8S_POD_NAMESPACE=a", "abc"] {
            assert!(matches!(identity(bad), Err(PodError::Args(_))), "{bad}");
        }
    }

    #[test]
    fn capabilities_are_read() {
        let wanted = wanted(
            json!({ "mtu": 1400, "dns": { "nameservers": ["10.96.0.10"] }, "runtimeConfig": {
                "mac": "02:00:00:00:00:07",
                "ips": ["10.244.1.20", "fd00::20/64"],
                "portMappings": [
                    { "hostPort": 80, "containerPort": 8080, "protocol": "TCP", "hostIP": "0.0.0.0" },
                    { "hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1" },
                    { "hostPort": 0, "containerPort": 53 },
                    { "HostPort": 81, "ContainerPort": 8081, "Protocol": "tcp", "HostIP": "" },
                    { "ContainerPort": 9 },
                ],
                "bandwidth": { "ingressRate": 0, "egressRate": 0 },
            } }),
            "",
        );
        let wanted = wanted.unwrap();
        assert_eq!(wanted.mtu, Mtu::new(1400).ok());
        assert_eq!(wanted.mac, Some(MacAddr::new([2, 0, 0, 0, 0, 7])));
        assert_eq!(wanted.ips, ["10.244.1.20".parse::<IpAddr>().unwrap(), "fd00::20".parse().unwrap()]);
        assert_eq!(wanted.dns.nameservers, ["10.96.0.10"]);
        let [http, dns, capital] = &wanted.host_ports[..] else { panic!("{:?}", wanted.host_ports) };
        assert_eq!((http.address, http.host_port, http.container_port), (None, 80, 8080));
        assert_eq!((dns.address, dns.protocol), ("192.0.2.1".parse().ok(), Protocol::Udp));
        assert_eq!((capital.address, capital.host_port, capital.container_port), (None, 81, 8081));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_what_is_missing_said() {
        for bad in [
            json!({ "name": "../x" }),
            json!({ "dataDir": "x" }),
            json!({ "mtu": 1279 }),
            json!({ "mtu": 65536 }),
            json!({ "runtimeConfig": { "mac": "ff:ff:ff:ff:ff:ff" } }),
            json!({ "runtimeConfig": { "ips": ["x"] } }),
            json!({ "runtimeConfig": { "portMappings": [{ "hostPort": 1, "containerPort": 0 }] } }),
            json!({ "runtimeConfig": { "portMappings": [{ "hostPort": 1, "containerPort": 1, "protocol": "x" }] } }),
        ] {
            let error = wanted(bad.clone(), "").unwrap_err();
            assert!(matches!(error, PodError::Config { .. }), "{bad}: {error}");
        }
        let limited = json!({ "runtimeConfig": { "bandwidth": { "ingressRate": 1 } } });
        assert!(matches!(wanted(limited, ""), Err(PodError::Unsupported(_))));
    }

    #[test]
    fn taking_away_needs_the_name_alone() {
        let config = r#"{"name":"loxi","mtu":"x","runtimeConfig":7}"#;
        assert_eq!(NetworkConfig::parse(config).unwrap().name, "loxi");
    }

    #[test]
    fn garbage_is_known_by_a_list_only() {
        let valid = |text: &str| NetworkConfig::parse(text).unwrap().valid();
        assert!(valid(r#"{"name":"loxi"}"#).is_err());
        let list = r#"{"name":"loxi","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}"#;
        assert_eq!(valid(list).unwrap(), [("a".into(), "eth0".into())]);
        assert_eq!(valid(&list.replace("valid-", "")).unwrap(), [("a".into(), "eth0".into())]);
        assert_eq!(valid(r#"{"name":"loxi","cni.dev/valid-attachments":null}"#).unwrap(), []);
    }
}
