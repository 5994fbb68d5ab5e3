//! ping(8) and traceroute(8), and what they print.

use std::net::IpAddr;
use std::process::Command;

use loxi_linux::netns::NetNs;
use loxi_linux::place::Place;

use super::ask::Miss;

/// Bytes of an echo request beside its payload: IP header and ICMP header.
fn headers(to: IpAddr) -> u16 {
    if to.is_ipv4() { 28 } else { 48 }
}

/// What came of one echo request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Echo {
    /// It was answered; the TTL of the answer.
    Answered(u8),
    /// It was too large: who said so, if it was not our own kernel, and for which MTU.
    TooLarge(Option<IpAddr>, u16),
}

/// Sends an echo request, of a size in bytes and then with DF.
///
/// # Errors
/// If nothing is said to it, or something else.
pub fn ping(from: &NetNs, to: IpAddr, size: Option<u16>) -> Result<Echo, Miss> {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", "1", "-W", "1", "-w", "1"]);
    if let Some(size) = size {
        command.args(["-M", "do", "-s", &size.saturating_sub(headers(to)).to_string()]);
    }
    let text = run(from, command.arg(to.to_string()))?;
    echo(&text)
}

/// Whether a quick echo request is answered.
#[must_use]
pub fn knock(from: &NetNs, to: IpAddr) -> bool {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", "1", "-W", "0.2", "-w", "1"]);
    run(from, command.arg(to.to_string())).is_ok_and(|text| matches!(echo(&text), Ok(Echo::Answered(_))))
}

fn echo(text: &str) -> Result<Echo, Miss> {
    let number = |after: &str| {
        let (_, rest) = text.split_once(after)?;
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u16>().ok()
    };
    if let Some(ttl) = number(" ttl=").and_then(|ttl| u8::try_from(ttl).ok()) {
        return Ok(Echo::Answered(ttl));
    }
    // The kernel of the sender says "message too long, mtu=", another "(mtu = " or "mtu=".
    if let Some(mtu) = number("mtu=").or_else(|| number("mtu =")) {
        let teller = text.lines().find_map(|line| {
            let word = line.strip_prefix("From ")?.split_whitespace().next()?;
            word.trim_end_matches(':').parse().ok()
        });
        return Ok(Echo::TooLarge(teller, mtu));
    }
    let complaint = text.lines().find(|line| line.starts_with("From ") || line.contains("ping:"));
    complaint.map_or(Err(Miss::Silence), |line| Err(Miss::Other(line.into())))
}

/// The hops to an address; `None` is one that said nothing.
///
/// # Errors
/// If traceroute can't be run.
pub fn traceroute(from: &NetNs, to: IpAddr, most: u8) -> Result<Vec<Option<IpAddr>>, Miss> {
    let mut command = Command::new("traceroute");
    command.args(["-n", "-q", "1", "-N", "1", "-w", "0.5", "-m", &most.to_string()]);
    let text = run(from, command.arg(to.to_string()))?;
    Ok(hops(&text))
}

fn hops(text: &str) -> Vec<Option<IpAddr>> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let _number: u8 = words.next()?.parse().ok()?;
            Some(words.next()?.parse().ok())
        })
        .collect()
}

/// What a program prints, on both streams. How it ends does not matter: the text says it better.
fn run(from: &NetNs, command: &mut Command) -> Result<String, Miss> {
    let place = Place { net: Some(from), mounts: None };
    // Words of another language would not be understood.
    let output = place.output(command.env("LC_ALL", "C")).map_err(|error| Miss::Other(error.to_string()))?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_are_told_apart() {
        let answer = "64 bytes from 10.244.1.11: icmp_seq=1 ttl=62 time=0.1 ms\n";
        assert_eq!(echo(answer), Ok(Echo::Answered(62)));
        let told = "From 10.244.1.1 icmp_seq=1 Frag needed and DF set (mtu = 1450)\n";
        assert_eq!(echo(told), Ok(Echo::TooLarge(Some("10.244.1.1".parse().unwrap()), 1450)));
        let told = "From fd00:10:244:1::1 icmp_seq=1 Packet too big: mtu=1450\n";
        assert_eq!(echo(told), Ok(Echo::TooLarge(Some("fd00:10:244:1::1".parse().unwrap()), 1450)));
        let own = "ping: local error: message too long, mtu=1450\n";
        assert_eq!(echo(own), Ok(Echo::TooLarge(None, 1450)));
        assert_eq!(echo("1 packets transmitted, 0 received\n"), Err(Miss::Silence));
        let unreachable = "From 10.0.0.1 icmp_seq=1 Destination Host Unreachable";
        assert_eq!(echo(unreachable), Err(Miss::Other(unreachable.into())));
    }

    #[test]
    fn hops_are_read() {
        let text = "traceroute to x (10.244.2.10), 5 hops max, 60 byte packets\n 1  10.244.1.1  0.4 ms\n \
                    2  *\n 3  10.244.2.10  1.1 ms\n";
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(hops(text), [ip("10.244.1.1"), None, ip("10.244.2.10")]);
    }
}
