//! Pods' addresses, by delegation to the `host-local` plugin.
//!
//! The plugin keeps what is given out in files of its own, a folder per network; so whatever else on the node uses it,
//! and whichever agent comes next, sees the same. It is started for each operation and ended when its time is up.

mod exec;
mod ranges;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loxi_linux::Prefix;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use ranges::{Range, RangeError};

/// The version of CNI that is spoken with the plugin: the newest that distributions' builds of it know.
const VERSION: &str = "1.0.0";
const PLUGIN: &str = "host-local";

/// Where the plugin is, and where it keeps its files unless a network says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLocal {
    /// The folder of the plugin's binary.
    pub bin_dir: PathBuf,
    /// The folder of its files.
    pub data_dir: PathBuf,
    /// How long one operation may take.
    pub timeout: Duration,
}

/// Whose addresses it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// The network's name: the folder of its addresses.
    pub network: String,
    /// The folder of folders.
    pub data_dir: PathBuf,
    /// The container.
    pub container: String,
    /// Its interface.
    pub ifname: String,
}

/// An address on the plugin's disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// The container that has it.
    pub container: String,
    /// The interface.
    pub ifname: String,
    /// The address.
    pub address: IpAddr,
}

/// Why addresses could not be given, looked at or taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// The plugin can't be run.
    #[error("run {}: {source}", path.display())]
    Run {
        /// The binary.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error("{} {verb} took longer than {} ms", path.display(), after.as_millis())]
    Timeout {
        /// The binary.
        path: PathBuf,
        /// What it was to do.
        verb: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// It refused.
    #[error("{PLUGIN} {verb}: {msg}")]
    Refused {
        /// What it was to do.
        verb: &'static str,
        /// Its number for the error.
        code: u32,
        /// What it said.
        msg: String,
        /// What else it said.
        details: String,
    },
    /// Its answer can't be understood.
    #[error("{PLUGIN} {verb} answers {answer:?}: {reason}")]
    Answer {
        /// What it was to do.
        verb: &'static str,
        /// The beginning of the answer.
        answer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Its files can't be read.
    #[error("list {}: {source}", path.display())]
    Leases {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl HostLocal {
    /// The plugin's binary.
    #[must_use]
    pub fn binary(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }

    /// Gives an interface an address of each range; of those wanted, where one is in a range.
    ///
    /// # Errors
    /// If the plugin can't be run, takes too long, has none left, or says something else. Some addresses may be taken then:
    /// [`HostLocal::del`] frees them.
    pub async fn add(
        &self,
        tenant: &Tenant,
        netns: &Path,
        ranges: &[Range],
        wanted: &[IpAddr],
    ) -> Result<Vec<Prefix>, IpamError> {
        let mut config = config(tenant, ranges);
        if !wanted.is_empty() {
            config["runtimeConfig"] = json!({ "ips": wanted });
        }
        let answer = self.exec("ADD", tenant, Some(netns), &config).await?;
        addresses(&answer, ranges)
    }

    /// Frees an interface's addresses. Having none is no error.
    ///
    /// # Errors
    /// If the plugin can't be run, takes too long or refuses.
    pub async fn del(&self, tenant: &Tenant) -> Result<(), IpamError> {
        // What is freed goes by the container; the ranges only have to be there.
        self.exec("DEL", tenant, None, &config(tenant, &[Range::of_documentation()])).await.map(drop)
    }

    /// Whether an interface has an address.
    ///
    /// # Errors
    /// If it has none, or the plugin can't be asked.
    pub async fn check(&self, tenant: &Tenant, netns: &Path) -> Result<(), IpamError> {
        let config = config(tenant, &[Range::of_documentation()]);
        self.exec("CHECK", tenant, Some(netns), &config).await.map(drop)
    }

    /// The addresses of a network that are given out, in order.
    ///
    /// # Errors
    /// If the plugin's files can't be read. A network without files has none.
    pub fn leases(data_dir: &Path, network: &str) -> Result<Vec<Lease>, IpamError> {
        let folder = data_dir.join(network);
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| IpamError::Leases { path, source }
        };
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed(&folder))?,
        };
        let mut leases = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed(&folder))?.path();
            // Beside the addresses there are a lock and what was given out last.
            let Some(address) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            let text = match std::fs::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed(&path))?,
            };
            let mut lines = text.lines().map(str::trim);
            let mut next = || lines.next().unwrap_or_default().to_owned();
            leases.push(Lease { container: next(), ifname: next(), address });
        }
        leases.sort();
        Ok(leases)
    }
}

