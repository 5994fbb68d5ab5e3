//! Entities as one closed enum, their keys and kinds.

use super::*;
use crate::net::*;

/// One line per entity kind, in dependency order: what comes later may refer
/// to what comes earlier. From it come [`EntityKind`], [`Entity`],
/// [`EntityKey`], [`Pipeline`] and the text form.
macro_rules! entities {
    ($macro:path) => {
        $macro! {
            (Zone, CtZone, ZoneName, zones, "zone", |e| e.name.clone()),
            (Vrf, Vrf, VrfName, vrfs, "vrf", |e| e.name.clone()),
            (Bridge, Bridge, BridgeName, bridges, "bridge", |e| e.name.clone()),
            (Port, Port, PortName, ports, "port", |e| e.name.clone()),
            (Interface, Interface, InterfaceName, interfaces, "interface", |e| e.name.clone()),
            (Neighbor, Neighbor, NeighborKey, neighbors, "neighbor", |e| e.key()),
            (Tunnel, Tunnel, TunnelName, tunnels, "tunnel", |e| e.name.clone()),
            (Termination, TunnelTermination, TerminationKey, terminations, "termination", |e| e.key()),
            (Fdb, Fdb, FdbKey, fdb, "fdb", |e| e.key()),
            (NextHop, NextHop, NextHopName, next_hops, "next_hop", |e| e.name.clone()),
            (NextHopGroup, NextHopGroup, GroupName, next_hop_groups, "next_hop_group", |e| e.name.clone()),
            (Route, Route, RouteKey, routes, "route", |e| e.key()),
            (Vip, VipAddress, VipKey, vips, "vip", |e| e.key()),
            (Backend, LbBackend, BackendName, backends, "backend", |e| e.name.clone()),
            (Service, LbService, ServiceKey, services, "service", |e| e.key()),
            (NatRule, NatRule, NatKey, nat_rules, "nat_rule", |e| e.key()),
            (AddrSet, AddrSet, AddrSetName, addr_sets, "addr_set", |e| e.name.clone()),
            (PortSet, PortSet, PortSetName, port_sets, "port_set", |e| e.name.clone()),
            (PolicyRule, PolicyRule, PolicyRuleKey, policy_rules, "policy_rule", |e| e.key()),
            (PolicyIsolation, PolicyIsolation, PolicyIsolationKey, policy_isolations, "policy_isolation", |e| e.key()),
        }
    };
}
pub(crate) use entities;

macro_rules! declare {
    ($(($variant:ident, $type:ident, $key:ident, $table:ident, $name:literal, |$e:ident| $make_key:expr)),+ $(,)?) => {
        /// Kinds of entities, in dependency order: creation goes up, deletion down.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum EntityKind {
            $(#[doc = concat!("[`", stringify!($type), "`].")] $variant,)+
        }

        impl EntityKind {
            /// Every kind, in dependency order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Identifier in snake case.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Name of the list in the text form.
            #[must_use]
            pub fn table(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($table),)+
                }
            }
        }

        /// An entity of any kind.
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Entity {
            $(#[doc = concat!("[`", stringify!($type), "`].")] $variant($type),)+
        }

        impl Entity {
            /// Its key.
            #[must_use]
            pub fn key(&self) -> EntityKey {
                match self {
                    $(Self::$variant(entity) => EntityKey::$variant(PipelineEntity::key(entity)),)+
                }
            }

            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> EntityKind {
                match self {
                    $(Self::$variant(_) => EntityKind::$variant,)+
                }
            }

            /// Where it came from.
            #[must_use]
            pub fn origin(&self) -> &Origin {
                match self {
                    $(Self::$variant(entity) => &entity.origin,)+
                }
            }
        }

        $(impl From<$type> for Entity {
            fn from(entity: $type) -> Self {
                Self::$variant(entity)
            }
        })+

        /// What names an entity: its kind and key. Text form: `KIND KEY`.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum EntityKey {
            $(#[doc = concat!("Key of a [`", stringify!($type), "`].")] $variant($key),)+
        }

        impl EntityKey {
            /// The kind that it names.
            #[must_use]
            pub fn kind(&self) -> EntityKind {
                match self {
                    $(Self::$variant(_) => EntityKind::$variant,)+
                }
            }
        }

        impl std::fmt::Display for EntityKey {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant(key) => write!(f, "{} {key}", $name),)+
                }
            }
        }

        $(impl PipelineEntity for $type {
            type Key = $key;
            fn key(&self) -> $key {
                let $e = self;
                $make_key
            }
            fn table(pipeline: &Pipeline) -> &std::collections::BTreeMap<$key, Owned<Self>> {
                &pipeline.$table
            }
        })+
    };
}

entities!(declare);
