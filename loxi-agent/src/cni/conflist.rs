//! The network configuration by which container runtimes find the plugin.
//!
//! It is there only once pods can be given an interface, so that a kubelet calls its node ready no earlier. It stays when
//! the agent ends: the node goes on forwarding, and the runtime is told to try again meanwhile.

use std::io;
use std::path::{Path, PathBuf};

use loxi_linux::file::write_private;
use serde_json::{Value, json};

/// The configuration's name: before those of others.
pub const FILE: &str = "05-loxi.conflist";
/// What runtimes take for configurations, by the ends of their names.
const ENDS: [&str; 3] = ["conf", "conflist", "json"];
/// The plugin's type, which is the name of its binary.
const PLUGIN: &str = "loxi-cni";
/// A plugin that gives pods no network.
const HARMLESS: &str = "loopback";

/// Why no configuration can be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConflistError {
    /// The folder or a file in it.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another network has its configuration there.
    #[error("{} is the configuration of another CNI network ({plugin}): remove that network first", path.display())]
    Other {
        /// Its file.
        path: PathBuf,
        /// Its plugin, or why it could not be read.
        plugin: String,
    },
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ConflistError {
    let path = path.to_owned();
    move |source| ConflistError::Io { operation, path, source }
}

/// Whether nobody else's configuration is there. Two networks on a node would each have part of the pods.
///
/// # Errors
/// [`ConflistError::Other`] with the first that is; or if the folder can't be read.
pub fn is_alone(folder: &Path) -> Result<(), ConflistError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("list", folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed("list", folder))?.path());
    }
    paths.sort();
    let is_configuration =
        |path: &&PathBuf| path.extension().is_some_and(|end| ENDS.iter().any(|one| end == *one));
    for path in paths.iter().filter(is_configuration) {
        let text = std::fs::read_to_string(path).map_err(failed("read", path))?;
        let plugin = serde_json::from_str::<Value>(&text)
            .map_or_else(|error| format!("it can't be read: {error}"), |value| plugin_of(&value));
        if plugin != PLUGIN && plugin != HARMLESS {
            return Err(ConflistError::Other { path: path.clone(), plugin });
        }
    }
    Ok(())
}

/// The type of a configuration's first plugin.
fn plugin_of(configuration: &Value) -> String {
    let first = configuration.pointer("/plugins/0").unwrap_or(configuration);
    first.get("type").and_then(Value::as_str).unwrap_or("no plugin").to_owned()
}

/// Puts the configuration there, as a whole.
///
/// # Errors
/// If somebody else's is there by now, or the folder can't be written.
pub fn publish(folder: &Path, socket: &Path) -> Result<PathBuf, ConflistError> {
    is_alone(folder)?;
    std::fs::create_dir_all(folder).map_err(failed("make folder", folder))?;
    let path = folder.join(FILE);
    write_private(&path, text(socket).as_bytes()).map_err(failed("write", &path))?;
    Ok(path)
}

/// Takes the configuration away. That it isn't there is no error.
///
/// # Errors
/// If it can't be removed.
pub fn withdraw(folder: &Path) -> Result<(), ConflistError> {
    let path = folder.join(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
        _ => Ok(()),
    }
}

fn text(socket: &Path) -> String {
    let configuration = json!({
        "cniVersion": "1.0.0",
        "name": "loxi",
        "plugins": [{
            "type": PLUGIN,
            "socket": socket,
            "capabilities": { "portMappings": true, "mac": true, "ips": true },
        }],
    });
    format!("{configuration:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_a_list_of_our_plugin_and_is_no_stranger() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("net.d");
        is_alone(&at).unwrap();
        let path = publish(&at, Path::new("/run/x/cni.sock")).unwrap();
        let value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["plugins"][0]["socket"], "/run/x/cni.sock");
        assert_eq!(plugin_of(&value), PLUGIN);
        publish(&at, Path::new("/run/y/cni.sock")).unwrap();
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1);
        withdraw(&at).unwrap();
        withdraw(&at).unwrap();
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
    }

    #[test]
    fn another_network_is_named_and_its_file_and_ours_are_left_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for (file, text, named) in [
            ("10-bridge.conflist", r#"{"plugins":[{"type":"bridge"},{"type":"loxi-cni"}]}"#, "bridge"),
            ("99-x.conf", r#"{"type":"flannel"}"#, "flannel"),
            ("99-y.json", "{", "it can't be read: EOF while parsing an object at line 1 column 1"),
        ] {
            std::fs::write(at.join("99-loopback.conf"), r#"{"type":"loopback"}"#).unwrap();
            std::fs::write(at.join("notes.txt"), "{").unwrap();
            is_alone(at).unwrap();
            std::fs::write(at.join(file), text).unwrap();
            let error = publish(at, Path::new("/s")).unwrap_err();
            assert!(
                matches!(&error, ConflistError::Other { path, plugin } if path.ends_with(file) && plugin == named),
                "{error}"
            );
            assert!(!at.join(FILE).exists());
            std::fs::remove_file(at.join(file)).unwrap();
        }
    }
}
