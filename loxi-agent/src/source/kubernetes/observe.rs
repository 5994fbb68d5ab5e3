//! Sees which watches the API server accepts: kube's watchers say when one fails, and not when it is back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use kube::client::Body;
use tokio::sync::mpsc;
use tower::{Layer, Service};

use super::Told;
use super::watch::kind_of;
use crate::cluster::model::Kind;

/// Tells of watches that are accepted.
#[derive(Debug, Clone)]
pub(super) struct Observer {
    tell: mpsc::Sender<Told>,
}

impl Observer {
    pub(super) fn new(tell: mpsc::Sender<Told>) -> Self {
        Self { tell }
    }
}

impl<S> Layer<S> for Observer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        // Weak: the source ends when its watches have.
        Observed { inner, tell: self.tell.downgrade() }
    }
}

/// A service whose watches are seen.
#[derive(Debug, Clone)]
pub(super) struct Observed<S> {
    inner: S,
    tell: mpsc::WeakSender<Told>,
}

/// The kind that a request watches, if it does.
fn watched(request: &Request<Body>) -> Option<Kind> {
    let asks = request.uri().query()?.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    let plural = request.uri().path().rsplit('/').next().filter(|_| asks)?;
    kind_of(plural)
}

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (kind, tell) = (watched(&request), self.tell.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(kind) = kind.filter(|_| answer.status().is_success())
                && let Some(tell) = tell.upgrade()
            {
                // Nobody listens any more: then there is nobody to tell.
                let _ = tell.send(Told::Watching(kind)).await;
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_told_from_lists_by_kind() {
        let kind = |uri: &str| watched(&Request::get(uri).body(Body::empty()).unwrap());
        assert_eq!(kind("http://a/api/v1/pods?&watch=true&resourceVersion=1"), Some(Kind::Pod));
        let policies =
            "http://a/apis/networking.k8s.io/v1/networkpolicies?allowWatchBookmarks=true&watch=true";
        assert_eq!(kind(policies), Some(Kind::NetworkPolicy));
        assert_eq!(kind("http://a/api/v1/pods?limit=500"), None);
        assert_eq!(kind("http://a/api/v1/secrets?watch=true"), None);
        assert_eq!(kind("http://a/api/v1/pods"), None);
    }
}
