//! As little of HTTP/1.1 as a scrape needs: one request per connection, answered
//! and closed.

use super::Metrics;
use crate::options::MetricsAt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

/// Longest head of a request.
const HEAD_MAX: usize = 8192;

/// How long one scrape may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Scrapes at a time; more have to wait.
const SCRAPES: usize = 8;

const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why metrics can't be served.
#[derive(Debug, thiserror::Error)]
#[error("metrics at {at}: {source}")]
pub struct ServeMetricsError {
    /// Where.
    pub at: MetricsAt,
    /// What the system said.
    pub source: io::Error,
}

/// A running server of metrics. Dropped, it stops.
#[derive(Debug)]
pub struct MetricsServer {
    _accepting: JoinSet<()>,
}

impl MetricsServer {
    /// Serves metrics. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`ServeMetricsError`].
    pub async fn start(at: &MetricsAt, metrics: Arc<Metrics>) -> Result<Self, ServeMetricsError> {
        let failed = |source| ServeMetricsError { at: at.clone(), source };
        let mut accepting = JoinSet::new();
        match at {
            MetricsAt::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                accepting.spawn(accept(metrics, async move || Ok(listener.accept().await?.0)));
            }
            MetricsAt::Unix(path) => {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
                let listener = UnixListener::bind(path).map_err(failed)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
                accepting.spawn(accept(metrics, async move || Ok(listener.accept().await?.0)));
            }
        }
        Ok(Self { _accepting: accepting })
    }
}

async fn accept<S>(metrics: Arc<Metrics>, mut next: impl AsyncFnMut() -> io::Result<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut scrapes = JoinSet::new();
    loop {
        while scrapes.len() >= SCRAPES {
            scrapes.join_next().await;
        }
        let mut stream = match next().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a scrape");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        scrapes.spawn(async move {
            // A peer that goes away or says nothing has only itself to blame.
            let _ = tokio::time::timeout(PATIENCE, scrape(&mut stream, &metrics)).await;
        });
    }
}

async fn scrape<S>(stream: &mut S, metrics: &Arc<Metrics>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_MAX || stream.read_buf(&mut head).await? == 0 {
            return respond(stream, "400 Bad Request", "text/plain", "not a request\n").await;
        }
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => match metrics.text() {
            Ok(text) => respond(stream, "200 OK", TYPE, &text).await,
            Err(_) => respond(stream, "500 Internal Server Error", "text/plain", "no metrics\n").await,
        },
        (Some("GET"), _) => respond(stream, "404 Not Found", "text/plain", "see /metrics\n").await,
        _ => respond(stream, "405 Method Not Allowed", "text/plain", "only GET\n").await,
    }
}

async fn respond<S>(stream: &mut S, status: &str, kind: &str, body: &str) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
