//! Those who answer: a TCP and a UDP server at each address of a lab.
//!
//! A server says who it is and as whom it sees the asker; by that a row knows whom it has reached and what was
//! translated on the way. Each address has a socket of its own, so that an answer leaves from the address that was
//! asked. Over TCP the first line says what is wanted: `who`, `take BYTES` (the server gives their check
//! value), `give BYTES`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;

use super::bulk::{Crc, Pattern};
use crate::plan::{Family, SERVER_PORT, Spot};
use crate::world::World;

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
#[error("server in {spot} at {address}: {source}")]
pub struct AnswerError {
    /// The namespace.
    pub spot: String,
    /// The address.
    pub address: IpAddr,
    /// Why not.
    pub source: io::Error,
}

/// Servers that end with this value.
#[derive(Debug)]
pub struct Servers {
    _tasks: JoinSet<()>,
}

impl Servers {
    /// Starts one at every address of the world. To be called inside of a runtime.
    ///
    /// # Errors
    /// If an address can't be bound.
    pub fn start(world: &World) -> Result<Self, AnswerError> {
        let mut tasks = JoinSet::new();
        for spot in Spot::all() {
            for family in Family::ALL {
                let Some(address) = spot.address(family) else { continue };
                let failed = |source| AnswerError { spot: spot.to_string(), address, source };
                let (tcp, udp) = sockets(world, spot, address).map_err(failed)?;
                let tcp = tokio::net::TcpListener::from_std(tcp).map_err(failed)?;
                let udp = tokio::net::UdpSocket::from_std(udp).map_err(failed)?;
                tasks.spawn(serve_tcp(tcp, spot));
                tasks.spawn(serve_udp(udp, spot));
            }
        }
        Ok(Self { _tasks: tasks })
    }
}

fn sockets(world: &World, spot: Spot, address: IpAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let ns = world.spot(spot).ok_or(io::ErrorKind::NotFound)?;
    ns.run(|| {
        let at = SocketAddr::new(address, SERVER_PORT);
        let (tcp, udp) = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok((tcp, udp))
    })
    .map_err(io::Error::other)?
}

/// The answer to `who`.
fn introduction(spot: Spot, peer: SocketAddr) -> String {
    format!("{spot} {}\n", peer.ip())
}

async fn serve_udp(socket: tokio::net::UdpSocket, spot: Spot) {
    let mut buffer = [0; 2048];
    loop {
        // An error is about an earlier answer that met nobody.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(introduction(spot, peer).as_bytes(), peer).await;
        }
    }
}

async fn serve_tcp(listener: tokio::net::TcpListener, spot: Spot) {
    loop {
        if let Ok((stream, peer)) = listener.accept().await {
            // A connection that breaks is the asker's to notice.
            tokio::spawn(async move { converse(stream, spot, peer).await.ok() });
        }
    }
}

async fn converse(stream: tokio::net::TcpStream, spot: Spot, peer: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(64).read_line(&mut line).await?;
    let mut words = line.split_whitespace();
    let word = words.next().unwrap_or_default();
    let bytes: u64 = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
    match word {
        "who" => stream.write_all(introduction(spot, peer).as_bytes()).await?,
        "take" => {
            let mut crc = Crc::default();
            let mut left = (&mut stream).take(bytes);
            let mut buffer = vec![0; 64 << 10];
            loop {
                match left.read(&mut buffer).await? {
                    0 => break,
                    n => crc.add(&buffer[..n]),
                }
            }
            stream.write_all(format!("{}\n", crc.value()).as_bytes()).await?;
        }
        "give" => {
            let mut pattern = Pattern::new(bytes);
            while let Some(chunk) = pattern.next_chunk() {
                stream.write_all(chunk).await?;
            }
        }
        _ => {}
    }
    stream.shutdown().await
}
