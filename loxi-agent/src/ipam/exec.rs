//! Starting the plugin, and what it answers.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{HostLocal, IpamError, Tenant};

/// How much of an answer that can't be understood is said.
const SHOWN: usize = 200;

#[derive(Deserialize)]
struct PluginError {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl HostLocal {
    pub(super) async fn exec(
        &self,
        verb: &'static str,
        tenant: &Tenant,
        netns: Option<&Path>,
        config: &Value,
    ) -> Result<String, IpamError> {
        let work = self.run(verb, tenant, netns, config);
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(IpamError::Timeout { path: self.binary(), verb, after: self.timeout }))
    }

    async fn run(
        &self,
        verb: &'static str,
        tenant: &Tenant,
        netns: Option<&Path>,
        config: &Value,
    ) -> Result<String, IpamError> {
        let failed = |source| IpamError::Run { path: self.binary(), source };
        let mut child = Command::new(self.binary())
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &tenant.container)
            .env("CNI_NETNS", netns.unwrap_or(Path::new("")))
            .env("CNI_IFNAME", &tenant.ifname)
            .env("CNI_PATH", &self.bin_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Dropped with the future when the time is up.
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says why in its answer.
            let _ = stdin.write_all(config.to_string().as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(answer);
        }
        match serde_json::from_str(&answer) {
            Ok(PluginError { code, msg, details }) => Err(IpamError::Refused { verb, code, msg, details }),
            Err(error) => {
                let errors = beginning(&String::from_utf8_lossy(&output.stderr));
                let reason = format!("{error}; it ended with {} and said {errors:?}", output.status);
                Err(IpamError::Answer { verb, answer: beginning(&answer), reason })
            }
        }
    }
}

pub(super) fn beginning(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    use super::*;

    /// A script can't be run while another test's new process still has it open for writing: one test at a time.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// A plugin that does what a script says.
    fn plugin(script: &str) -> (tempfile::TempDir, HostLocal, Tenant) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host-local");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let data_dir = folder.path().join("data");
        let timeout = Duration::from_secs(5);
        let plugin = HostLocal { bin_dir: folder.path().into(), data_dir: data_dir.clone(), timeout };
        let tenant =
            Tenant { network: "loxi".into(), data_dir, container: "c1".into(), ifname: "eth0".into() };
        (folder, plugin, tenant)
    }

    #[tokio::test]
    async fn the_plugin_is_told_by_environment_and_input() {
        let _alone = ALONE.lock().await;
        let (folder, plugin, tenant) =
            plugin(r#"dir="${CNI_PATH}"; /usr/bin/env > "$dir/env"; /bin/cat > "$dir/input""#);
        plugin.del(&tenant).await.unwrap();
        let env = std::fs::read_to_string(folder.path().join("env")).unwrap();
        for line in ["CNI_COMMAND=DEL", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS="] {
            assert!(env.lines().any(|other| other == line), "{line}: {env}");
        }
        assert!(!env.contains("CNI_ARGS") && !env.contains("HOME"), "{env}");
        let input: Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("input")).unwrap()).unwrap();
        assert_eq!(input["name"], "loxi");
        assert_eq!(input["ipam"]["dataDir"], tenant.data_dir.to_str().unwrap());
    }

    #[tokio::test]
    async fn its_errors_are_kept() {
        let _alone = ALONE.lock().await;
        let (_folder, plugin, tenant) = plugin(r#"echo '{"code":11,"msg":"full"}'; exit 1"#);
        let error = plugin.del(&tenant).await.unwrap_err();
        assert!(matches!(&error, IpamError::Refused { code: 11, msg, .. } if msg == "full"), "{error}");
    }

    #[tokio::test]
    async fn one_that_dies_or_is_missing_is_named() {
        let _alone = ALONE.lock().await;
        let (folder, plugin, tenant) = plugin("echo broken >&2; exit 7");
        let error = plugin.del(&tenant).await.unwrap_err();
        assert!(matches!(&error, IpamError::Answer { reason, .. } if reason.contains("broken")), "{error}");
        std::fs::remove_file(folder.path().join("host-local")).unwrap();
        let error = plugin.del(&tenant).await.unwrap_err();
        assert!(matches!(&error, IpamError::Run { .. }), "{error}");
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_ended() {
        let _alone = ALONE.lock().await;
        let (_folder, mut plugin, tenant) = plugin("exec /bin/sleep 30");
        plugin.timeout = Duration::from_millis(100);
        let start = Instant::now();
        assert!(matches!(plugin.del(&tenant).await.unwrap_err(), IpamError::Timeout { .. }));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
