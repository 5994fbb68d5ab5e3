//! Doing what a row says, and judging what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use loxi_linux::netns::NetNs;

use super::{Action, Direction, Row, Transport};
use crate::plan::Spot;
use crate::traffic::ask::{self, Answer, Miss};
use crate::traffic::tools::{self, Echo};

/// How long one waits who is to hear nothing.
const SILENCE: Duration = Duration::from_millis(400);
/// Connections after which a balancer that has not chosen an endpoint never will.
const TRIES: usize = 48;

/// The namespaces that rows ask from.
pub type Spots = Arc<BTreeMap<Spot, NetNs>>;

/// What a row saw, or what it missed.
pub type Outcome = Result<String, String>;

/// Does what a row says; takes as long as its traffic does.
///
/// # Errors
/// What was seen instead of what should have been.
pub fn act(row: &Row, spots: &Spots) -> Outcome {
    let from = spot(spots, row.from)?;
    match &row.action {
        Action::Ping { to, ttl } => ping(from, *to, *ttl),
        Action::Reach { transport, to, server, peer } => {
            let answer = reach(from, *transport, *to).map_err(|miss| miss.to_string())?;
            expect(&answer, *server, *peer)
        }
        Action::Spread { to, servers } => spread(from, *to, servers),
        Action::Bulk { to, direction, bytes } => bulk(from, *to, *direction, *bytes),
        Action::PathMtu { to, teller, size, mtu } => path_mtu(from, *to, *teller, *size, *mtu),
        Action::Traceroute { to, hops } => traceroute(from, *to, hops),
        Action::Denied { to, allowed } => denied(from, spot(spots, *allowed)?, *allowed, *to),
        Action::Refused { transport, to } => match reach(from, *transport, *to) {
            Err(Miss::Refused) => Ok("refused".into()),
            Err(miss) => Err(format!("{miss}, not refused")),
            Ok(answer) => Err(format!("answered by {}", answer.server)),
        },
    }
}

fn spot(spots: &Spots, spot: Spot) -> Result<&NetNs, String> {
    spots.get(&spot).ok_or_else(|| format!("there is no {spot}"))
}

fn reach(from: &NetNs, transport: Transport, to: SocketAddr) -> Result<Answer, Miss> {
    match transport {
        Transport::Tcp => ask::tcp(from, to, ask::PATIENCE),
        Transport::Udp => ask::udp(from, to),
    }
}

fn expect(answer: &Answer, server: Spot, peer: IpAddr) -> Outcome {
    if answer.server != server.to_string() {
        return Err(format!("answered by {}, not {server}", answer.server));
    }
    if answer.peer != peer {
        return Err(format!("seen as {}, not {peer}", answer.peer));
    }
    Ok(format!("by {server}, seen as {peer}"))
}

fn ping(from: &NetNs, to: IpAddr, ttl: u8) -> Outcome {
    match tools::ping(from, to, None) {
        Ok(Echo::Answered(seen)) if seen == ttl => Ok(format!("ttl {ttl}")),
        Ok(Echo::Answered(seen)) => Err(format!("ttl {seen}, not {ttl}")),
        Ok(other) => Err(format!("{other:?}")),
        Err(miss) => Err(miss.to_string()),
    }
}

fn spread(from: &NetNs, to: SocketAddr, servers: &[Spot]) -> Outcome {
    let wanted: BTreeSet<String> = servers.iter().map(Spot::to_string).collect();
    let mut seen = BTreeSet::new();
    for tries in 1..=TRIES {
        let answer = ask::tcp(from, to, ask::PATIENCE).map_err(|miss| miss.to_string())?;
        if !wanted.contains(&answer.server) {
            return Err(format!("answered by {}", answer.server));
        }
        seen.insert(answer.server);
        if seen == wanted {
            return Ok(format!("{} endpoints in {tries} connections", seen.len()));
        }
    }
    Err(format!("only {seen:?} in {TRIES} connections"))
}

fn bulk(from: &NetNs, to: SocketAddr, direction: Direction, bytes: u64) -> Outcome {
    let begun = std::time::Instant::now();
    match direction {
        Direction::Send => ask::send(from, to, bytes),
        Direction::Receive => ask::receive(from, to, bytes),
    }
    .map_err(|miss| miss.to_string())?;
    let rate = bytes as f64 * 8.0 / 1e6 / begun.elapsed().as_secs_f64();
    Ok(format!("check value right, {rate:.0} Mbit/s"))
}

fn path_mtu(from: &NetNs, to: IpAddr, teller: IpAddr, size: u16, mtu: u16) -> Outcome {
    match tools::ping(from, to, Some(size)) {
        Ok(Echo::TooLarge(Some(who), told)) if (who, told) == (teller, mtu) => {}
        Ok(other) => return Err(format!("{size} bytes: {other:?}, not {mtu} told by {teller}")),
        Err(miss) => return Err(format!("{size} bytes: {miss}")),
    }
    match tools::ping(from, to, Some(mtu)) {
        Ok(Echo::Answered(_)) => Ok(format!("{size} bytes: {teller} says {mtu}; {mtu} bytes arrive")),
        Ok(other) => Err(format!("{mtu} bytes: {other:?}")),
        Err(miss) => Err(format!("{mtu} bytes: {miss}")),
    }
}

fn traceroute(from: &NetNs, to: IpAddr, wanted: &[IpAddr]) -> Outcome {
    let most = u8::try_from(wanted.len() + 1).unwrap_or(u8::MAX);
    let hops = tools::traceroute(from, to, most).map_err(|miss| miss.to_string())?;
    let words: Vec<String> =
        hops.iter().map(|hop| hop.map_or_else(|| "*".into(), |addr| addr.to_string())).collect();
    let same = hops.len() == wanted.len() && hops.iter().zip(wanted).all(|(hop, addr)| *hop == Some(*addr));
    if same { Ok(words.join(" ")) } else { Err(format!("{}, not {wanted:?}", words.join(" "))) }
}

/// Silence alone would prove nothing, so somebody who may comes first.
fn denied(from: &NetNs, may: &NetNs, who: Spot, to: SocketAddr) -> Outcome {
    ask::tcp(may, to, ask::PATIENCE).map_err(|miss| format!("{who}, who may: {miss}"))?;
    match ask::tcp(from, to, SILENCE) {
        Err(Miss::Silence) => Ok(format!("{who} gets in, this one no answer")),
        Err(miss) => Err(format!("{miss}, not silence")),
        Ok(answer) => Err(format!("answered by {}", answer.server)),
    }
}
