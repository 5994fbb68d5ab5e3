//! Whether a node has what the agent and its daemon need, and removing what they have made of it.

use std::path::{Path, PathBuf};

use loxi_channel::Endpoint;
use loxi_channel::endpoint::EndpointError;
use loxi_linux::layout::{self, Instance, LayoutError};
use loxi_linux::nftables::TableId;
use loxi_linux::sys::{Ns, RealSys, Sys, SysError};

use crate::cni::conflist::{self, ConflistError};
use crate::options::Options;

/// Numbers of `linux/capability.h`.
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is, or what is wrong, with its remedy.
    pub result: Result<String, String>,
}

/// Looks at everything, and changes nothing.
#[must_use]
pub fn checks(options: &Options) -> Vec<Check> {
    let check = |name, result| Check { name, result };
    let tables = RealSys.nft_tables(&Ns::current());
    vec![
        check("privileges", privileges(&read("/proc/self/status"))),
        check("nftables", nftables(&tables)),
        check("TUN device", is_there("/dev/net/tun", "modprobe tun; in a container mount the device")),
        check("settings of namespaces", writable_settings()),
        check("bpf file system", bpf_file_system(&read("/proc/self/mountinfo"))),
        check(
            "host-local",
            is_there(options.cni_bin_dir.join("host-local"), "install the CNI plugins, or say --cni-bin-dir"),
        ),
        check("network configurations", alone(options)),
        check("kube-proxy", no_kube_proxy(&tables)),
    ]
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn is_there(path: impl AsRef<Path>, remedy: &str) -> Result<String, String> {
    let path = path.as_ref();
    if path.exists() {
        Ok(path.display().to_string())
    } else {
        Err(format!("there is no {}: {remedy}", path.display()))
    }
}

fn privileges(status: &str) -> Result<String, String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    let missing: Vec<&str> = [(NET_ADMIN, "CAP_NET_ADMIN"), (SYS_ADMIN, "CAP_SYS_ADMIN")]
        .into_iter()
        .filter(|(number, _)| effective >> number & 1 == 0)
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        Ok("CAP_NET_ADMIN, CAP_SYS_ADMIN".into())
    } else {
        Err(format!("without {}: run as root, or give the container these", missing.join(" and ")))
    }
}

type Tables = Result<Vec<TableId>, SysError>;

fn nftables(tables: &Tables) -> Result<String, String> {
    tables
        .as_ref()
        .map(|tables| format!("{} tables", tables.len()))
        .map_err(|error| format!("{error}: install nftables, and modprobe nf_tables"))
}

fn writable_settings() -> Result<String, String> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let open = std::fs::OpenOptions::new().write(true).open(path);
    open.map(|_| "writable".into()).map_err(|error| format!("{path}: {error}: mount -o remount,rw /proc/sys"))
}

fn bpf_file_system(mounts: &str) -> Result<String, String> {
    let at = "/sys/fs/bpf";
    let mounted = mounts.lines().any(|line| line.contains(&format!(" {at} ")) && line.contains(" - bpf "));
    if mounted { Ok(at.into()) } else { Err(format!("none at {at}: mount -t bpf bpf {at}")) }
}

fn alone(options: &Options) -> Result<String, String> {
    let Some(folder) = &options.cni_conf_dir else { return Ok("none is published".into()) };
    conflist::is_alone(folder).map(|()| folder.display().to_string()).map_err(|error| error.to_string())
}

/// Its rules would take services' packets before they come to the dataplane.
fn no_kube_proxy(tables: &Tables) -> Result<String, String> {
    match tables {
        Err(error) => Err(error.to_string()),
        Ok(tables) if tables.iter().any(|table| table.name == "kube-proxy") => {
            Err("its table is there: remove kube-proxy, then `kube-proxy --cleanup` or a reboot".into())
        }
        Ok(_) => Ok("no table of it".into()),
    }
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CleanupError {
    /// Somebody uses it.
    #[error("an agent or a daemon of instance {instance} runs ({}): end it first", path.display())]
    InUse {
        /// The instance.
        instance: String,
        /// The socket that answers.
        path: PathBuf,
    },
    /// The daemon's sockets.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Links, namespaces, rules or settings.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The runtime's configuration.
    #[error(transparent)]
    Conflist(#[from] ConflistError),
    /// A folder.
    #[error("remove {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Removes what an instance has made of this machine: the runtime's configuration, the layout, and what the agent remembers. What isn't
/// there is no error. Pods that are still there lose their network. The daemon takes its programs away itself, on SIGINT.
///
/// # Errors
/// If something runs, or something can't be removed: what comes after it is left.
pub fn cleanup(options: &Options) -> Result<(), CleanupError> {
    for path in [options.socket(), Endpoint::in_folder(options.daemon())?.control()] {
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(CleanupError::InUse { instance: options.instance.clone(), path });
        }
    }
    if let Some(folder) = &options.cni_conf_dir {
        conflist::withdraw(folder)?;
    }
    for path in [options.run_dir(), options.state_dir()] {
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(CleanupError::Folder { path, source });
            }
            _ => {}
        }
    }
    Ok(layout::cleanup(&RealSys, &Instance::of_this_machine(&options.instance))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        assert!(privileges("Name:\tx\nCapEff:\t000001ffffffffff\n").is_ok());
        let error = privileges("CapEff:\t0000000000001000\n").unwrap_err();
        assert!(error.contains("CAP_SYS_ADMIN") && !error.contains("NET_ADMIN"), "{error}");
        privileges("").unwrap_err();
        assert!(bpf_file_system("30 20 0:27 / /sys/fs/bpf rw - bpf bpf rw").is_ok());
        assert!(
            bpf_file_system("30 20 0:27 / /sys/fs/bpf rw - tmpfs x rw").unwrap_err().contains("mount -t bpf")
        );
        assert!(is_there("/nowhere/x", "do y").unwrap_err().contains("do y"));
    }

    #[test]
    fn another_network_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        let options = Options::parse_from(["loxi-agent", "--cni-conf-dir", at, "preflight"]);
        assert!(alone(&options).is_ok());
        std::fs::write(folder.path().join("10-x.conflist"), r#"{"plugins":[{"type":"bridge"}]}"#).unwrap();
        assert!(alone(&options).unwrap_err().contains("bridge"));
    }

    #[test]
    fn what_runs_is_not_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (run, state, conf) = (of("run"), of("state"), of("net.d"));
        let options = Options::parse_from([
            "loxi-agent",
            "--instance",
            "cleanup-test",
            "--run-dir",
            &run,
            "--state-dir",
            &state,
            "--cni-conf-dir",
            &conf,
            "--daemon",
            &of("daemon"),
            "cleanup",
        ]);
        for folder in [&run, &state] {
            std::fs::create_dir(folder).unwrap();
        }
        let socket = std::os::unix::net::UnixListener::bind(options.socket()).unwrap();
        assert!(matches!(cleanup(&options), Err(CleanupError::InUse { .. })));
        assert!(Path::new(&state).exists());
        drop(socket);
        conflist::publish(Path::new(&conf), &options.socket()).unwrap();
        match cleanup(&options) {
            // Without privileges the layout can't be looked at; everything before it is gone.
            Ok(()) | Err(CleanupError::Layout(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(!Path::new(&run).exists() && !Path::new(&state).exists());
        assert!(!Path::new(&conf).join(conflist::FILE).exists());
    }
}
