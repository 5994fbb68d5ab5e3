//! Those who ask: TCP and UDP clients inside of a namespace.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use loxi_linux::netns::NetNs;

use super::bulk::{Crc, Pattern};

/// How long one question may take. The kernel repeats a SYN after a second, so a single lost packet is no failure.
pub const PATIENCE: Duration = Duration::from_millis(1800);
/// How long a datagram may take; it is sent thrice.
const UDP_PATIENCE: Duration = Duration::from_millis(600);
/// How long a bulk transfer may take.
const BULK_PATIENCE: Duration = Duration::from_secs(20);
/// How long a bulk transfer may stand still.
const STALL: Duration = Duration::from_secs(5);

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// Somebody said no: RST or ICMP port unreachable.
    #[error("refused")]
    Refused,
    /// Nobody said anything.
    #[error("no answer")]
    Silence,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Silence,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Who has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The server's name.
    pub server: String,
    /// As whom it sees the asker.
    pub peer: IpAddr,
}

impl Answer {
    fn read(text: &str) -> Result<Self, Miss> {
        let bad = || Miss::Other(format!("not an answer: {text:?}"));
        let (server, peer) = text.trim_end().split_once(' ').ok_or_else(bad)?;
        Ok(Self { server: server.into(), peer: peer.parse().map_err(|_| bad())? })
    }
}

fn inside<T: Send>(from: &NetNs, work: impl FnOnce() -> Result<T, Miss> + Send) -> Result<T, Miss> {
    from.run(work).unwrap_or_else(|error| Err(Miss::Other(error.to_string())))
}

fn connect(to: SocketAddr, patience: Duration) -> Result<TcpStream, Miss> {
    let stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// Asks over TCP who is there.
///
/// # Errors
/// If nobody is.
pub fn tcp(from: &NetNs, to: SocketAddr, patience: Duration) -> Result<Answer, Miss> {
    inside(from, || {
        let mut stream = connect(to, patience)?;
        stream.write_all(b"who\n")?;
        let mut text = String::new();
        stream.take(256).read_to_string(&mut text)?;
        Answer::read(&text)
    })
}

/// Asks over UDP who is there, again if need be.
///
/// # Errors
/// If nobody is.
pub fn udp(from: &NetNs, to: SocketAddr) -> Result<Answer, Miss> {
    inside(from, || {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(UDP_PATIENCE))?;
        let mut buffer = [0; 256];
        for _ in 0..3 {
            socket.send(b"who")?;
            match socket.recv(&mut buffer) {
                Ok(length) => return Answer::read(&String::from_utf8_lossy(&buffer[..length])),
                Err(error) if Miss::from(io::Error::from(error.kind())) == Miss::Silence => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Miss::Silence)
    })
}

/// Sends bytes over TCP; the server's check value must be ours.
///
/// # Errors
/// If they did not arrive, or not unchanged.
pub fn send(from: &NetNs, to: SocketAddr, bytes: u64) -> Result<(), Miss> {
    inside(from, || {
        let mut stream = transfer(to)?;
        let end = Instant::now() + BULK_PATIENCE;
        stream.write_all(format!("take {bytes}\n").as_bytes())?;
        let mut pattern = Pattern::new(bytes);
        while let Some(chunk) = pattern.next_chunk() {
            stream.write_all(chunk)?;
            in_time(end)?;
        }
        let mut text = String::new();
        stream.take(64).read_to_string(&mut text)?;
        compare(bytes, text.trim_end().parse().ok())
    })
}

/// Receives bytes over TCP and checks them.
///
/// # Errors
/// If they did not arrive, or not unchanged.
pub fn receive(from: &NetNs, to: SocketAddr, bytes: u64) -> Result<(), Miss> {
    inside(from, || {
        let mut stream = transfer(to)?;
        let end = Instant::now() + BULK_PATIENCE;
        stream.write_all(format!("give {bytes}\n").as_bytes())?;
        let mut crc = Crc::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                n => crc.add(&buffer[..n]),
            }
            in_time(end)?;
        }
        compare(bytes, Some(crc.value()))
    })
}

fn transfer(to: SocketAddr) -> Result<TcpStream, Miss> {
    let stream = connect(to, PATIENCE)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    Ok(stream)
}

fn in_time(end: Instant) -> Result<(), Miss> {
    if Instant::now() < end { Ok(()) } else { Err(Miss::Other("too slow".into())) }
}

fn compare(bytes: u64, theirs: Option<u32>) -> Result<(), Miss> {
    let ours = Pattern::crc(bytes);
    if theirs == Some(ours) {
        Ok(())
    } else {
        Err(Miss::Other(format!("check value {theirs:08x?}, sent {ours:08x}")))
    }
}
