//! Why a packet ended here without being dropped.

reasons! {
    /// What the dataplane did with a packet that it consumed.
    ConsumedReason {
        ArpReply = 1, "arp_reply", "answered an ARP request";
        NdAdvert = 2, "nd_advert", "answered a neighbour solicitation";
        EchoReply = 3, "echo_reply", "answered an echo request";
        NeighborLearned = 4, "neighbor_learned", "took a neighbour's address from it";
        PathMtu = 5, "path_mtu", "lowered a tunnel endpoint's path MTU";
        Rejected = 6, "rejected", "answered by RST or ICMP unreachable";
        TunnelError = 7, "tunnel_error", "took notice of an ICMP error about our own outer packet";
    }
}
