//! Rows: one claim each about what a lab's network does, with the ports that must have done it.

mod act;
mod table;

use std::net::{IpAddr, SocketAddr};

use loxi_core::reason::DropReason;

pub use act::{Outcome, Spots, act};
pub use table::{BULK, table};

use crate::plan::{Family, Spot};

/// A transport that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the asker.
    Send,
    /// To the asker.
    Receive,
}

/// What a row does, and what must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// An echo request is answered, over as many hops as its TTL tells.
    Ping {
        /// Whom.
        to: IpAddr,
        /// TTL of the answer; hosts begin with 64.
        ttl: u8,
    },
    /// A server is reached, and sees the asker as it should.
    Reach {
        /// Over what.
        transport: Transport,
        /// The address asked.
        to: SocketAddr,
        /// Who answers.
        server: Spot,
        /// As whom it sees the asker.
        peer: IpAddr,
    },
    /// Connections to one address reach all of these.
    Spread {
        /// The address asked.
        to: SocketAddr,
        /// Those who answer.
        servers: Vec<Spot>,
    },
    /// Many bytes arrive unchanged.
    Bulk {
        /// The address asked.
        to: SocketAddr,
        /// Which way.
        direction: Direction,
        /// How many.
        bytes: u64,
    },
    /// A packet with DF that is too large is told so; a smaller one arrives.
    PathMtu {
        /// Whom.
        to: IpAddr,
        /// Who says so.
        teller: IpAddr,
        /// The size of the too large packet.
        size: u16,
        /// The size that is told.
        mtu: u16,
    },
    /// These are the hops to an address.
    Traceroute {
        /// Whom.
        to: IpAddr,
        /// The hops, the last one included.
        hops: Vec<IpAddr>,
    },
    /// One who may connects, then the row's own spot may not: nobody answers it.
    Denied {
        /// The address asked.
        to: SocketAddr,
        /// Who may.
        allowed: Spot,
    },
    /// Somebody says no: RST or port unreachable.
    Refused {
        /// Over what.
        transport: Transport,
        /// The address asked.
        to: SocketAddr,
    },
}

/// A port of a node's dataplane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The node.
    pub node: u8,
    /// The port.
    pub port: String,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it claims.
    pub name: String,
    /// In which family.
    pub family: Family,
    /// Who asks.
    pub from: Spot,
    /// What is done.
    pub action: Action,
    /// The ports that must have received and sent.
    pub path: Vec<At>,
    /// Bytes that each of them must have moved at least, both ways together.
    pub least_bytes: u64,
    /// What must have been dropped where.
    pub drops: Vec<(At, DropReason)>,
}

impl Row {
    /// Whether a filter means this row: every word of it is in its name or is its family.
    #[must_use]
    pub fn is_meant(&self, filter: &str) -> bool {
        let name = self.name.to_lowercase();
        let family = self.family.to_string();
        filter.to_lowercase().split_whitespace().all(|word| word == family || name.contains(word))
    }
}
