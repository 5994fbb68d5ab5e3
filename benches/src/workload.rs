//! The workloads as data.

/// Which way through the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Dropped by the parser: the floor that every other path stands on.
    Floor,
    /// Bridged to a learned station, untracked.
    Bridge,
    /// Routed, untracked, IPv4.
    RouteV4,
    /// Routed, untracked, IPv6.
    RouteV6,
    /// Established TCP between two pods, the destination isolated by policy.
    PodToPod,
    /// Established TCP to a ClusterIP, endpoint on this node.
    ClusterIp,
    /// Established UDP into a VXLAN tunnel.
    Encapsulate,
    /// Established UDP out of a VXLAN tunnel.
    Decapsulate,
    /// The first packet of a UDP flow to a ClusterIP: balancing, translation, commit.
    NewFlow,
    /// Refused by policy.
    Refused,
}

/// A path at a number of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The path.
    pub path: Path,
    /// Flows among which the packets go round.
    pub flows: u32,
}

const M1: &str = "02:00:00:00:01:01";
const M3: &str = "02:00:00:00:01:03";
const SWITCH: &str = "02:00:00:00:01:00";

/// Every workload, cheapest first.
#[must_use]
pub fn workloads() -> Vec<Workload> {
    let one = |path| Workload { path, flows: 1 };
    let many = |path| [1, 1_000, 64_000].map(|flows| Workload { path, flows });
    [one(Path::Floor), one(Path::Bridge), one(Path::RouteV4), one(Path::RouteV6)]
        .into_iter()
        .chain(many(Path::PodToPod))
        .chain(many(Path::ClusterIp))
        .chain([one(Path::Encapsulate), one(Path::Decapsulate), one(Path::Refused)])
        // Every packet is another flow; the number is how many there are at most.
        .chain([Workload { path: Path::NewFlow, flows: 64_000 }])
        .collect()
}

