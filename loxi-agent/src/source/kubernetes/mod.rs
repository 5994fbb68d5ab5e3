//! A cluster as its API server tells it: a watch per kind, on kube-rs.
//!
//! Each watch lists in pages, then follows changes with bookmarks; one that ends goes on where it was, or lists anew if the
//! server has forgotten that place, after a wait that grows with each failure. An object becomes the agent's plain data as it
//! arrives, and nothing else of it is kept. What a new list doesn't have any more is told as gone; an object that can't be
//! understood is what it was before, and is named.
//!
//! While a watch can't be had, what was told stands, and is stale. It isn't any more as soon as the server has accepted all
//! watches again, which [`observe`] sees.

mod connect;
mod observe;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kube::Client;
use kube::runtime::watcher;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Source, Update};
use crate::cluster::Event;
use crate::cluster::model::{Kind, Name};

pub use connect::{ConnectError, Server};
use observe::Observer;
use watch::Watch;

/// What watches may have told that nobody has taken yet.
const WAITING: usize = 1024;

/// What a watch tells.
#[derive(Debug)]
enum Told {
    /// The cluster has changed.
    Event(Event),
    /// Everything that there is of a kind has been told.
    Listed(Kind),
    /// A kind is being watched.
    Watching(Kind),
    /// A kind can't be watched, and why.
    Failed(Kind, String),
    /// Whether an object can be understood: none, or what is wrong with it.
    Understood(Kind, Name, Option<String>),
}

/// The cluster of an API server.
pub struct Kubernetes {
    client: Client,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubernetes").finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// The cluster of a server. It isn't asked anything yet.
    ///
    /// # Errors
    /// If no client can be made of what describes the server.
    pub fn new(server: &Server) -> Result<Self, ConnectError> {
        let (tell, told) = mpsc::channel(WAITING);
        let client = server.client(&Observer::new(tell.clone()))?;
        Ok(Self { client, tell, told })
    }
}

/// How things are with the watches.
#[derive(Debug, Default)]
struct Health {
    failed: BTreeMap<Kind, String>,
    wrong: BTreeMap<(Kind, Name), String>,
    /// Kinds that haven't been listed yet.
    unlisted: Vec<Kind>,
    /// What was said last.
    said: Option<Arc<str>>,
}

impl Health {
    /// Takes over what a watch tells, and gives what is to be told of it.
    fn take(&mut self, told: Told) -> Vec<Update> {
        let mut updates = Vec::new();
        match told {
            Told::Event(event) => return vec![Update::Event(event)],
            Told::Listed(kind) => {
                self.failed.remove(&kind);
                let before = self.unlisted.len();
                self.unlisted.retain(|one| *one != kind);
                if before > 0 && self.unlisted.is_empty() {
                    updates.push(Update::Synced);
                }
            }
            Told::Watching(kind) => drop(self.failed.remove(&kind)),
            Told::Failed(kind, why) => drop(self.failed.insert(kind, why)),
            Told::Understood(kind, name, None) => drop(self.wrong.remove(&(kind, name))),
            Told::Understood(kind, name, Some(why)) => {
                let known = self.wrong.insert((kind, name.clone()), why.clone());
                if known.as_ref() != Some(&why) {
                    tracing::error!(kind = kind.name(), %name, error = %why, "what it was before stands");
                }
            }
        }
        let stale: Option<Arc<str>> = self.stale().map(Arc::from);
        if stale != self.said {
            self.said.clone_from(&stale);
            // Before the cluster counts as known: it may be known to be less than it is.
            updates.insert(0, Update::Stale(stale));
        }
        updates
    }

    fn stale(&self) -> Option<String> {
        let failed = self.failed.iter().map(|(kind, why)| format!("watching {}s: {why}", kind.name())).next();
        failed.or_else(|| {
            self.wrong.iter().map(|((kind, name), why)| format!("{} {name}: {why}", kind.name())).next()
        })
    }
}

#[async_trait::async_trait]
impl Source for Kubernetes {
    async fn run(self: Box<Self>, to: mpsc::Sender<Update>) {
        let Self { client, tell, mut told } = *self;
        // They end with this function.
        let _watches = watches(&client, &tell);
        drop((client, tell));
        let mut health = Health { unlisted: Kind::ALL.to_vec(), ..Health::default() };
        loop {
            let told = tokio::select! {
                told = told.recv() => told,
                () = to.closed() => return,
            };
            let Some(told) = told else {
                tracing::error!("all watches have ended");
                return;
            };
            for update in health.take(told) {
                if to.send(update).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A watch for each kind.
fn watches(client: &Client, tell: &mpsc::Sender<Told>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    for kind in Kind::ALL.iter().copied() {
        let all = watcher::Config::default();
        let config = match kind {
            // What somebody else serves, and what has no address, is none of ours.
            Kind::Service | Kind::EndpointSlice => {
                all.labels("!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless")
            }
            _ => all,
        };
        watches.spawn(Watch::new(kind, tell.clone()).run(client.clone(), config));
    }
    watches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health { unlisted: Kind::ALL.to_vec(), ..Health::default() }
    }

    fn stale(updates: &[Update]) -> Option<Option<&str>> {
        updates.iter().find_map(|update| match update {
            Update::Stale(why) => Some(why.as_deref()),
            _ => None,
        })
    }

    #[test]
    fn it_is_synced_once_when_every_kind_is_listed() {
        let mut health = health();
        let synced = |updates: Vec<Update>| updates.contains(&Update::Synced);
        for kind in &Kind::ALL[1..] {
            assert!(!synced(health.take(Told::Listed(*kind))));
        }
        assert!(synced(health.take(Told::Listed(Kind::ALL[0]))));
        assert!(!synced(health.take(Told::Listed(Kind::ALL[0]))));
    }

    #[test]
    fn it_is_stale_until_the_last_watch_is_back_and_says_so_once() {
        let mut health = health();
        let failed = |kind| Told::Failed(kind, "refused".into());
        assert_eq!(stale(&health.take(failed(Kind::Pod))), Some(Some("watching Pods: refused")));
        assert_eq!(stale(&health.take(failed(Kind::Service))), None);
        assert_eq!(stale(&health.take(Told::Watching(Kind::Pod))), Some(Some("watching Services: refused")));
        assert_eq!(stale(&health.take(Told::Watching(Kind::Service))), Some(None));
        assert_eq!(stale(&health.take(Told::Watching(Kind::Service))), None);
    }

    #[test]
    fn an_object_that_is_not_understood_is_named_until_it_is() {
        let mut health = health();
        let name = Name::new("a", "b");
        let wrong = Told::Understood(Kind::Pod, name.clone(), Some("no".into()));
        assert_eq!(stale(&health.take(wrong)), Some(Some("Pod a/b: no")));
        assert_eq!(stale(&health.take(Told::Understood(Kind::Pod, name, None))), Some(None));
    }
}
