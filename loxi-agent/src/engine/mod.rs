//! The agent's heart: one task that holds the intent and brings the dataplane to it.
//!
//! It takes the source's updates and the requests to attach and detach interfaces in the order in which they come, as
//! many at once as there are, and applies what differs as one transaction. The first transaction replaces the agent's
//! whole set, and so does the first one after the dataplane was away: what it has then is not known.
//!
//! Nothing is applied before the source has told everything once, or was told by what the agent has kept on disk: an
//! agent that knows nothing yet takes nothing away. What can't be applied is set aside with its reason, object by object,
//! until the object changes; everything else is applied without it.

mod apply;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use loxi_core::dataplane::Dataplane;
use loxi_core::ir::Owner;
use loxi_core::net::PortName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::cluster::model::Node;
use crate::cluster::{Cluster, Event};
use crate::intent::{Attachment, Intent, Settings};
use crate::source::Update;
use apply::Applier;

pub use status::{Problem, Status};

/// How many updates and requests go into one transaction at most.
const TOGETHER: usize = 4096;
/// How long a pod that the cluster doesn't know yet is waited for.
const UNKNOWN_POD: Duration = Duration::from_secs(5);
/// How soon a dataplane that failed is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why a request has failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Something isn't there yet: worth trying again.
    #[error("not yet: {0}")]
    NotYet(String),
    /// The dataplane refuses it.
    #[error("{0}")]
    Refused(String),
}

/// Makes a node's settings from what the cluster says of it, and its layout.
pub trait Prepare: Send + Sync + 'static {
    /// Called with this node's object once it has its pods' networks; called again with a later one after a failure.
    ///
    /// # Errors
    /// What is missing, in words.
    fn prepare(&self, node: &Node) -> Result<Settings, String>;
}

/// Who is told how a request ended.
type Reply = oneshot::Sender<Result<(), RequestError>>;

enum Request {
    Attach(Box<Attachment>, Reply),
    Detach(PortName, Reply),
    Cluster(oneshot::Sender<Cluster>),
}

/// Asks the engine.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Arc<Status>>,
}

impl Handle {
    /// How things are; changes can be waited for.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// Gives an interface its port. The dataplane has it, with the pod's policies in force, when this returns.
    ///
    /// # Errors
    /// [`RequestError`]; then the dataplane hasn't got it.
    pub async fn attach(&self, attachment: Attachment) -> Result<(), RequestError> {
        self.ask(|answer| Request::Attach(Box::new(attachment), answer)).await
    }

    /// Takes an interface's port away, with all its flows: its addresses are free when this returns.
    ///
    /// # Errors
    /// [`RequestError`]; then it may be there still. One that isn't there is no error.
    pub async fn detach(&self, port: PortName) -> Result<(), RequestError> {
        self.ask(|answer| Request::Detach(port, answer)).await
    }

