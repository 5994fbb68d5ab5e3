//! What probes and scrapes ask: `/livez`, `/readyz`, `/metrics`.
//!
//! `/livez` is about this process alone. `/readyz` is 200 while interfaces can be attached, else 503 with the reason;
//! knowing the cluster from disk only does not make it unready, and is said in its text.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::engine::Status;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[error("listening at {at}: {source}")]
pub struct ListenError {
    at: SocketAddr,
    source: std::io::Error,
}

type Told = watch::Receiver<Arc<Status>>;

/// Serves until the task is dropped.
///
/// # Errors
/// If the address can't be had.
pub async fn serve(at: SocketAddr, status: Told) -> Result<tokio::task::JoinHandle<()>, ListenError> {
    let listener = tokio::net::TcpListener::bind(at).await.map_err(|source| ListenError { at, source })?;
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(status);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "serving probes has ended");
        }
    }))
}

async fn readyz(State(status): State<Told>) -> (StatusCode, String) {
    let status = status.borrow().clone();
    let (code, mut text) = match status.unready() {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        None => (StatusCode::OK, "ok\n".to_owned()),
    };
    if let (Some(why), Some(since)) = (&status.stale, status.stale_since) {
        let _ = writeln!(text, "stale since {}: {why}", seconds(since));
    }
    for problem in &status.problems {
        let _ = writeln!(text, "set aside: {}: {}", problem.object, problem.why);
    }
    (code, text)
}

async fn metrics(State(status): State<Told>) -> impl IntoResponse {
    let status = status.borrow().clone();
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, text(&status))
}

/// Seconds since the epoch.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The metrics of a status.
fn text(status: &Status) -> String {
    let mut registry = Registry::with_prefix("loxi_agent");
    let flag = |value: bool| ConstGauge::new(i64::from(value));
    registry.register("ready", "Whether interfaces can be attached", flag(status.unready().is_none()));
    registry.register("synced", "Whether the source has told everything once", flag(status.synced));
    registry.register(
        "stale",
        "Whether what is known may not be what is there",
        flag(status.stale.is_some()),
    );
    let since = status.stale_since.map_or(0, seconds);
    registry.register(
        "stale_since_timestamp_seconds",
        "Since when it may not; 0 while it is",
        ConstGauge::new(i64::try_from(since).unwrap_or(i64::MAX)),
    );
    let problems = i64::try_from(status.problems.len()).unwrap_or(i64::MAX);
    registry.register("objects_set_aside", "Objects that the dataplane refuses", ConstGauge::new(problems));
    let events = i64::try_from(status.events).unwrap_or(i64::MAX);
    registry.register(
        "source_events",
        "Events that the source has told since the start",
        ConstGauge::new(events),
    );
    let mut text = String::new();
    // Writing to a text can't fail.
    let _ = encode(&mut text, &registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn asked(at: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_status_and_liveness_does_not() {
        let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (told, status) = watch::channel(Arc::new(Status::default()));
        let _server = serve(at, status).await.unwrap();
        let answer = asked(at, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("hasn't got"), "{answer}");
        assert!(asked(at, "/livez").await.starts_with("HTTP/1.1 200"));
        let stale_since = Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7));
        let stale = Some(Arc::from("nobody answers"));
        told.send_replace(Arc::new(Status { applied: true, stale, stale_since, ..Status::default() }));
        let answer = asked(at, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("stale since 7: nobody answers"), "{answer}");
        let answer = asked(at, "/metrics").await;
        for line in [
            "loxi_agent_ready 1",
            "loxi_agent_stale 1",
            "loxi_agent_stale_since_timestamp_seconds 7",
            "# EOF",
        ] {
            assert!(answer.contains(line), "{line} in {answer}");
        }
    }
}
