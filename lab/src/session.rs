//! A session: a world with agents, daemons, attached pods and servers in it, and the table run on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::agent::Agent;
use crate::attach::{AttachError, Runtime};
use crate::daemon::{Backend, Daemon, DaemonError, Hooks};
use crate::manifests;
use crate::plan::{Family, NODES, PODS, Plan, Spot};
use crate::program::ProgramError;
use crate::proof::books::{Books, BooksError, Page, missing};
use crate::proof::bystander;
use crate::report::{Check, RowResult};
use crate::rows::{Outcome, Row, Spots, act};
use crate::traffic::answer::{AnswerError, Servers};
use crate::traffic::tools;
use crate::world::{World, WorldError};

/// Rows that are asked beside each other where counters need not tell them apart.
const BESIDE: usize = 24;
/// How often the first packet between the nodes is tried.
const WARM_UP: usize = 8;

/// Why a session could not start or go on. A row that fails is no such reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The namespaces.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The servers.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The agents.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The daemons.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The pods' interfaces.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The counters.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// A thread that did not come back.
    #[error("a thread of the lab: {0}")]
    Thread(#[from] JoinError),
}

/// The files of a node's programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon.
    pub loxilightd: PathBuf,
    /// The agent.
    pub loxi_agent: PathBuf,
    /// The CNI plugin.
    pub loxi_cni: PathBuf,
    /// The folder of the plugin host-local, which is not ours.
    pub host_local: PathBuf,
}

/// What runs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Names and addresses.
    pub plan: Plan,
    /// What the daemons hold.
    pub backend: Backend,
    /// Where its programs are.
    pub hooks: Hooks,
    /// The nodes' programs.
    pub programs: Programs,
}

/// A running lab. It goes with this value: first the agents, then the daemons, the namespaces last.
#[derive(Debug)]
pub struct Session {
    setup: Setup,
    agents: Vec<Agent>,
    daemons: Vec<Daemon>,
    _servers: Servers,
    world: World,
}

/// How the rows are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One after the other, each with the proof of who forwarded.
    Proven,
    /// Beside each other and by their traffic alone: for a dataplane that is to pass nothing.
    Control,
}

