//! Making an interface.

use std::collections::BTreeSet;

use loxi_cni_proto::{Attached, Dns, Interface, Route};
use loxi_core::net::{MacAddr, Mtu};
use loxi_linux::Prefix;
use loxi_linux::layout::{Layout, LayoutSpec, PodSpec, mac_for};
use loxi_linux::nftables::LocalPort;
use loxi_linux::sys::{Ns, Sys};

use super::invocation::Wanted;
use super::{Address, Complete, Entry, Invocation, PodError, PodNetwork, Pods, State, is_there};
use crate::cluster::model::Protocol;
use crate::intent::{Attachment, HostPort};
use crate::ipam::Range;

/// An interface that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    /// What the dataplane knows of it.
    pub attachment: Attachment,
    /// The addresses, as the pod has them.
    pub addresses: Vec<Address>,
    /// The Ethernet address of the dataplane's end.
    pub port_mac: loxi_linux::MacAddr,
    /// The path of the pod's namespace.
    pub netns: String,
    /// Name resolution, as the configuration has it.
    pub dns: Dns,
}

/// What an interface is made of.
struct Plan {
    network: std::sync::Arc<PodNetwork>,
    ranges: Vec<Range>,
    mtu: Mtu,
    mac: MacAddr,
    wanted: Wanted,
}

impl Pods {
    /// Makes an interface. When this returns the pod can use it, within what its policies allow.
    ///
    /// # Errors
    /// If the configuration can't be met, the interface is there, or a step failed. Then nothing is left over, unless undoing
    /// failed as well; what is left then is known, and goes with the next DEL, ADD or GC.
    pub async fn add(&self, invocation: &Invocation) -> Result<Added, PodError> {
        let key = &invocation.key;
        let wanted = Wanted::of(invocation)?;
        let _lock = self.locks.lock(key).await;
        match self.store.get(key) {
            None => {}
            Some(entry) if entry.state == State::Pending => self.remove(key, &entry).await?,
            Some(entry) => return Err(PodError::Exists { what: format!("{key}, as {},", entry.port) }),
        }
        let plan = self.plan(invocation, wanted)?;
        let netns = Ns::at(&invocation.netns);
        let (there, ifname) = (netns.clone(), key.ifname().to_owned());
        self.blocking(move |sys| is_free(sys, &there, &ifname)).await?;

        let (store, tenant) = (self.store.clone(), self.tenant(key, &invocation.config));
        let (dataplane, new) = (self.layout.netns(), key.clone());
        let reserve = move |sys: &dyn Sys| {
            let links = sys.links(&dataplane);
            let links =
                links.map_err(|source| PodError::Sys { step: "list the dataplane's ports", source })?;
            let names: BTreeSet<String> = links.into_iter().map(|link| link.name).collect();
            Ok(store.reserve(&new, tenant, &names)?)
        };
        let entry = self.blocking(reserve).await?;
        match self.make(invocation, &entry, plan, netns).await {
            Ok(added) => Ok(added),
            Err(error) => {
                // The runtime is told why there is no interface; what can't be undone now is kept for the next time.
                if let Err(left) = self.remove(key, &entry).await {
                    tracing::error!(%key, error = %left, "undoing an ADD");
                }
                Err(error)
            }
        }
    }

    fn plan(&self, invocation: &Invocation, wanted: Wanted) -> Result<Plan, PodError> {
        let network = self.node.network().ok_or(PodError::NoNetwork)?;
        let ranges = network.ranges()?;
        if ranges.is_empty() {
            return Err(PodError::NoNetwork);
        }
        let most = u16::try_from(network.layout.mtu).ok().and_then(|mtu| Mtu::new(mtu).ok());
        let most = most.ok_or_else(|| PodError::Config {
            field: "the node's MTU",
            reason: format!("{} is none", network.layout.mtu),
        })?;
        let mtu = wanted.mtu.unwrap_or(most);
        if mtu > most {
            let reason = format!("{} is more than the network's {}", mtu.get(), most.get());
            return Err(PodError::Config { field: "mtu", reason });
        }
        let key = &invocation.key;
        let mac = wanted.mac.unwrap_or_else(|| MacAddr::new(mac_for(key.container(), key.ifname()).0));
        Ok(Plan { network, ranges, mtu, mac, wanted })
    }

