//! The conformance suite against a dataplane at the other end of real sockets:
//! a caller can't tell it from a local one.

#![allow(clippy::unwrap_used)]

use loxi_channel::client::Options;
use loxi_channel::message::Peer;
use loxi_channel::{Endpoint, Identity, Limits, RemoteDataplane, Served, serve};
use loxi_core::dataplane::{Dataplane, Local};
use loxi_core::packet::Timestamp;
use loxi_reference::Reference;
use std::sync::Arc;
use std::time::Duration;

/// A client, and what it needs at the other end.
struct Distant {
    remote: RemoteDataplane,
    _served: Served,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Distant {
    type Target = dyn Dataplane;
    fn deref(&self) -> &Self::Target {
        &self.remote
    }
}

async fn distant(reference: Reference) -> Distant {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_folder(folder.path().join("run")).unwrap();
    let local: Arc<dyn Dataplane> = Arc::new(Local::new(reference, Arc::new(|| Timestamp(0))));
    let peer = || Peer { name: "conformance".to_owned(), version: "0".to_owned() };
    let identity = Identity { server: peer(), instance: "conformance".to_owned(), boot: 1 };
    let limits = Limits::default();
    let served = serve(&endpoint, limits, 4, identity, local).await.unwrap();
    let options = Options { limits, timeout: Duration::from_secs(30), ..Options::default() };
    let remote = RemoteDataplane::connect(&endpoint, peer(), options).await.unwrap();
    Distant { remote, _served: served, _folder: folder }
}

loxi_conformance::suite!(remote, || distant(Reference::new()));

#[tokio::test(flavor = "multi_thread")]
async fn a_distant_backend_that_passes_nothing_fails_every_row() {
    let distant = distant(Reference::new().passing_nothing()).await;
    let report = loxi_conformance::run_rows(&*distant).await.unwrap();
    assert_eq!(report.failures().len(), report.rows.len());
}
