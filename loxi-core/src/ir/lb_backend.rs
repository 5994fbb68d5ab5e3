//! Endpoints of load-balanced services.

use super::Origin;
use crate::net::BackendName;
use std::net::IpAddr;

data! {
    /// Whether an endpoint takes part.
    #[derive(Copy, Default)]
    pub enum BackendState {
        /// Gets new connections.
        #[default]
        Active,
        /// Gets no new connections while an active one exists; keeps its own.
        Draining,
        /// Gets nothing new.
        Down,
    }
}

data! {
    /// Whether an endpoint runs on this node.
    #[derive(Copy, Default)]
    pub enum Locality {
        /// On this node.
        Local,
        /// Elsewhere.
        #[default]
        Remote,
    }
}

data! {
    /// An endpoint. Key: its name.
    ///
    /// Each time an entity of this name is created or its address, port or
    /// state changes to `down`, its slot gets a new generation; a UDP flow of
    /// an older generation is a miss.
    pub struct LbBackend {
        /// Its name.
        pub name: BackendName,
        /// Address.
        pub address: IpAddr,
        /// L4 port; 0 keeps the packet's own.
        pub port: u16,
        /// Share of new connections, 1 to 65535.
        #[serde(default = "crate::defaults::weight")]
        pub weight: u16,
        /// Whether it takes part.
        #[serde(default)]
        pub state: BackendState,
        /// Whether it runs here.
        #[serde(default)]
        pub locality: Locality,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Origin::is_empty")]
        pub origin: Origin,
    }
}