    /// All that may have to be undone; the entry is written already.
    async fn make(
        &self,
        invocation: &Invocation,
        entry: &Entry,
        plan: Plan,
        netns: Ns,
    ) -> Result<Added, PodError> {
        let key = &invocation.key;
        let Plan { network, ranges, mtu, mac, wanted } = plan;
        let given = self.ipam.add(&entry.tenant, &invocation.netns, &ranges, &wanted.ips).await?;
        if let Some(missed) = wanted.ips.iter().find(|wanted| !given.iter().any(|have| have.addr == **wanted))
        {
            let reason = format!("{missed} can't be given");
            return Err(PodError::Config { field: "runtimeConfig.ips", reason });
        }
        let addresses: Vec<Address> = given
            .iter()
            .zip(&ranges)
            .map(|(have, range)| Address {
                address: have.addr,
                // A pod has no neighbours: all that it sends goes to the switch, which decides what becomes of it.
                len: Prefix::host(have.addr).len,
                gateway: range.gateway(),
            })
            .collect();

        let pod = PodSpec {
            port: entry.port.to_string(),
            netns,
            ifname: key.ifname().to_owned(),
            addresses: addresses.iter().map(|each| Prefix { addr: each.address, len: each.len }).collect(),
            gateways: addresses.iter().map(|each| each.gateway).collect(),
            mac: loxi_linux::MacAddr(mac.octets()),
            local_ports: local_ports(&wanted.host_ports, &addresses),
        };
        let layout = Layout::existing(LayoutSpec { mtu: mtu.get().into(), ..network.layout.clone() });
        let port = self.blocking(move |sys| Ok(layout.add_pod(sys, &pod)?)).await?;

        let attachment = Attachment {
            container: key.container().to_owned(),
            ifname: key.ifname().to_owned(),
            pod: wanted.pod,
            port: entry.port.clone(),
            mac,
            addresses: addresses.iter().map(|each| each.address).collect(),
            mtu,
            host_ports: wanted.host_ports,
        };
        self.node.attached(attachment.clone()).await?;

        let complete = Complete { attachment: attachment.clone(), addresses: addresses.clone() };
        let state = State::Complete(Box::new(complete));
        let (store, key, entry) = (self.store.clone(), key.clone(), Entry { state, ..entry.clone() });
        self.blocking(move |_| Ok(store.put(&key, entry)?)).await?;
        let netns = invocation.netns.display().to_string();
        Ok(Added { attachment, addresses, port_mac: port.mac, netns, dns: wanted.dns })
    }
}

/// The ports of the node that lead to the pod, as its own processes use them; those of the wire and of pods are the
/// dataplane's.
fn local_ports(host_ports: &[HostPort], addresses: &[Address]) -> Vec<LocalPort> {
    let of = |port: &HostPort, target: &Address| {
        let fits = port.address.is_none_or(|address| address.is_ipv4() == target.address.is_ipv4());
        fits.then(|| LocalPort {
            address: port.address,
            protocol: match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            },
            port: port.host_port,
            target: (target.address, port.container_port),
        })
    };
    host_ports.iter().flat_map(|port| addresses.iter().filter_map(move |target| of(port, target))).collect()
}

fn is_free(sys: &dyn Sys, netns: &Ns, ifname: &str) -> Result<(), PodError> {
    if !is_there(sys, netns)? {
        return Err(PodError::NoNetns(netns.path().into()));
    }
    let links = sys.links(netns);
    let links = links.map_err(|source| PodError::Sys { step: "list the container's interfaces", source })?;
    if links.iter().any(|link| link.name == ifname) {
        let what = format!("{ifname} in {}", netns.path().display());
        return Err(PodError::Exists { what });
    }
    Ok(())
}

impl From<Added> for Attached {
    fn from(added: Added) -> Self {
        let Added { attachment, addresses, port_mac, netns, dns } = added;
        let mtu = attachment.mtu.get().into();
        let port = Interface {
            name: attachment.port.to_string(),
            mac: port_mac.to_string(),
            mtu,
            sandbox: String::new(),
        };
        let pod = Interface { name: attachment.ifname, mac: attachment.mac.to_string(), mtu, sandbox: netns };
        let ip = |each: &Address| loxi_cni_proto::Address {
            address: format!("{}/{}", each.address, each.len),
            gateway: each.gateway.to_string(),
            interface: 1,
        };
        let routes = |each: &Address| {
            let on_link = Route { dst: Prefix::host(each.gateway).to_string(), gw: String::new() };
            let default = Route { dst: Prefix::any(each.gateway).to_string(), gw: each.gateway.to_string() };
            [on_link, default]
        };
        Self {
            ips: addresses.iter().map(ip).collect(),
            routes: addresses.iter().flat_map(routes).collect(),
            interfaces: vec![port, pod],
            dns: Some(dns),
        }
    }
}