/// A packet: ingress port and text in the notation of the rows.
pub(crate) type Packet = (&'static str, String);

impl Workload {
    /// Its name, as `path/flows`.
    #[must_use]
    pub fn name(&self) -> String {
        let path = match self.path {
            Path::Floor => "floor_parse_drop",
            Path::Bridge => "bridge_known_unicast",
            Path::RouteV4 => "route_v4",
            Path::RouteV6 => "route_v6",
            Path::PodToPod => "pod_to_pod_policy_established",
            Path::ClusterIp => "cluster_ip_established",
            Path::Encapsulate => "vxlan_encapsulate",
            Path::Decapsulate => "vxlan_decapsulate",
            Path::NewFlow => "cluster_ip_new_flow",
            Path::Refused => "policy_refused",
        };
        format!("{path}/{}", self.flows)
    }

    /// The committed pipeline.
    pub(crate) fn pipeline(&self) -> &'static str {
        match self.path {
            Path::Bridge => "switch",
            Path::RouteV4 | Path::RouteV6 => "router",
            _ => "node",
        }
    }

    /// Entities besides.
    pub(crate) fn with(&self) -> &'static str {
        match self.path {
            Path::PodToPod | Path::Refused => {
                "version: 1
policy_isolations: [{policy: bench, direction: ingress, subject: {ports: [hs3]}}]
policy_rules:
  - {direction: ingress, tier: network_policy, priority: 1, subject: {ports: [hs3]}, peer: any, protocol: tcp, action: allow}
"
            }
            _ => "version: 1\n",
        }
    }

    /// Packets that make flow `i`, before anything is measured.
    pub(crate) fn prepare(&self, i: u32) -> Vec<Packet> {
        let (host, port) = (i / 60_000, 1024 + i % 60_000);
        match self.path {
            Path::Bridge => vec![(
                "p2",
                "eth 02:00:00:00:01:02>ff:ff:ff:ff:ff:ff / ipv4 10.0.0.2>255.255.255.255 / udp 1>2"
                    .to_owned(),
            )],
            Path::PodToPod => {
                let to = 80 + host;
                vec![
                    ("hs1", format!("eth {M1}>{M3} / ipv4 10.244.1.10>10.244.1.12 / tcp {port}>{to} S")),
                    ("hs3", format!("eth {M3}>{M1} / ipv4 10.244.1.12>10.244.1.10 / tcp {to}>{port} SA")),
                    ("hs1", format!("eth {M1}>{M3} / ipv4 10.244.1.10>10.244.1.12 / tcp {port}>{to} A")),
                ]
            }
            // The endpoint's answers come from 8080, or from another port where tuples collide: a half
            // open flow is forwarded the same way.
            Path::ClusterIp => vec![client(i, "S")],
            Path::Encapsulate | Path::Decapsulate => vec![outgoing()],
            Path::Floor | Path::RouteV4 | Path::RouteV6 | Path::NewFlow | Path::Refused => Vec::new(),
        }
    }

    /// The packet of flow `i` that is measured.
    pub(crate) fn packet(&self, i: u32) -> Packet {
        let (host, port) = (i / 60_000, 1024 + i % 60_000);
        match self.path {
            Path::Floor => ("hs1", format!("eth {M1}>{M3} / ipv4 10.244.1.10>10.244.1.12 csum=1 / udp 1>2")),
            Path::Bridge => {
                ("p1", "eth 02:00:00:00:01:01>02:00:00:00:01:02 / ipv4 10.0.0.1>10.0.0.2 / udp 1>2".to_owned())
            }
            Path::RouteV4 => (
                "l1",
                "eth 02:00:00:00:0b:01>02:00:00:00:0a:01 / ipv4 192.0.2.9>198.51.100.9 / udp 1>2".to_owned(),
            ),
            Path::RouteV6 => (
                "l1",
                "eth 02:00:00:00:0b:01>02:00:00:00:0a:01 / ipv6 2001:db8:1::9>2001:db8:2::9 / udp 1>2".to_owned(),
            ),
            Path::PodToPod => {
                ("hs1", format!("eth {M1}>{M3} / ipv4 10.244.1.10>10.244.1.12 / tcp {port}>{} A", 80 + host))
            }
            Path::ClusterIp => client(i, "A"),
            Path::Encapsulate => outgoing(),
            Path::Decapsulate => (
                "eth0",
                "eth 02:00:00:00:02:e0>02:00:00:00:01:e0 / ipv4 172.18.0.2>172.18.0.1 df / udp 50000>4789 csum=0 / vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv4 10.244.2.10>10.244.1.10 / udp 2>1".to_owned(),
            ),
            Path::NewFlow => {
                let (from, port) = (["10", "12"][(host % 2) as usize], 1024 + i % 60_000);
                let (mac, ingress) = if from == "10" { (M1, "hs1") } else { (M3, "hs3") };
                (ingress, format!("eth {mac}>{SWITCH} / ipv4 10.244.1.{from}>10.96.0.1 / udp {port}>80"))
            }
            Path::Refused => ("hs1", format!("eth {M1}>{M3} / ipv4 10.244.1.10>10.244.1.12 / udp 1>2")),
        }
    }

    /// Where the measured packets leave; `None`: they are dropped.
    pub(crate) fn egress(&self) -> Option<&'static str> {
        match self.path {
            Path::Floor | Path::Refused => None,
            Path::Bridge => Some("p2"),
            Path::RouteV4 | Path::RouteV6 => Some("l2"),
            Path::PodToPod => Some("hs3"),
            Path::ClusterIp | Path::NewFlow => Some("hs2"),
            Path::Encapsulate => Some("eth0"),
            Path::Decapsulate => Some("hs1"),
        }
    }
}

fn outgoing() -> Packet {
    ("hs1", format!("eth {M1}>{SWITCH} / ipv4 10.244.1.10>10.244.2.10 / udp 1>2"))
}

/// A client's packet to the ClusterIP; 60,000 ports of two clients.
fn client(i: u32, flags: &str) -> Packet {
    let port = 1024 + i % 60_000;
    if i < 60_000 {
        ("hs1", format!("eth {M1}>{SWITCH} / ipv4 10.244.1.10>10.96.0.1 / tcp {port}>80 {flags}"))
    } else {
        ("hs3", format!("eth {M3}>{SWITCH} / ipv4 10.244.1.12>10.96.0.1 / tcp {port}>80 {flags}"))
    }
}
