//! Stages, numbered in the order in which a packet meets them.

/// A stage of the pipeline. Numbers are those of the design; some stages have no entities yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[repr(u8)]
pub enum Stage {
    /// Headers, checksums, martians.
    Parse = 0,
    /// Port state and VLAN.
    Port = 1,
    /// ACL, meters and SYN guard before all else.
    PreAcl = 2,
    /// Source guard.
    AntiSpoof = 3,
    /// Decapsulation.
    TunnelTermination = 4,
    /// Fragments.
    Fragment = 5,
    /// Conntrack lookup.
    Conntrack = 6,
    /// Services.
    Service = 7,
    /// Destination NAT.
    Dnat = 8,
    /// Policy of the local source.
    EgressPolicy = 9,
    /// Route or bridge.
    Forward = 10,
    /// TTL, then MTU.
    TtlMtu = 11,
    /// Source NAT.
    Snat = 12,
    /// Policy of the local destination.
    IngressPolicy = 13,
    /// The flow comes into being.
    Commit = 14,
    /// ACL, meters and mirrors after all else.
    PostAcl = 15,
    /// Rewrite, encapsulate, send.
    Send = 16,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 17] = [
        Self::Parse,
        Self::Port,
        Self::PreAcl,
        Self::AntiSpoof,
        Self::TunnelTermination,
        Self::Fragment,
        Self::Conntrack,
        Self::Service,
        Self::Dnat,
        Self::EgressPolicy,
        Self::Forward,
        Self::TtlMtu,
        Self::Snat,
        Self::IngressPolicy,
        Self::Commit,
        Self::PostAcl,
        Self::Send,
    ];

    /// Stages that have entities in this version; the others pass every packet.
    pub const EXECUTED: [Self; 15] = [
        Self::Parse,
        Self::Port,
        Self::AntiSpoof,
        Self::TunnelTermination,
        Self::Fragment,
        Self::Conntrack,
        Self::Service,
        Self::Dnat,
        Self::EgressPolicy,
        Self::Forward,
        Self::TtlMtu,
        Self::Snat,
        Self::IngressPolicy,
        Self::Commit,
        Self::Send,
    ];

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Identifier in snake case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Port => "port",
            Self::PreAcl => "pre_acl",
            Self::AntiSpoof => "anti_spoof",
            Self::TunnelTermination => "tunnel_termination",
            Self::Fragment => "fragment",
            Self::Conntrack => "conntrack",
            Self::Service => "service",
            Self::Dnat => "dnat",
            Self::EgressPolicy => "egress_policy",
            Self::Forward => "forward",
            Self::TtlMtu => "ttl_mtu",
            Self::Snat => "snat",
            Self::IngressPolicy => "ingress_policy",
            Self::Commit => "commit",
            Self::PostAcl => "post_acl",
            Self::Send => "send",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
