//! The books: what our ports have counted, beside what the kernel has counted on their devices.
//!
//! Every frame that the kernel has seen at a device of a port since the books were opened must be in our counters,
//! and every packet in our counters must have one fate. Where devices merge segments, which they do before programs at TC
//! see them, a row of much data may leave us with fewer frames than the kernel, never with more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loxi_core::packet::{Counters, PortCounters};
use loxi_linux::layout;
use loxi_linux::netns::NetNs;
use loxi_linux::rtnetlink::{Link, Rtnl};

use crate::daemon::{Backend, Daemon};
use crate::plan::{PODS, Spot};
use crate::rows::{At, Row};
use crate::world::World;

/// How long frames that are under way may take to be counted.
const SETTLE: Duration = Duration::from_millis(1500);

/// Why the books can't be read.
#[derive(Debug, thiserror::Error)]
#[error("counters of n{node}: {reason}")]
pub struct BooksError {
    /// The node.
    pub node: u8,
    /// Why not.
    pub reason: String,
}

/// Frames received at a port, and those sent where that count is ours alone.
type Frames = (u64, Option<u64>);

/// Our counters and the kernel's at one time.
#[derive(Debug, Clone, Default)]
pub struct Page {
    ours: BTreeMap<At, PortCounters>,
    kernel: BTreeMap<At, Frames>,
}

/// The books of all nodes.
#[derive(Debug)]
pub struct Books<'a> {
    world: &'a World,
    daemons: &'a [Daemon],
    /// What the kernel had counted before we did.
    before: BTreeMap<At, (i128, i128)>,
    /// Whether devices merge segments.
    merges: bool,
}

