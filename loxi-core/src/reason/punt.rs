//! Why a packet left the fast path.

reasons! {
    /// Why a packet was handed on: `not_ours_*` to the local stack as it came,
    /// the others to the daemon's slow path.
    PuntReason {
        NotOursUnclaimed = 1, "not_ours_unclaimed", "no entity claims it";
        NotOursLocal = 2, "not_ours_local", "it is for an interface's address that the local stack has too";
        NotOursRoute = 3, "not_ours_route", "the route leads to the local stack";
        NotOursShared = 4, "not_ours_shared", "it is for an address shared with the local stack, and no service's";
        Fragment = 20, "fragment", "a fragment is out of order";
        IcmpToBuild = 21, "icmp_to_build", "an ICMP error or RST must be built";
        IpOptions = 22, "ip_options", "IPv4 options are present";
        FirstPacket = 23, "first_packet", "the flow isn't in hardware yet";
        Neighbor = 24, "neighbor", "the next hop must be resolved";
        Multicast = 25, "multicast", "copies must be made";
        Checksum = 26, "checksum", "a checksum over the whole packet must be computed";
        Fragmentation = 27, "fragmentation", "the packet must be cut into fragments";
        Parse = 28, "parse", "headers that the fast path does not read";
    }
}

impl PuntReason {
    /// Whether the packet goes to the local stack as it came.
    #[must_use]
    pub fn is_not_ours(self) -> bool {
        self.number() < 20
    }
}
