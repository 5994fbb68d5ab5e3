//! The table: every way that a packet can take through two nodes.

use std::net::{IpAddr, SocketAddr};

use loxi_core::reason::DropReason;
use loxi_linux::layout;

use super::{Action, At, Direction, Row, Transport};
use crate::manifests::GUARDED_POD;
use crate::plan::{self, Family, POD_MTU, SERVER_PORT, SERVICE_PORT, Spot, WIDE_POD, WIRE_MTU};
use crate::services::{BOTH, FIRST, NOBODY, NODE_PORT, SECOND, Service};

/// Bytes of a bulk transfer.
pub const BULK: u64 = 8 << 20;

/// Who asks in most rows.
const POD: Spot = Spot::Pod(1, 1);
/// Its neighbour on the node, which is also the endpoint of service `first`.
const NEIGHBOUR: Spot = Spot::Pod(1, 2);
/// A pod on the other node.
const REMOTE: Spot = Spot::Pod(2, 1);
/// The endpoint of service `second`.
const REMOTE_ENDPOINT: Spot = Spot::Pod(2, 2);
const NODE: Spot = Spot::Node(1);
const OTHER_NODE: Spot = Spot::Node(2);

/// Every row, IPv4 first.
#[must_use]
pub fn table() -> Vec<Row> {
    Family::ALL.into_iter().flat_map(|family| Rows { family, rows: Vec::new() }.all()).collect()
}

/// The rows of a family in the making.
struct Rows {
    family: Family,
    rows: Vec<Row>,
}

fn at(node: u8, port: impl Into<String>) -> At {
    At { node, port: port.into() }
}

/// The port of a pod, or of the node itself.
fn port(spot: Spot) -> At {
    match spot {
        Spot::Pod(node, pod) => at(node, format!("hs{pod}")),
        Spot::Node(node) => at(node, layout::HOST),
        Spot::Wire | Spot::Outside => at(0, ""),
    }
}

/// From one to another on the same node.
fn local(from: Spot, to: Spot) -> Vec<At> {
    vec![port(from), port(to)]
}

/// From one node through the tunnel to the other.
fn across(from: Spot, to: Spot) -> Vec<At> {
    let (near, far) = (port(from), port(to));
    let ends = [near.node, far.node].map(|node| [at(node, layout::VTEP), at(node, "eth0")]);
    [near].into_iter().chain(ends.into_iter().flatten()).chain([far]).collect()
}

/// From a pod to its node's own stack, which routes on.
fn by_host(from: Spot) -> Vec<At> {
    vec![port(from), port(Spot::Node(port(from).node))]
}

impl Rows {
    fn all(mut self) -> Vec<Row> {
        self.pods();
        self.processes();
        self.services();
        self.outside();
        self.node_ports();
        self.hosts();
        self.errors();
        self.bulk();
        self.rows
    }

    /// Where somebody answers.
    fn of(&self, spot: Spot) -> IpAddr {
        // Only the wire has no address, and nobody asks it.
        spot.address(self.family).unwrap_or_else(|| plan::on_wire(0, self.family))
    }

    fn server(&self, spot: Spot) -> SocketAddr {
        SocketAddr::new(self.of(spot), SERVER_PORT)
    }

    fn service(&self, service: Service) -> SocketAddr {
        SocketAddr::new(service.address(self.family), SERVICE_PORT)
    }

    fn row(&mut self, name: &str, from: Spot, action: Action, path: Vec<At>) -> &mut Row {
        let index = self.rows.len();
        self.rows.push(Row {
            name: name.into(),
            family: self.family,
            from,
            action,
            path,
            least_bytes: 1,
            drops: Vec::new(),
        });
        &mut self.rows[index]
    }

    /// Over both transports.
    fn reach(&mut self, name: &str, from: Spot, to: SocketAddr, server: Spot, peer: IpAddr, path: &[At]) {
        for transport in Transport::ALL {
            let action = Action::Reach { transport, to, server, peer };
            self.row(&format!("{name}, {}", transport.name()), from, action, path.to_vec());
        }
    }

