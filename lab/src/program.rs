//! Programs of a node: started in its root namespace and with its own `/run`, each with a log, and ended with the lab.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loxi_linux::place::{Place, PlaceError};
use loxi_linux::process::{Process, Stop};

use crate::plan::{Plan, Spot};
use crate::world::{World, folder};

/// How long a program may take to be ready.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end when asked.
const END: Duration = Duration::from_secs(5);

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It can't be started.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It has ended by itself.
    #[error("{name} of node {node} has ended ({status}):\n{log}")]
    Ended {
        /// Its name.
        name: &'static str,
        /// The node.
        node: u8,
        /// How.
        status: String,
        /// Its last lines.
        log: String,
    },
    /// It does not say that it is ready.
    #[error("{name} of node {node} is not ready after {START:?}:\n{log}")]
    NotReady {
        /// Its name.
        name: &'static str,
        /// The node.
        node: u8,
        /// Its last lines.
        log: String,
    },
}

/// A running program; it ends with this value.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    node: u8,
    log: PathBuf,
    child: Child,
}

/// Where a program of a node logs to.
#[must_use]
pub fn log_file(plan: &Plan, node: u8, name: &str) -> PathBuf {
    folder(plan).join(format!("n{node}")).join(format!("{name}.log"))
}

impl Program {
    /// Starts a program on a node.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(
        world: &World,
        node: u8,
        name: &'static str,
        command: &mut Command,
    ) -> Result<Self, ProgramError> {
        let log = log_file(world.plan(), node, name);
        let failed = |source| ProgramError::File { path: log.clone(), source };
        let output = File::create(&log).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(output).stderr(errors);
        // Ctrl-C is for the lab, which ends its programs itself.
        std::os::unix::process::CommandExt::process_group(command, 0);
        let place = Place { net: world.spot(Spot::Node(node)), mounts: world.mounts(node) };
        Ok(Self { name, node, child: place.spawn(command)?, log })
    }

    /// Waits for the file by which it says that it is ready.
    ///
    /// # Errors
    /// If it has ended, or takes too long.
    pub async fn ready(&mut self, file: &Path) -> Result<(), ProgramError> {
        let (name, node) = (self.name, self.node);
        let until = Instant::now() + START;
        while !file.exists() {
            let ended = match self.child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(status) = ended {
                return Err(ProgramError::Ended { name, node, status, log: last_lines(&self.log) });
            }
            if Instant::now() > until {
                return Err(ProgramError::NotReady { name, node, log: last_lines(&self.log) });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it by SIGKILL: it gets no chance to do anything.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Program {
    /// Asks it to end, and ends it if it doesn't.
    fn drop(&mut self) {
        let asked = Process::open(self.child.id()).and_then(|process| process.stop(Stop::Ask));
        let until = Instant::now() + END;
        while asked.is_ok() && Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        // It may have ended just now; there is nobody to tell of another failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes a file by which one that was killed has said that it is ready.
pub(crate) fn forget(file: &Path) -> Result<(), ProgramError> {
    match std::fs::remove_file(file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ProgramError::File { path: file.into(), source })
        }
        _ => Ok(()),
    }
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
