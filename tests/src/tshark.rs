//! Wireshark's opinion of frames.
//!
//! Checksums are verified at every layer, the encapsulated ones too. What an ICMP error quotes is
//! cut short by design: Wireshark knows that and does not judge it.

use std::io::Write as _;
use std::process::Command;

/// Checksums that Wireshark leaves alone unless told.
const VERIFY: [&str; 4] =
    ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE", "sctp.checksum:CRC 32c"];

/// Malformed, or a checksum that is verified and wrong. Inside an ICMP error Wireshark sums TCP over the
/// part that is quoted, so transports are not judged there.
const BAD: &str = "_ws.malformed || ip.checksum.status==0 || icmp.checksum.status==0 || icmpv6.checksum.status==0 || \
    ((tcp.checksum.status==0 || udp.checksum.status==0 || sctp.checksum.status==0) && \
    !(icmpv6.type < 128) && !(icmp.type in {3, 4, 11, 12}))";

/// What is dissected. Everything else would guess at payloads that mean nothing.
const DISSECTED: [&str; 22] = [
    "_ws.expert",
    "_ws.malformed",
    "arp",
    "data",
    "eth",
    "ethertype",
    "frame",
    "icmp",
    "icmpv6",
    "igmp",
    "ip",
    "ipv6",
    "ipv6.dstopts",
    "ipv6.fraghdr",
    "ipv6.hopopts",
    "llc",
    "pkt_comment",
    "sctp",
    "tcp",
    "udp",
    "vlan",
    "vxlan",
];

/// Why tshark can't judge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TsharkError {
    /// It isn't installed.
    #[error("tshark is not here (apt-get install tshark)")]
    Missing,
    /// It failed.
    #[error("tshark: {0}")]
    Failed(String),
    /// The capture could not be written.
    #[error("capture: {0}")]
    Capture(#[from] std::io::Error),
}

/// Writes a capture file (classic pcap, Ethernet).
///
/// # Errors
/// Of the file system.
pub fn write_pcap(path: &std::path::Path, frames: &[Vec<u8>]) -> std::io::Result<()> {
    let mut out = Vec::with_capacity(24 + frames.iter().map(|f| f.len() + 16).sum::<usize>());
    for field in [0xa1b2_c3d4u32, 2 | 4 << 16, 0, 0, 262_144, 1] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for (index, frame) in frames.iter().enumerate() {
        let len = frame.len() as u32;
        for field in [1_700_000_000 + index as u32, 0, len, len] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(frame);
    }
    std::fs::File::create(path)?.write_all(&out)
}

/// The frames that Wireshark finds malformed or with a wrong checksum, by index from 0 with its words.
///
/// # Errors
/// If tshark is missing or fails.
pub fn complaints(frames: &[Vec<u8>]) -> Result<Vec<(usize, String)>, TsharkError> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("emitted.pcap");
    write_pcap(&path, frames)?;
    std::fs::write(folder.path().join("disabled_protos"), not_dissected()?)?;
    let mut command = Command::new("tshark");
    command.env("WIRESHARK_CONFIG_DIR", folder.path());
    command.arg("-n").arg("-r").arg(&path).args(["-Y", BAD, "-T", "fields", "-e", "frame.number"]);
    command.args(["-e", "_ws.col.Protocol", "-e", "_ws.col.Info"]);
    for option in VERIFY {
        command.args(["-o", option]);
    }
    let text = run(&mut command)?;
    let line = |line: &str| {
        let (number, words) = line.split_once('\t')?;
        Some((number.parse::<usize>().ok()?.checked_sub(1)?, words.replace('\t', " ")))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Wireshark's list of every protocol but [`DISSECTED`], in the form of its file `disabled_protos`.
fn not_dissected() -> Result<String, TsharkError> {
    let text = run(Command::new("tshark").args(["-G", "protocols"]))?;
    let names = text.lines().filter_map(|line| line.split('\t').nth(2));
    Ok(names.filter(|name| !DISSECTED.contains(name)).map(|name| format!("{name}\n")).collect())
}

fn run(command: &mut Command) -> Result<String, TsharkError> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(TsharkError::Missing),
        Err(error) => return Err(TsharkError::Failed(error.to_string())),
    };
    if !output.status.success() {
        return Err(TsharkError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