    fn pods(&mut self) {
        let own = self.of(POD);
        let ping = |to, ttl| Action::Ping { to, ttl };
        let gateway = plan::switch(1, self.family);
        self.row("pod to its gateway, ping", POD, ping(gateway, 64), vec![port(POD)]);
        // A pod has no neighbours: the switch is a hop.
        let path = local(POD, NEIGHBOUR);
        self.row("pod to pod on its node, ping", POD, ping(self.of(NEIGHBOUR), 63), path.clone());
        self.reach("pod to pod on its node", POD, self.server(NEIGHBOUR), NEIGHBOUR, own, &path);
        // Routed on both nodes.
        let path = across(POD, REMOTE);
        self.row("pod to pod on the other node, ping", POD, ping(self.of(REMOTE), 62), path.clone());
        self.reach("pod to pod on the other node", POD, self.server(REMOTE), REMOTE, own, &path);
        let path = across(REMOTE, POD);
        let peer = self.of(REMOTE);
        self.reach("pod to pod, the other way round", REMOTE, self.server(POD), POD, peer, &path);
    }

    fn processes(&mut self) {
        let (own, path) = (self.of(POD), by_host(POD));
        self.reach("pod to process on its node", POD, self.server(NODE), NODE, own, &path);
        let seen = plan::on_wire(1, self.family);
        let to = self.server(OTHER_NODE);
        self.reach("pod to process on the other node, masqueraded", POD, to, OTHER_NODE, seen, &path);
    }

    fn services(&mut self) {
        let own = self.of(POD);
        let (first, second) = (self.service(FIRST), self.service(SECOND));
        let (near, far) = (local(POD, NEIGHBOUR), across(POD, REMOTE_ENDPOINT));
        self.reach("pod to service, endpoint local", POD, first, NEIGHBOUR, own, &near);
        self.reach("pod to service, endpoint remote", POD, second, REMOTE_ENDPOINT, own, &far);
        let switch = plan::switch(1, self.family);
        let itself = [port(NEIGHBOUR)];
        self.reach("pod to service, endpoint itself", NEIGHBOUR, first, NEIGHBOUR, switch, &itself);
        let spread = Action::Spread { to: self.service(BOTH), servers: vec![NEIGHBOUR, REMOTE_ENDPOINT] };
        let mut path = far.clone();
        path.push(port(NEIGHBOUR));
        self.row("pod to service, endpoints on both nodes, tcp", POD, spread, path);
        let ping = Action::Ping { to: FIRST.address(self.family), ttl: 64 };
        self.row("pod to a service's address, ping", POD, ping, vec![port(POD)]);
        let host = plan::host(1, self.family);
        self.reach("host to service, endpoint local", NODE, first, NEIGHBOUR, host, &local(NODE, NEIGHBOUR));
        let path = across(NODE, REMOTE_ENDPOINT);
        self.reach("host to service, endpoint remote", NODE, second, REMOTE_ENDPOINT, host, &path);
        for transport in Transport::ALL {
            let name = format!("service without endpoints refuses, {}", transport.name());
            let action = Action::Refused { transport, to: self.service(NOBODY) };
            self.row(&name, POD, action, vec![port(POD)]).drops = vec![(port(POD), DropReason::NoBackend)];
        }
        let to = SocketAddr::new(FIRST.address(self.family), SERVICE_PORT + 1);
        let action = Action::Refused { transport: Transport::Tcp, to };
        let row = self.row("port of no service refuses, tcp", POD, action, vec![port(POD)]);
        row.drops = vec![(port(POD), DropReason::NoService)];
    }

    fn outside(&mut self) {
        let (to, seen) = (self.server(Spot::Outside), plan::on_wire(1, self.family));
        let path = by_host(POD);
        self.reach("pod to the outside, masqueraded", POD, to, Spot::Outside, seen, &path);
        // The dataplane's hop towards the host and the host's own; of the way back the same two.
        let ping = Action::Ping { to: self.of(Spot::Outside), ttl: 62 };
        self.row("pod to the outside, ping", POD, ping, path);
    }

