//! Why a packet was dropped.

reasons! {
    /// Why a packet, or one copy of it, was dropped. A trailing `hidden` in
    /// the list marks reasons that not every backend can tell apart.
    DropReason {
        Truncated = 1, "truncated", "a header or its announced length exceeds the frame";
        BadChecksumL3 = 2, "bad_checksum_l3", "the IPv4 header checksum is wrong";
        BadChecksumL4 = 3, "bad_checksum_l4", "the TCP, UDP or ICMP checksum is wrong", hidden;
        BadHeaderLength = 4, "bad_header_length", "a header announces less than its minimum";
        UnsupportedL2 = 5, "unsupported_l2", "the ethertype is neither IP nor ARP and the bridge does not carry it";
        UnsupportedL3 = 6, "unsupported_l3", "the IP version does not fit the ethertype, or ARP is not for IPv4 over Ethernet";
        UnsupportedL4 = 7, "unsupported_l4", "the transport header can't be used here";
        BadExtensionHeader = 8, "bad_extension_header", "IPv6 extension headers are malformed, too many or misplaced";
        MartianSource = 9, "martian_source", "the source is multicast, broadcast, loopback or unspecified (RFC 1812 5.3.7)";
        MartianDestination = 10, "martian_destination", "the destination is loopback or unspecified (RFC 1812 5.3.7)";
        MartianMac = 11, "martian_mac", "the source MAC is a group address or zero (IEEE 802.3 3.2.3)";
        PortDown = 20, "port_down", "the ingress port is administratively down";
        PortUnknown = 21, "port_unknown", "no port of that name is configured";
        VlanFiltered = 22, "vlan_filtered", "the port does not carry the frame's VLAN";
        SplitHorizon = 23, "split_horizon", "ingress and egress port are of one split-horizon group, or the same";
        FdbMiss = 24, "fdb_miss", "the destination is unknown and the bridge does not flood it";
        FdbLimit = 25, "fdb_limit", "the bridge has learned as many addresses as it may";
        WrongMac = 26, "wrong_mac", "the frame is for a station that is not here";
        Unclaimed = 27, "unclaimed", "no entity claims the packet and the port drops what is unclaimed";
        ReservedMulticast = 28, "reserved_multicast", "a frame for the bridge group 01:80:c2:00:00:0x is never forwarded (IEEE 802.1Q 8.6.3)";
        SpoofMac = 30, "spoof_mac", "the source MAC is not the port's";
        SpoofIp = 31, "spoof_ip", "the source address is not the port's";
        SpoofArp = 32, "spoof_arp", "the ARP sender is not the port's";
        SpoofNd = 33, "spoof_nd", "the ND target or sender is not the port's, or RA or redirect from a guarded port";
        SpoofDhcp = 34, "spoof_dhcp", "a DHCP server message from a guarded port";
        TunnelUnknownKey = 40, "tunnel_unknown_key", "an exclusive termination has no such key";
        TunnelUntrustedPeer = 41, "tunnel_untrusted_peer", "the outer source is not among the termination's peers";
        TunnelDecapError = 42, "tunnel_decap_error", "the encapsulation header is malformed, or ECN forbids it (RFC 6040 4.2)";
        TunnelNoHeadroom = 43, "tunnel_no_headroom", "there is no room for the outer headers", hidden;
        TunnelLoop = 44, "tunnel_loop", "a packet ended two tunnels";
        TunnelInner = 45, "tunnel_inner_family", "the inner packet is of a kind that the tunnel port does not carry";
        CtInvalid = 50, "ct_invalid", "the packet fits no connection and may not open one";
        CtFull = 51, "ct_full", "the zone has as many flows as it may";
        CtContended = 52, "ct_contended", "another processor holds the entry", hidden;
        CtHalfOpenLimit = 53, "ct_half_open_limit", "the zone has as many half-open flows as it may";
        CtSourceLimit = 54, "ct_source_limit", "the source has as many flows as it may";
        IcmpWithoutFlow = 55, "icmp_without_flow", "an ICMP error quotes a packet of no known flow";
        FragmentNoFirst = 56, "fragment_no_first", "a fragment came without or before its first";
        FragmentTimeout = 57, "fragment_timeout", "a fragment came later than the first's record is kept";
        FragmentLimit = 58, "fragment_limit", "too many fragmented packets at once";
        NoBackend = 60, "no_backend", "the service has no endpoint that may be used";
        NoLocalBackend = 61, "no_local_backend", "the service wants a local endpoint and has none";
        NoService = 62, "no_service", "an address that is ours alone has no service there";
        SourceRange = 63, "source_range", "the client is not among the service's source ranges";
        PortsExhausted = 64, "ports_exhausted", "no free source port is left for the translation";
        UnsupportedProtocol = 65, "unsupported_protocol", "the translation can't be done for this protocol";
        PolicyDenied = 70, "policy_denied", "a policy rule denies";
        PolicyIsolated = 71, "policy_isolated", "the subject is isolated and no rule allows";
        PolicyRevoked = 72, "policy_revoked", "a changed policy ended the flow";
        AclDenied = 73, "acl_denied", "an ACL entry denies";
        MeterRed = 74, "meter_red", "a meter is red";
        SynGuard = 75, "syn_guard", "the SYN guard refused";
        NoRoute = 80, "no_route", "no route covers the destination";
        Blackhole = 81, "blackhole", "the route is a blackhole";
        NeighborUnresolved = 82, "neighbor_unresolved", "the next hop's MAC is not known yet";
        Ttl = 83, "ttl", "TTL or hop limit ends at this hop";
        Mtu = 84, "mtu", "the packet is larger than the way out admits";
        EgressDown = 85, "egress_down", "the egress port is down or detached";
        QueueFull = 86, "queue_full", "the egress queue is full", hidden;
        RouterSolicitation = 87, "router_solicitation", "RS are not answered: the gateway is static";
        LinkLocalRouted = 88, "link_local_routed", "link-local addresses are never routed (RFC 4291 2.5.6, RFC 3927 7)";
        NoL3 = 90, "no_l3", "the frame is for our MAC and is not IP";
        Unsupported = 100, "unsupported", "the backend can't do what the configuration asks of this packet";
    }
}