fn config(tenant: &Tenant, ranges: &[Range]) -> Value {
    let ranges: Vec<_> = ranges.iter().map(|range| [range.config()]).collect();
    json!({
        "cniVersion": VERSION,
        "name": tenant.network,
        "type": PLUGIN,
        "ipam": { "type": PLUGIN, "dataDir": tenant.data_dir, "ranges": ranges },
    })
}

/// The addresses of an answer: one of each range, in the ranges' order.
fn addresses(answer: &str, ranges: &[Range]) -> Result<Vec<Prefix>, IpamError> {
    #[derive(Deserialize)]
    struct Answer {
        ips: Vec<Ip>,
    }
    #[derive(Deserialize)]
    struct Ip {
        address: String,
    }
    let wrong = |reason: String| IpamError::Answer { verb: "ADD", answer: exec::beginning(answer), reason };
    let parsed: Answer = serde_json::from_str(answer).map_err(|error| wrong(error.to_string()))?;
    let mut given = Vec::new();
    for ip in &parsed.ips {
        given.push(ip.address.parse::<Prefix>().map_err(|error| wrong(error.to_string()))?);
    }
    let of_range = |range: &Range| given.iter().find(|prefix| range.subnet().contains(prefix.addr)).copied();
    let all: Option<Vec<Prefix>> = ranges.iter().map(of_range).collect();
    all.filter(|all| all.len() == given.len())
        .ok_or_else(|| wrong("it isn't one address of each range".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, gateway: &str) -> Range {
        Range::new(subnet.parse().unwrap(), gateway.parse().unwrap()).unwrap()
    }

    #[test]
    fn an_answer_has_one_address_of_each_range() {
        let ranges = [range("10.244.1.0/24", "10.244.1.1"), range("fd00::/64", "fd00::1")];
        let v4 = r#"{"address":"10.244.1.10/24","gateway":"10.244.1.1"}"#;
        let v6 = r#"{"address":"fd00::a/64"}"#;
        let both = addresses(&format!(r#"{{"ips":[{v6},{v4}]}}"#), &ranges).unwrap();
        assert_eq!(both, ["10.244.1.10/24".parse().unwrap(), "fd00::a/64".parse().unwrap()]);
        for bad in [
            format!(r#"{{"ips":[{v4}]}}"#),
            format!(r#"{{"ips":[{v4},{v6},{v4}]}}"#),
            format!(r#"{{"ips":[{v4},{{"address":"x"}}]}}"#),
            "{}".into(),
            String::new(),
        ] {
            assert!(addresses(&bad, &ranges).is_err(), "{bad}");
        }
    }

    #[test]
    fn leases_are_read_as_the_plugin_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(HostLocal::leases(folder.path(), "loxi").unwrap(), []);
        let network = folder.path().join("loxi");
        std::fs::create_dir(&network).unwrap();
        for (name, text) in [
            ("10.244.1.10", "a\r\neth0"),
            ("fd00::a", "a\r\neth0"),
            ("10.244.1.11", "b"),
            ("last_reserved_ip.0", "10.244.1.11"),
            ("lock", ""),
        ] {
            std::fs::write(network.join(name), text).unwrap();
        }
        let lease = |container: &str, ifname: &str, address: &str| Lease {
            container: container.into(),
            ifname: ifname.into(),
            address: address.parse().unwrap(),
        };
        assert_eq!(
            HostLocal::leases(folder.path(), "loxi").unwrap(),
            [lease("a", "eth0", "10.244.1.10"), lease("a", "eth0", "fd00::a"), lease("b", "", "10.244.1.11")]
        );
    }
}