impl<'a> Books<'a> {
    /// Opens them, once the daemons have their ports.
    ///
    /// # Errors
    /// If a daemon or the kernel does not answer.
    pub async fn open(world: &'a World, daemons: &'a [Daemon]) -> Result<Self, BooksError> {
        let merges = daemons.iter().any(Daemon::is_by_xdp);
        let mut books = Self { world, daemons, before: BTreeMap::new(), merges };
        let until = Instant::now() + SETTLE;
        loop {
            let offsets = books.read().await?.offsets();
            // Twice the same: nothing was between the two counts.
            if offsets == books.before || Instant::now() > until {
                return Ok(books);
            }
            books.before = offsets;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A page on which everything that was under way is counted, as far as it can be waited for.
    ///
    /// # Errors
    /// If a daemon or the kernel does not answer.
    pub async fn settled(&self, after: Option<&Row>) -> Result<Page, BooksError> {
        let merged = self.may_merge(after);
        let until = Instant::now() + SETTLE;
        let mut last = None;
        loop {
            let page = self.read().await?;
            let offsets = page.offsets();
            // Merged frames don't come to the same, but to something that stays.
            let still = merged && last.as_ref() == Some(&offsets);
            if still || offsets == self.before || Instant::now() > until {
                return Ok(page);
            }
            last = Some(offsets);
            tokio::time::sleep(Duration::from_millis(if merged { 30 } else { 3 })).await;
        }
    }

    /// What is wrong with the books at the page after a row: frames that only one side has counted, packets
    /// without a fate.
    #[must_use]
    pub fn errors(&self, page: &Page, row: &Row) -> Vec<String> {
        errors(&self.before, page, self.may_merge(Some(row)))
    }

    /// Whether frames of a row may have been merged. One of little data has nothing to merge.
    fn may_merge(&self, row: Option<&Row>) -> bool {
        self.merges && row.is_some_and(|row| row.least_bytes > 1)
    }

    /// Begins anew at a page, so that what is wrong with it is not told of later ones too.
    pub fn reopen_at(&mut self, page: &Page) {
        self.before = page.offsets();
    }

    async fn read(&self) -> Result<Page, BooksError> {
        let mut page = Page::default();
        for daemon in self.daemons {
            let node = daemon.node();
            let failed = |reason: String| BooksError { node, reason };
            let Counters { ports, .. } =
                daemon.counters().await.map_err(|error| failed(error.to_string()))?;
            for (port, counters) in ports {
                page.ours.insert(At { node, port: port.as_str().to_owned() }, counters);
            }
            page.kernel.extend(self.devices(daemon).map_err(failed)?);
        }
        Ok(page)
    }

    /// The kernel's counts at a node's ports: of a veth those of its far end, where also frames are counted that
    /// programs put there past our own end. What the uplink sends is the node's too, and by the
    /// host's interface programs pass frames from one namespace to the other: these counts say nothing about us.
    fn devices(&self, daemon: &Daemon) -> Result<Vec<(At, Frames)>, String> {
        let node = daemon.node();
        let of = |spot: Spot, name: &str| {
            let ns = self.world.spot(spot).ok_or("no such spot")?;
            let link = links(ns)?.into_iter().find(|link| link.name == name);
            link.map(|link| link.stats).ok_or_else(|| format!("no {name}"))
        };
        let at = |port: String| At { node, port };
        let mut found = Vec::new();
        for pod in PODS {
            let far = of(Spot::Pod(node, pod), "eth0")?;
            found.push((at(format!("hs{pod}")), (far.tx_packets, Some(far.rx_packets))));
        }
        let far = of(Spot::Node(node), layout::HOST)?;
        let sent = (daemon.backend() != Backend::Ebpf).then_some(far.rx_packets);
        found.push((at(layout::HOST.to_owned()), (far.tx_packets, sent)));
        found.push((at("eth0".to_owned()), (of(Spot::Node(node), "eth0")?.rx_packets, None)));
        Ok(found)
    }
}

fn links(ns: &NetNs) -> Result<Vec<Link>, String> {
    let list = || Rtnl::open().and_then(|mut rtnl| rtnl.links()).map_err(|error| error.to_string());
    ns.run(list).map_err(|error| error.to_string())?
}

impl Page {
    /// What the kernel has counted more than we have.
    fn offsets(&self) -> BTreeMap<At, (i128, i128)> {
        let more = |kernel: u64, ours: u64| i128::from(kernel) - i128::from(ours);
        let offset = |(at, (received, sent)): (&At, &Frames)| {
            let ours = self.ours.get(at).cloned().unwrap_or_default();
            let sent = sent.map_or(0, |sent| more(sent, ours.tx_packets));
            (at.clone(), (more(*received, ours.rx_packets), sent))
        };
        self.kernel.iter().map(offset).collect()
    }

    fn port(&self, at: &At) -> PortCounters {
        self.ours.get(at).cloned().unwrap_or_default()
    }
}

fn errors(opening: &BTreeMap<At, (i128, i128)>, page: &Page, merged: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (at, now) in page.offsets() {
        let before = opening.get(&at).copied().unwrap_or_default();
        for (word, more) in [("received", now.0 - before.0), ("sent", now.1 - before.1)] {
            let of_merging = merged && word == "received" && more > 0;
            if more != 0 && !of_merging {
                let At { node, port } = &at;
                found.push(format!("n{node} {port}: the kernel has {word} {more} more than we have counted"));
            }
        }
    }
    for (At { node, port }, counters) in &page.ours {
        let lost = counters.unaccounted();
        if lost != 0 {
            found.push(format!("n{node} {port}: {lost} packets without a fate"));
        }
    }
    found
}

/// What a row's path does not show between two pages.
#[must_use]
pub fn missing(row: &Row, before: &Page, after: &Page) -> Vec<String> {
    let mut found = Vec::new();
    for at in &row.path {
        let (old, new) = (before.port(at), after.port(at));
        let At { node, port } = at;
        for (word, more) in [
            ("received", new.rx_packets.saturating_sub(old.rx_packets)),
            ("sent", new.tx_packets.saturating_sub(old.tx_packets)),
        ] {
            if more == 0 {
                found.push(format!("our n{node} {port} has {word} nothing"));
            }
        }
        let moved = (new.rx_bytes + new.tx_bytes).saturating_sub(old.rx_bytes + old.tx_bytes);
        if moved < row.least_bytes {
            found.push(format!("our n{node} {port} has moved only {moved} bytes"));
        }
    }
    for (at, reason) in &row.drops {
        let count = |page: &Page| page.port(at).dropped.get(reason).copied().unwrap_or(0);
        if count(after) <= count(before) {
            found.push(format!("our n{} {} has dropped nothing as {reason}", at.node, at.port));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use loxi_core::reason::DropReason;

    fn at(port: &str) -> At {
        At { node: 1, port: port.into() }
    }

    /// A page of one port: the kernel's counts, and ours of packets that were all forwarded.
    fn page(port: &str, kernel: (u64, u64), ours: (u64, u64)) -> Page {
        let kernel = (kernel.0, (port != "eth0").then_some(kernel.1));
        let counters = PortCounters {
            rx_packets: ours.0,
            tx_packets: ours.1,
            rx_bytes: ours.0 * 100,
            tx_bytes: ours.1 * 100,
            forwarded: ours.0,
            ..PortCounters::default()
        };
        Page { ours: [(at(port), counters)].into(), kernel: [(at(port), kernel)].into() }
    }

    fn row() -> Row {
        let mut row = crate::rows::table().remove(0);
        row.path = vec![at("hs1")];
        row
    }

    #[test]
    fn a_path_must_have_received_and_sent() {
        let before = page("hs1", (0, 0), (5, 5));
        let wrong = |after: (u64, u64)| missing(&row(), &before, &page("hs1", (0, 0), after));
        assert_eq!(wrong((6, 6)), Vec::<String>::new());
        assert_eq!(wrong((6, 5)), ["our n1 hs1 has sent nothing"]);
        assert_eq!(wrong((5, 6)), ["our n1 hs1 has received nothing"]);
        let much = Row { least_bytes: 1000, ..row() };
        assert_eq!(
            missing(&much, &before, &page("hs1", (0, 0), (6, 6))),
            ["our n1 hs1 has moved only 200 bytes"]
        );
    }

    #[test]
    fn drops_are_of_their_reason() {
        let row = Row { path: Vec::new(), drops: vec![(at("hs1"), DropReason::Mtu)], ..row() };
        let before = page("hs1", (0, 0), (0, 0));
        let mut after = before.clone();
        let dropped = &mut after.ours.get_mut(&at("hs1")).unwrap().dropped;
        dropped.insert(DropReason::Ttl, 1);
        assert_eq!(missing(&row, &before, &after), ["our n1 hs1 has dropped nothing as mtu"]);
        after.ours.get_mut(&at("hs1")).unwrap().dropped.insert(DropReason::Mtu, 1);
        assert_eq!(missing(&row, &before, &after), Vec::<String>::new());
    }

    #[test]
    fn the_books_balance_from_their_opening_on() {
        let balance = |port: &str, after: Page| errors(&page(port, (7, 3), (2, 3)).offsets(), &after, false);
        assert_eq!(balance("hs1", page("hs1", (9, 4), (4, 4))), Vec::<String>::new());
        let unseen = balance("hs1", page("hs1", (9, 4), (3, 4)));
        assert_eq!(unseen, ["n1 hs1: the kernel has received 1 more than we have counted"]);
        let foreign = balance("hs1", page("hs1", (9, 5), (4, 4)));
        assert_eq!(foreign, ["n1 hs1: the kernel has sent 1 more than we have counted"]);
        assert_eq!(balance("eth0", page("eth0", (9, 50), (4, 4))), Vec::<String>::new());
        let mut lost = page("hs1", (9, 4), (4, 4));
        lost.ours.get_mut(&at("hs1")).unwrap().forwarded = 3;
        assert_eq!(balance("hs1", lost), ["n1 hs1: 1 packets without a fate"]);
    }
    #[test]
    fn merged_frames_are_fewer_for_us() {
        let opening = page("hs1", (7, 3), (2, 3)).offsets();
        let balance = |after: Page| errors(&opening, &after, true);
        assert_eq!(balance(page("hs1", (30, 4), (4, 4))), Vec::<String>::new());
        let invented = balance(page("hs1", (30, 4), (26, 4)));
        assert_eq!(invented, ["n1 hs1: the kernel has received -1 more than we have counted"]);
        let foreign = balance(page("hs1", (30, 5), (4, 4)));
        assert_eq!(foreign, ["n1 hs1: the kernel has sent 1 more than we have counted"]);
    }
}