/// What happens while rows are run.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A row has begun.
    Begun(&'a Row),
    /// A row has ended.
    Ended(&'a RowResult),
}

impl Session {
    /// Makes a world and starts everything in it.
    ///
    /// # Errors
    /// If something can't be made or started; then nothing is left.
    pub async fn start(setup: &Setup) -> Result<Self, SessionError> {
        let plan = setup.plan.clone();
        let by_xdp = setup.hooks.by_xdp(setup.backend);
        let make = move || {
            let world = World::create(&plan)?;
            if by_xdp {
                world.merge_on_the_wire()?;
            }
            for (name, text) in manifests::files() {
                world.write_manifest(name, &text)?;
            }
            Ok::<_, WorldError>(world)
        };
        let mut world = tokio::task::spawn_blocking(make).await??;
        let (first, second) =
            tokio::join!(start_node(&world, NODES[0], setup), start_node(&world, NODES[1], setup));
        let (agents, daemons) = [first?, second?].into_iter().unzip();
        let world = tokio::task::spawn_blocking(move || world.adopt().map(|()| world)).await??;
        let servers = Servers::start(&world)?;
        Ok(Self { setup: setup.clone(), agents, daemons, _servers: servers, world })
    }

    /// Its namespaces.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Its daemons.
    #[must_use]
    pub fn daemons(&self) -> &[Daemon] {
        &self.daemons
    }

    /// Kills a node's daemon.
    ///
    /// # Errors
    /// If it is not there, or the system refuses.
    pub fn kill_daemon(&mut self, node: u8) -> std::io::Result<()> {
        let index = self.daemons.iter().position(|daemon| daemon.node() == node);
        self.daemons.remove(index.ok_or(std::io::ErrorKind::NotFound)?).kill()
    }

    /// Starts a node's daemon again.
    ///
    /// # Errors
    /// If it does not serve.
    pub async fn start_daemon(&mut self, node: u8) -> Result<(), DaemonError> {
        let Setup { backend, hooks, programs, .. } = &self.setup;
        self.daemons.push(Daemon::start(&self.world, node, &programs.loxilightd, *backend, *hooks).await?);
        self.daemons.sort_by_key(Daemon::node);
        Ok(())
    }

    /// A node's daemon, if it runs.
    #[must_use]
    pub fn daemon(&self, node: u8) -> Option<&Daemon> {
        self.daemons.iter().find(|daemon| daemon.node() == node)
    }

    /// Ends it all and says what could not be removed, which dropping only prints.
    ///
    /// # Errors
    /// If something is left.
    pub fn end(self) -> Result<(), WorldError> {
        drop((self.agents, self.daemons, self._servers));
        self.world.remove()
    }

    /// Whether the kernel beside each dataplane stands by.
    #[must_use]
    pub fn checks(&self, when: &str) -> Vec<Check> {
        let one = |node: &u8| {
            let found = match self.world.dataplane(*node) {
                Some(dataplane) => bystander::suspicions(dataplane),
                None => vec!["it is not there".into()],
            };
            let name = format!("nothing in the kernel of n{node}'s dataplane can forward or answer, {when}");
            Check { name, ok: found.is_empty(), detail: found.join("; ") }
        };
        NODES.iter().map(one).collect()
    }

    /// Runs rows and tells as they go.
    ///
    /// # Errors
    /// If counters can't be read. A row that fails is in the results.
    pub async fn run(
        &self,
        rows: &[Row],
        mode: Mode,
        tell: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Vec<RowResult>, SessionError> {
        match mode {
            Mode::Proven => self.run_proven(rows, tell).await,
            Mode::Control => self.run_beside(rows, tell).await,
        }
    }

    async fn run_proven(
        &self,
        rows: &[Row],
        tell: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Vec<RowResult>, SessionError> {
        let mut books = Books::open(&self.world, &self.daemons).await?;
        self.warm_up().await?;
        let mut before = books.settled(None).await?;
        let mut results = Vec::new();
        for row in rows {
            tell(Progress::Begun(row));
            let (outcome, took) = timed(row.clone(), self.world.spots()).await?;
            let after = self.counted(&books, row, &before, outcome.is_ok()).await?;
            let mut wrong = books.errors(&after, row);
            books.reopen_at(&after);
            if outcome.is_ok() {
                wrong.extend(missing(row, &before, &after));
            }
            let result = RowResult::new(row, outcome, &wrong, took);
            tell(Progress::Ended(&result));
            results.push(result);
            before = after;
        }
        Ok(results)
    }

    /// The page after a row: what it has moved may be counted a moment later than it has arrived.
    async fn counted(
        &self,
        books: &Books<'_>,
        row: &Row,
        before: &Page,
        arrived: bool,
    ) -> Result<Page, BooksError> {
        for _ in 0..20 {
            let page = books.settled(Some(row)).await?;
            if !arrived || missing(row, before, &page).is_empty() {
                return Ok(page);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        books.settled(Some(row)).await
    }

    async fn run_beside(
        &self,
        rows: &[Row],
        tell: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Vec<RowResult>, SessionError> {
        let places = Arc::new(Semaphore::new(BESIDE));
        let mut running = JoinSet::new();
        for (index, row) in rows.iter().cloned().enumerate() {
            let (places, spots) = (Arc::clone(&places), self.world.spots());
            running.spawn(async move {
                // It is never closed, and a row without its place would only run earlier.
                let _place = places.acquire_owned().await.ok();
                (index, timed(row, spots).await)
            });
        }
        let mut results: Vec<Option<RowResult>> = rows.iter().map(|_| None).collect();
        while let Some(ended) = running.join_next().await {
            let (index, outcome) = ended?;
            let (outcome, took) = outcome?;
            let result = RowResult::new(&rows[index], outcome, &[], took);
            tell(Progress::Ended(&result));
            results[index] = Some(result);
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Lets each dataplane find the other's address on the wire: the packet that makes it ask is lost
    /// (`neighbor_unresolved`), and a row is not to wait for its repetition.
    async fn warm_up(&self) -> Result<(), SessionError> {
        for (from, to) in [(Spot::Pod(1, 1), Spot::Pod(2, 1)), (Spot::Pod(2, 1), Spot::Pod(1, 1))] {
            let Some(to) = to.address(Family::V4) else { continue };
            let spots = self.world.spots();
            let knock = move || {
                let Some(from) = spots.get(&from) else { return };
                // If nothing gets through the rows will say so.
                let _ = (0..WARM_UP).find(|_| tools::knock(from, to));
            };
            tokio::task::spawn_blocking(knock).await?;
        }
        Ok(())
    }
}

/// Starts what a node is made by, and attaches its pods.
async fn start_node(world: &World, node: u8, setup: &Setup) -> Result<(Agent, Daemon), SessionError> {
    let Setup { backend, hooks, programs, .. } = setup;
    let mut agent = Agent::start(world, node, &programs.loxi_agent, &programs.host_local, *backend, *hooks)?;
    let daemon = Daemon::start(world, node, &programs.loxilightd, *backend, *hooks).await?;
    agent.ready().await?;
    let (plugin, host_local) = (&*programs.loxi_cni, &*programs.host_local);
    let runtime = Runtime { world, node, plugin, host_local };
    tokio::task::block_in_place(|| PODS.into_iter().try_for_each(|pod| runtime.add(pod)))?;
    Ok((agent, daemon))
}

async fn timed(row: Row, spots: Spots) -> Result<(Outcome, Duration), JoinError> {
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        (act(&row, &spots), begun.elapsed())
    })
    .await
}
