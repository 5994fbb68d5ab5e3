//! A daemon and its folder, driven by `llcli`, all as processes.

#![allow(dead_code)] // each test uses some of it

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// The `llcli` of this build.
pub fn llcli() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let daemon = Path::new(env!("CARGO_BIN_EXE_loxilightd"));
        let profile = daemon.parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "llcli", "--target-dir"]).arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        profile.join("llcli")
    })
}

pub struct Place {
    pub folder: tempfile::TempDir,
}

pub struct Daemon {
    pub child: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Stops it in order.
    pub fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Place {
    /// A place whose daemon starts with this pipeline.
    pub fn with(pipeline: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write("node.yaml", pipeline);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    pub fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loxilightd"));
        command.arg("--run-dir").arg(self.run_dir()).args(["--log", "debug"]);
        command.arg("--pipeline").arg(self.path("node.yaml"));
        // Unless a test wants the programs, which are the machine's, it has a daemon that is only its own.
        if !more.contains(&"--backend") {
            command.args(["--backend", "reference"]);
        }
        command.args(more);
        command.env_remove("NOTIFY_SOCKET");
        command
    }

    /// Starts a daemon and waits until it is ready.
    pub fn start(&self, more: &[&str]) -> Daemon {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut child = self.command(more).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(self.path("log")).unwrap();
        assert!(line.starts_with("ready instance=default "), "{line}{}", log());
        assert!(self.run_dir().join("ready").exists());
        Daemon { child }
    }

    /// A start that must fail.
    pub fn refused(&self, more: &[&str]) -> String {
        let output = self.command(more).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn llcli(&self, args: &[&str]) -> Output {
        let mut command = Command::new(llcli());
        command.arg("--socket").arg(self.run_dir()).args(args).output().unwrap()
    }

    pub fn prints(&self, args: &[&str]) -> String {
        let output = self.llcli(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn apply(&self, name: &str, content: &str, id: &str) -> String {
        let file = self.write(name, content);
        self.prints(&["apply", "-f", file.to_str().unwrap(), "--id", id])
    }
}
