//! Loads between two pods by TCP: a stream, one byte to and fro, connections.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use loxi_linux::netns::NetNs;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// One connection, as many bytes as get through.
    Stream,
    /// One connection, one byte to and fro.
    RequestResponse,
    /// Connections one after the other; the server ends each.
    Connect,
}

const PORT: u16 = 5201;
const CHUNK: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

impl Load {
    pub(super) const ALL: [Self; 3] = [Self::Stream, Self::RequestResponse, Self::Connect];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::RequestResponse => "request_response",
            Self::Connect => "connect",
        }
    }

    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Stream => "Mbit/s",
            Self::RequestResponse | Self::Connect => "per second",
        }
    }

    const fn port(self) -> u16 {
        PORT + self as u16
    }

    /// The rate from a pod to a server.
    pub(super) fn rate(self, from: &NetNs, to: IpAddr, time: Duration) -> anyhow::Result<f64> {
        let to = SocketAddr::new(to, self.port());
        from.run(|| match self {
            Self::Stream => stream(to, time),
            Self::RequestResponse => request_response(to, time),
            Self::Connect => connect(to, time),
        })?
    }
}

fn open(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Bytes that the server says it has got, by the time until it says so.
fn stream(to: SocketAddr, time: Duration) -> anyhow::Result<f64> {
    let mut stream = open(to)?;
    let chunk = vec![0u8; CHUNK];
    let (begun, mut sent) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        stream.write_all(&chunk)?;
        sent += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut told = [0; 8];
    stream.read_exact(&mut told)?;
    let took = begun.elapsed().as_secs_f64();
    let got = u64::from_le_bytes(told);
    ensure!(got == sent, "{got} of {sent} bytes arrived");
    Ok(got as f64 * 8.0 / 1e6 / took)
}

fn request_response(to: SocketAddr, time: Duration) -> anyhow::Result<f64> {
    let mut stream = open(to)?;
    stream.set_nodelay(true)?;
    let (begun, mut count, mut byte) = (Instant::now(), 0u64, [0; 1]);
    while begun.elapsed() < time {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        count += 1;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn connect(to: SocketAddr, time: Duration) -> anyhow::Result<f64> {
    let (begun, mut count) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        let mut stream = open(to)?;
        ensure!(stream.read(&mut [0; 1])? == 0, "the server says something");
        count += 1;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Answers every load in a pod, until it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens in a pod.
    pub(super) fn start(pod: &NetNs) -> anyhow::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut server = Self { ended: Arc::clone(&ended), threads: Vec::new() };
        for load in Load::ALL {
            // A socket stays in the namespace where it was made.
            let listener = pod.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, load.port())))??;
            listener.set_nonblocking(true)?;
            let ended = Arc::clone(&ended);
            server.threads.push(std::thread::spawn(move || serve(&listener, load, &ended)));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that has ended badly has nothing left to say.
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, load: Load, ended: &AtomicBool) {
    let mut waited = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        match listener.accept() {
            // Whoever connected sees what went wrong.
            Ok((stream, _)) => {
                let _ = answer(stream, load);
                waited = Instant::now();
            }
            // Between two connections nobody sleeps; between two loads the processor is others'.
            Err(_) if waited.elapsed() < Duration::from_millis(2) => std::thread::yield_now(),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn answer(mut stream: TcpStream, load: Load) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match load {
        Load::Stream => {
            let (mut chunk, mut total) = (vec![0u8; CHUNK], 0u64);
            loop {
                let got = stream.read(&mut chunk)?;
                if got == 0 {
                    return stream.write_all(&total.to_le_bytes());
                }
                total += got as u64;
            }
        }
        Load::RequestResponse => {
            stream.set_nodelay(true)?;
            let mut byte = [0; 1];
            while stream.read(&mut byte)? > 0 {
                stream.write_all(&byte)?;
            }
            Ok(())
        }
        Load::Connect => Ok(()),
    }
}