    /// The cluster as it is known; none if the engine has ended. Costs a copy of it.
    pub async fn cluster(&self) -> Option<Cluster> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Cluster(answer)).await.ok()?;
        answered.await.ok()
    }

    async fn ask(&self, request: impl FnOnce(Reply) -> Request) -> Result<(), RequestError> {
        let ended = || RequestError::NotYet("the agent is ending".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

/// What an engine is made from.
pub struct Parts {
    /// This node's name in the cluster.
    pub node: String,
    /// What the source tells.
    pub updates: mpsc::Receiver<Update>,
    /// What the agent knew when it ended last.
    pub kept: Option<Cluster>,
    /// The interfaces that there are already.
    pub attachments: Vec<Attachment>,
    /// The dataplane.
    pub dataplane: Arc<dyn Dataplane>,
    /// Whose entities the agent's are.
    pub owner: Owner,
    /// Makes the node's settings.
    pub prepare: Arc<dyn Prepare>,
}

/// Starts an engine. It ends with its source, or when nobody can ask it any more.
#[must_use]
pub fn start(parts: Parts) -> (Handle, tokio::task::JoinHandle<()>) {
    let (requests, requested) = mpsc::channel(TOGETHER);
    let (told, status) = watch::channel(Arc::new(Status::default()));
    let engine = Engine {
        name: parts.node,
        cluster: parts.kept.clone().unwrap_or_default(),
        attachments: parts.attachments,
        intent: None,
        knows: parts.kept.is_some(),
        applier: Applier::new(parts.dataplane, parts.owner),
        prepare: parts.prepare,
        waiting: Vec::new(),
        answers: Vec::new(),
        retry: None,
        status: Status {
            stale: parts.kept.map(|_| Arc::from("from disk, the source has not told yet")),
            ..Status::default()
        },
        told,
    };
    let task = tokio::spawn(engine.run(parts.updates, requested));
    (Handle { requests, status }, task)
}

type Answer = (Reply, Asked);

/// What an answer is about.
enum Asked {
    Attached(PortName),
    Detached,
}

impl Asked {
    /// An interface that was not attached isn't there.
    fn take_back(&self, intent: &mut Intent) {
        if let Self::Attached(port) = self {
            intent.detach(port);
        }
    }
}

struct Engine {
    name: String,
    /// The cluster, until there is an intent that has it.
    cluster: Cluster,
    attachments: Vec<Attachment>,
    intent: Option<Intent>,
    /// Whether the cluster is all there is, now or as it was.
    knows: bool,
    applier: Applier,
    prepare: Arc<dyn Prepare>,
    /// Interfaces whose pod the cluster doesn't know yet.
    waiting: Vec<(Attachment, Reply, Instant)>,
    /// Who is told when the next transaction has ended.
    answers: Vec<Answer>,
    /// When to try again, and how long to wait after that.
    retry: Option<(Instant, Duration)>,
    status: Status,
    told: watch::Sender<Arc<Status>>,
}

impl Engine {
    async fn run(mut self, mut updates: mpsc::Receiver<Update>, mut requests: mpsc::Receiver<Request>) {
        loop {
            self.advance().await;
            let (retry, expiry) =
                (self.retry.map(|(at, _)| at), self.waiting.iter().map(|(_, _, at)| *at).min());
            let timer = [retry, expiry].into_iter().flatten().min();
            let timer = async {
                match timer {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                update = updates.recv() => match update {
                    Some(update) => self.update(update),
                    None => return,
                },
                request = requests.recv() => match request {
                    Some(request) => self.request(request).await,
                    None => return,
                },
                () = timer => {}
            }
            // What is there already goes into the same transaction.
            for _ in 0..TOGETHER {
                match (updates.try_recv(), requests.try_recv()) {
                    (Err(_), Err(_)) => break,
                    (update, request) => {
                        if let Ok(update) = update {
                            self.update(update);
                        }
                        if let Ok(request) = request {
                            self.request(request).await;
                        }
                    }
                }
            }
        }
    }

    fn update(&mut self, update: Update) {
        match update {
            Update::Event(event) => self.event(event),
            Update::Synced => {
                tracing::info!("the cluster is known");
                self.knows = true;
                self.status.synced = true;
            }
            Update::Stale(why) => self.status.set_stale(why),
        }
    }

    fn event(&mut self, event: Event) {
        self.status.events += 1;
        match &mut self.intent {
            Some(intent) => intent.apply(event),
            None => drop(self.cluster.apply(event)),
        }
    }

    async fn request(&mut self, request: Request) {
        match request {
            Request::Cluster(answer) => {
                let cluster = self.intent.as_ref().map_or(&self.cluster, Intent::cluster);
                let _ = answer.send(cluster.clone());
            }
            Request::Attach(attachment, answer) => {
                let until = Instant::now() + UNKNOWN_POD;
                self.waiting.push((*attachment, answer, until));
            }
            Request::Detach(port, answer) => {
                // Flows end with the port, before its addresses are anybody else's. Also one that isn't known here may be
                // there, of an agent before this one.
                if let Err(error) = self.applier.detach(&port).await {
                    let _ = answer.send(Err(error));
                    return;
                }
                let Some(intent) = &mut self.intent else {
                    self.attachments.retain(|attachment| attachment.port != port);
                    let _ = answer.send(Ok(()));
                    return;
                };
                intent.detach(&port);
                self.answers.push((answer, Asked::Detached));
            }
        }
    }

    /// Does what can be done by now.
    async fn advance(&mut self) {
        self.prepare().await;
        self.admit();
        self.apply().await;
        let status = Arc::new(self.status.clone());
        self.told.send_if_modified(|told| {
            let differs = *told != status;
            *told = status;
            differs
        });
    }

    /// Makes the intent once this node's own object has what it takes.
    async fn prepare(&mut self) {
        if self.intent.is_some() || !self.knows || self.retry.is_some_and(|(at, _)| Instant::now() < at) {
            return;
        }
        let Some(node) = self.cluster.node(&self.name).filter(|node| !node.pod_cidrs.is_empty()) else {
            self.status.waits_for = Some(format!("node {} has no podCIDR yet", self.name));
            return;
        };
        let (prepare, node) = (Arc::clone(&self.prepare), node.clone());
        match tokio::task::spawn_blocking(move || prepare.prepare(&node)).await {
            Ok(Ok(settings)) => {
                let mut intent = Intent::new(settings);
                for object in std::mem::take(&mut self.cluster).into_objects() {
                    intent.apply(Event::Put(object));
                }
                for attachment in self.attachments.drain(..) {
                    intent.attach(attachment);
                }
                self.status.settings = Some(Arc::new(intent.settings().clone()));
                self.status.waits_for = None;
                self.intent = Some(intent);
                self.retry = None;
            }
            Ok(Err(why)) => self.failed(format!("the node's network: {why}")),
            Err(error) => self.failed(format!("the node's network: {error}")),
        }
    }

    /// Takes interfaces whose pod is known by now, and gives up those that have waited too long.
    fn admit(&mut self) {
        let now = Instant::now();
        for (attachment, answer, until) in std::mem::take(&mut self.waiting) {
            let unknown = match (&mut self.intent, &attachment.pod) {
                (None, _) => Some(
                    self.status.waits_for.clone().unwrap_or_else(|| "the cluster isn't known".to_owned()),
                ),
                (Some(intent), Some(pod)) if intent.cluster().pod(&pod.name).is_none() => {
                    Some(format!("pod {} isn't known yet", pod.name))
                }
                (Some(intent), _) => {
                    let port = attachment.port.clone();
                    intent.attach(attachment.clone());
                    self.answers.push((answer, Asked::Attached(port)));
                    continue;
                }
            };
            match unknown {
                Some(why) if now >= until => drop(answer.send(Err(RequestError::NotYet(why)))),
                _ => self.waiting.push((attachment, answer, until)),
            }
        }
    }

    /// Brings the dataplane to the intent, and answers who waits for it.
    async fn apply(&mut self) {
        let Some(intent) = &mut self.intent else { return };
        if self.retry.is_some_and(|(at, _)| Instant::now() < at) && self.answers.is_empty() {
            return;
        }
        match self.applier.apply(intent.ledger()).await {
            Ok(()) => {
                self.retry = None;
                self.status.waits_for = None;
                self.status.applied = true;
                self.status.problems = self.applier.problems(intent.ledger());
                for (answer, asked) in std::mem::take(&mut self.answers) {
                    let outcome = match &asked {
                        Asked::Attached(port) => self.applier.attach(port, intent.ledger()).await,
                        Asked::Detached => Ok(()),
                    };
                    if outcome.is_err() {
                        asked.take_back(intent);
                    }
                    let _ = answer.send(outcome);
                }
                // What couldn't be opened goes again.
                if !intent.ledger().is_applied()
                    && let Err(error) = self.applier.apply(intent.ledger()).await
                {
                    self.failed(error.to_string());
                }
            }
            Err(error) => {
                for (answer, asked) in self.answers.drain(..) {
                    asked.take_back(intent);
                    let _ = answer.send(Err(error.clone()));
                }
                self.failed(error.to_string());
            }
        }
    }

    fn failed(&mut self, why: String) {
        let after = self.retry.map_or(RETRY.0, |(_, after)| after);
        if self.status.waits_for.as_ref() != Some(&why) {
            tracing::warn!(%why, "trying again");
        }
        self.status.waits_for = Some(why);
        self.retry = Some((Instant::now() + after, (after * 2).min(RETRY.1)));
    }
}