    fn node_ports(&mut self) {
        let of = |node| SocketAddr::new(plan::on_wire(node, self.family), NODE_PORT);
        let ports = [of(1), of(2)];
        let (outside, at_wire) = (Spot::Outside, |node| at(node, "eth0"));
        // The node that was asked stands in for the client, so that the answer comes back by it.
        let seen = plan::host(2, self.family);
        let path = [at_wire(2), port(REMOTE_ENDPOINT)];
        let name = "outside to a port of the endpoint's node";
        self.reach(name, outside, ports[1], REMOTE_ENDPOINT, seen, &path);
        let seen = plan::host(1, self.family);
        let path: Vec<At> =
            across(NODE, REMOTE_ENDPOINT).into_iter().filter(|at| at.port != layout::HOST).collect();
        let name = "outside to a port of the other node";
        self.reach(name, outside, ports[0], REMOTE_ENDPOINT, seen, &path);
        let path = across(POD, REMOTE_ENDPOINT);
        self.reach("pod to a port of its node", POD, ports[0], REMOTE_ENDPOINT, self.of(POD), &path);
    }

    fn hosts(&mut self) {
        let host = plan::host(1, self.family);
        let path = local(NODE, NEIGHBOUR);
        let to = self.server(NEIGHBOUR);
        self.reach("host to pod on its node", NODE, to, NEIGHBOUR, host, &path);
        let path = across(NODE, REMOTE);
        let ping = Action::Ping { to: self.of(REMOTE), ttl: 62 };
        self.row("host to pod on the other node, ping", NODE, ping, path.clone());
        self.reach("host to pod on the other node", NODE, self.server(REMOTE), REMOTE, host, &path);
    }

    fn errors(&mut self) {
        let guarded = Spot::Pod(1, GUARDED_POD);
        let denied = Action::Denied { to: self.server(guarded), allowed: POD };
        let row = self.row(
            "policy keeps a pod of its node out, tcp",
            NEIGHBOUR,
            denied.clone(),
            local(POD, guarded),
        );
        row.drops = vec![(port(NEIGHBOUR), DropReason::PolicyIsolated)];
        let row =
            self.row("policy keeps a pod of the other node out, tcp", REMOTE, denied, local(POD, guarded));
        row.drops = vec![(at(1, layout::VTEP), DropReason::PolicyIsolated)];

        let wide = Spot::Pod(2, WIDE_POD);
        let action = Action::PathMtu {
            to: self.of(POD),
            teller: plan::switch(2, self.family),
            size: WIRE_MTU,
            mtu: POD_MTU,
        };
        let row = self.row("path MTU is told to a pod that sends too much", wide, action, across(wide, POD));
        row.drops = vec![(port(wide), DropReason::Mtu)];

        // The second node's hop answers as its host, having no address of its own at the tunnel.
        let hops = vec![plan::switch(1, self.family), plan::host(2, self.family), self.of(REMOTE)];
        let action = Action::Traceroute { to: self.of(REMOTE), hops };
        let row = self.row("traceroute to a pod on the other node", POD, action, across(POD, REMOTE));
        row.drops = vec![(port(POD), DropReason::Ttl), (at(2, layout::VTEP), DropReason::Ttl)];
    }

    fn bulk(&mut self) {
        let bulk = |to, direction| Action::Bulk { to, direction, bytes: BULK };
        let action = bulk(self.server(REMOTE), Direction::Send);
        self.row("8 MiB to a pod on the other node, tcp", POD, action, across(POD, REMOTE)).least_bytes =
            BULK;
        let action = bulk(self.service(SECOND), Direction::Receive);
        let path = across(POD, REMOTE_ENDPOINT);
        self.row("8 MiB from a service, endpoint remote, tcp", POD, action, path).least_bytes = BULK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn both_families_have_the_same_rows() {
        let rows = table();
        let names = |family| -> Vec<String> {
            rows.iter().filter(|row| row.family == family).map(|row| row.name.clone()).collect()
        };
        assert_eq!(names(Family::V4), names(Family::V6));
        let distinct: BTreeSet<_> = rows.iter().map(|row| (row.family, &row.name)).collect();
        assert_eq!(distinct.len(), rows.len());
        assert!(rows.iter().all(|row| !row.path.is_empty() && row.path.iter().all(|at| at.node != 0)));
    }

    #[test]
    fn filters_are_words() {
        let rows = table();
        let meant = |filter: &str| rows.iter().filter(|row| row.is_meant(filter)).count();
        assert_eq!(meant(""), rows.len());
        assert_eq!(meant("v6"), rows.len() / 2);
        assert_eq!(meant("V4 traceroute"), 1);
        assert_eq!(meant("nothing of this name"), 0);
    }
}
