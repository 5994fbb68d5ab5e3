//! The kernel's own ways from a veth to another, as data.

use anyhow::{Context as _, Result, ensure};
use loxi_ebpf_layout::bench::source;
use loxi_linux::MacAddr;
use std::process::Command;

/// A way that the kernel has by itself.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name.
    pub(super) name: &'static str,
    /// Our path that does the same.
    pub(super) path: &'static str,
    /// Commands in a namespace with `in0` and `out0`, both up.
    commands: &'static str,
    /// Frame of a flow for each family, with `{src}` and `{port}`.
    frames: [&'static str; 2],
}

/// MACs of the two devices.
const DEVICES: [(&str, MacAddr); 2] =
    [("in0", MacAddr([2, 0, 0, 0, 1, 0])), ("out0", MacAddr([2, 0, 0, 0, 2, 0]))];

/// A router between both devices; hosts on either side are known.
const ROUTER: &str = "
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for d in all in0 out0; do echo 0 >/proc/sys/net/ipv4/conf/$d/rp_filter; done
ip addr add 10.244.64.254/18 dev in0
ip addr add fd00:10:244:1::1/64 dev in0 nodad
ip addr add 10.0.2.1/24 dev out0
ip addr add fd00:2::1/64 dev out0 nodad
ip neigh add 10.0.2.2 lladdr 02:00:00:00:0b:02 dev out0 nud permanent
ip neigh add fd00:2::2 lladdr 02:00:00:00:0b:02 dev out0 nud permanent
";

pub(super) static PEERS: [Peer; 5] = [
    Peer {
        name: "bridge",
        path: "pod_to_pod_policy",
        // Bridged frames are not taken through the firewall.
        commands: "
for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 >$f; done
ip link add br0 type bridge
ip link set in0 master br0
ip link set out0 master br0
ip link set br0 up
bridge fdb add 02:00:00:00:01:03 dev out0 master static
",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:03 / ipv4 {src}>10.244.1.12 / tcp {port}>80 A",
            "eth 02:00:00:00:01:01>02:00:00:00:01:03 / ipv6 {src}>fd00:10:244:1::12 / tcp {port}>80 A",
        ],
    },
    Peer {
        name: "forward",
        path: "routed",
        commands: "",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 {src}>10.0.2.2 / tcp {port}>80 A",
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 {src}>fd00:2::2 / tcp {port}>80 A",
        ],
    },
    Peer {
        name: "nftables_dnat",
        path: "cluster_ip_dnat",
        commands: "
nft add table inet nat
nft 'add chain inet nat pre { type nat hook prerouting priority -100; }'
nft add rule inet nat pre ip daddr 10.96.0.1 tcp dport 80 dnat ip to 10.0.2.2:8080
nft add rule inet nat pre ip6 daddr fd00:10:96::1 tcp dport 80 dnat ip6 to [fd00:2::2]:8080
",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 {src}>10.96.0.1 / tcp {port}>80 A",
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 {src}>fd00:10:96::1 / tcp {port}>80 A",
        ],
    },
    Peer {
        name: "vxlan_encapsulate",
        path: "vxlan_encapsulate",
        commands: "
ip link add vx0 address 02:00:00:00:01:f0 type vxlan id 100 local 10.0.2.1 remote 10.0.2.2 dstport 4789 dev out0
ip link set vx0 up
ip neigh add 10.9.9.9 lladdr 02:00:00:00:02:f0 dev vx0 nud permanent
ip neigh add fd00:9::9 lladdr 02:00:00:00:02:f0 dev vx0 nud permanent
ip route add 10.244.2.0/24 via 10.9.9.9 dev vx0 onlink
ip route add fd00:10:244:2::/64 via fd00:9::9 dev vx0 onlink
",
        frames: [
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv4 {src}>10.244.2.10 / tcp {port}>80 A",
            "eth 02:00:00:00:01:01>02:00:00:00:01:00 / ipv6 {src}>fd00:10:244:2::10 / tcp {port}>80 A",
        ],
    },
    Peer {
        name: "vxlan_decapsulate",
        path: "vxlan_decapsulate",
        commands: "
ip addr add 172.18.0.1/24 dev in0
ip link add vx0 address 02:00:00:00:01:f0 type vxlan id 100 local 172.18.0.1 remote 172.18.0.2 dstport 4789 dev in0
ip link set vx0 up
echo 0 >/proc/sys/net/ipv4/conf/vx0/rp_filter
",
        frames: [
            "eth 02:00:00:00:02:e0>02:00:00:00:01:00 / ipv4 172.18.0.2>172.18.0.1 df / udp 50000>4789 csum=0 / vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv4 {src}>10.0.2.2 / tcp {port}>80 A",
            "eth 02:00:00:00:02:e0>02:00:00:00:01:00 / ipv4 172.18.0.2>172.18.0.1 df / udp 50000>4789 csum=0 / vxlan 100 / eth 02:00:00:00:02:f0>02:00:00:00:01:f0 / ipv6 {src}>fd00:2::2 / tcp {port}>80 A",
        ],
    },
];

impl Peer {
    pub(super) fn devices(&self) -> &'static [(&'static str, MacAddr)] {
        &DEVICES
    }

    pub(super) fn ingress(&self) -> &'static str {
        "in0"
    }

    pub(super) fn egress(&self) -> &'static str {
        "out0"
    }

    pub(super) fn is_tunnelled(&self) -> bool {
        self.frames[0].contains("vxlan")
    }

    /// The first flow's frame, in the notation of the rows.
    pub(super) fn frame(&self, v6: bool) -> String {
        let (port, low) = source(0);
        let src =
            if v6 { format!("fd00:10:244:1::{low:x}") } else { format!("10.244.{}.{}", low >> 8, low & 255) };
        let text = self.frames[usize::from(v6)].replace("{src}", &src).replace("{port}", &port.to_string());
        format!("{text} / fill 80")
    }

    /// Sets it up in the calling thread's namespace.
    pub(super) fn set_up(&self) -> Result<()> {
        let router = if self.name == "bridge" { "" } else { ROUTER };
        let script = format!("PATH=$PATH:/usr/sbin:/sbin\n{router}{}", self.commands);
        let output = Command::new("sh").args(["-ec", &script]).output().context("running sh")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
