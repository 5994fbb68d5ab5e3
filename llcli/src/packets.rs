//! Packets given on the command line.

use crate::args::Packets;
use crate::failure::Failure;
use crate::{input, pcap, time};
use loxi_core::dataplane::PacketIn;
use loxi_core::net::PortName;
use loxi_core::packet::{Timestamp, parse_hex};

/// The packets that the options mean, each with its time if any has one.
pub(crate) fn read(options: &Packets) -> Result<Vec<PacketIn>, Failure> {
    let now = time::now();
    let start = options.at.as_deref().map(|at| time::parse(at, now)).transpose()?;
    if let Some(path) = &options.packets {
        let mut packets: Vec<PacketIn> = input::value(path)?;
        for packet in &mut packets {
            packet.at = packet.at.or(start);
        }
        return some(packets);
    }
    let Some(port) = &options.port else {
        return Err(Failure::Input("--port is missing".to_owned()));
    };
    match &options.pcap {
        Some(path) => {
            let frames = pcap::read(&input::bytes(path)?)
                .map_err(|error| Failure::Input(format!("{}: {error}", path.display())))?;
            some(timed(port, frames, start.unwrap_or(now)))
        }
        None if options.hex.is_empty() => {
            Err(Failure::Input("no packets: one of --hex, --pcap and --packets is needed".to_owned()))
        }
        None => hex(port, &options.hex, start),
    }
}

fn some(packets: Vec<PacketIn>) -> Result<Vec<PacketIn>, Failure> {
    if packets.is_empty() {
        return Err(Failure::Input("there is no packet in the input".to_owned()));
    }
    Ok(packets)
}

fn hex(port: &PortName, texts: &[String], at: Option<Timestamp>) -> Result<Vec<PacketIn>, Failure> {
    let mut packets = Vec::new();
    let mut add = |place: String, text: &str| match parse_hex(text) {
        Ok(bytes) if bytes.is_empty() => Err(Failure::Input(format!("{place}: no bytes"))),
        Ok(bytes) => {
            packets.push(PacketIn { port: port.clone(), bytes, at });
            Ok(())
        }
        Err(error) => Err(Failure::Input(format!("{place}: {error}"))),
    };
    for text in texts {
        if text == "-" {
            let content = input::bytes("-".as_ref())?;
            for (number, line) in String::from_utf8_lossy(&content).lines().enumerate() {
                let line = line.split('#').next().unwrap_or_default().trim();
                if !line.is_empty() {
                    add(format!("<stdin>:{}", number + 1), line)?;
                }
            }
        } else {
            add("--hex".to_owned(), text)?;
        }
    }
    some(packets)
}

/// The first frame comes at `start`, the others as long after it as in the
/// capture; one without a time, or from before the first, comes with the one before.
fn timed(port: &PortName, frames: Vec<pcap::Captured>, start: Timestamp) -> Vec<PacketIn> {
    let first = frames.iter().find_map(|frame| frame.at).unwrap_or(0);
    let mut last = start;
    let packets = frames.into_iter().map(|frame| {
        if let Some(at) = frame.at {
            last = last.max(Timestamp(start.0.saturating_add(at.saturating_sub(first))));
        }
        PacketIn { port: port.clone(), bytes: frame.bytes, at: Some(last) }
    });
    packets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_a_capture_are_kept_and_time_never_goes_back() {
        let port = PortName::new("hs1").unwrap();
        let frame = |at| pcap::Captured { at, bytes: vec![0] };
        let frames =
            vec![frame(Some(500)), frame(None), frame(Some(800)), frame(Some(600)), frame(Some(100))];
        let packets = timed(&port, frames, Timestamp(10));
        let times: Vec<_> = packets.iter().map(|packet| packet.at.unwrap().0).collect();
        assert_eq!(times, [10, 10, 310, 310, 310]);
    }
}
