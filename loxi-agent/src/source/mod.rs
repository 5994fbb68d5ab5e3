//! Where the cluster is told from.
//!
//! A [`Source`] sends events until its receiver is gone. What it can't read changes nothing: what it told before stands,
//! and it says that it is stale, and why.

mod decode;
mod directory;
mod kubernetes;
pub mod manifest;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::cluster::Event;

pub use directory::Directory;
pub use kubernetes::{ConnectError, Kubernetes, Server};

/// What a source tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The cluster has changed.
    Event(Event),
    /// Everything that was there at the start has been told; sent once.
    Synced,
    /// Whether what was told is what is: none, or why it may not be.
    Stale(Option<Arc<str>>),
}

/// Tells of a cluster.
#[async_trait::async_trait]
pub trait Source: Send + 'static {
    /// Tells until nobody listens.
    async fn run(self: Box<Self>, to: mpsc::Sender<Update>);
}
