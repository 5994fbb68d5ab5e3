//! The rulesets of a node.

use std::fmt::Write;
use std::net::IpAddr;

use super::{Family, NftError, Table, checked};
use crate::Prefix;

/// What of a device's traffic the kernel is not to see, because the dataplane handles it.
/// The rule runs after packet sockets have their copy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drop {
    /// Everything: a port of the dataplane.
    All,
    /// A UDP port, as the overlay's on the uplink; to these addresses, or to any if there are none.
    Udp {
        /// The destination port.
        port: u16,
        /// The destination addresses.
        to: Vec<IpAddr>,
    },
    /// TCP and UDP ports, first and last, of these addresses.
    Ports {
        /// The destination ports.
        ports: (u16, u16),
        /// The destination addresses.
        to: Vec<IpAddr>,
    },
}

/// Drops at ingress what is ours: per device, a list of what.
///
/// # Errors
/// If a name can't be written in nft's language.
pub fn ingress_drops(name: &str, devices: &[(&str, Vec<Drop>)]) -> Result<Table, NftError> {
    let mut body = String::new();
    for (number, (device, drops)) in devices.iter().enumerate() {
        checked(device)?;
        let _ = writeln!(body, "chain ingress{number} {{");
        let _ = writeln!(body, "type filter hook ingress device \"{device}\" priority -500; policy accept;");
        for drop in drops {
            match drop {
                Drop::All => body.push_str("counter drop\n"),
                Drop::Udp { port, to } if to.is_empty() => {
                    let _ = writeln!(body, "udp dport {port} counter drop");
                }
                Drop::Udp { port, to } => {
                    for addr in to {
                        let ip = word(*addr);
                        let _ = writeln!(body, "{ip} daddr {addr} udp dport {port} counter drop");
                    }
                }
                Drop::Ports { ports: (first, last), to } => {
                    for addr in to {
                        let ip = word(*addr);
                        let ports = format!("meta l4proto {{ tcp, udp }} th dport {first}-{last}");
                        let _ = writeln!(body, "{ip} daddr {addr} {ports} counter drop");
                    }
                }
            }
        }
        body.push_str("}\n");
    }
    Table::new(Family::Netdev, name, body)
}

/// A port of this machine that leads its own processes somewhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPort {
    /// The machine's address; none: any of them, the loopback's too.
    pub address: Option<IpAddr>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
    /// Where it leads: an address of the same family, and its port.
    pub target: (IpAddr, u16),
}

/// Leads what this machine's processes send to ports of their own machine by `device` to somebody else, as whom the address
/// of that device asks: what a process sends to its own machine never comes to a dataplane.
///
/// # Errors
/// If a name can't be written in nft's language.
pub fn local_ports(name: &str, device: &str, ports: &[LocalPort]) -> Result<Table, NftError> {
    checked(device)?;
    let mut body = String::from("chain output {\ntype nat hook output priority -100; policy accept;\n");
    for LocalPort { address, protocol, port, target: (to, to_port) } in ports {
        checked(protocol)?;
        let (ip, family) = if to.is_ipv4() { ("ip", "ipv4") } else { ("ip6", "ipv6") };
        let to = if to.is_ipv4() { to.to_string() } else { format!("[{to}]") };
        let own = match address {
            Some(address) => format!("{ip} daddr {address}"),
            None => format!("meta nfproto {family} fib daddr type local"),
        };
        let _ = writeln!(body, "{own} {protocol} dport {port} dnat {ip} to {to}:{to_port}");
    }
    body.push_str("}\nchain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n");
    for LocalPort { protocol, target: (to, to_port), .. } in ports {
        let ip = word(*to);
        let _ = writeln!(
            body,
            "oifname \"{device}\" ct status dnat {ip} daddr {to} {protocol} dport {to_port} masquerade"
        );
    }
    body.push_str("}\n");
    Table::new(Family::Inet, name, body)
}

/// Gives pods' traffic to the outside the node's address: what comes from one of `pods`, leaves by `device`
/// and does not go to one of `cluster`.
///
/// # Errors
/// If a name can't be written in nft's language.
pub fn masquerade(name: &str, device: &str, pods: &[Prefix], cluster: &[Prefix]) -> Result<Table, NftError> {
    checked(device)?;
    let mut body =
        String::from("chain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n");
    for pod in pods {
        let ip = word(pod.addr);
        let _ = write!(body, "oifname \"{device}\" {ip} saddr {}", pod.network());
        let stay: Vec<String> = cluster
            .iter()
            .filter(|range| range.is_ipv4() == pod.is_ipv4())
            .map(|range| range.network().to_string())
            .collect();
        if !stay.is_empty() {
            // Prefixes of a set may not overlap; one match each may.
            for range in stay {
                let _ = write!(body, " {ip} daddr != {range}");
            }
        }
        body.push_str(" counter masquerade\n");
    }
    body.push_str("}\n");
    Table::new(Family::Inet, name, body)
}

fn word(addr: IpAddr) -> &'static str {
    if addr.is_ipv4() { "ip" } else { "ip6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_what_they_should() {
        let to = vec!["172.18.0.1".parse().unwrap()];
        let drops = vec![Drop::Udp { port: 4789, to: to.clone() }, Drop::Ports { ports: (30000, 32767), to }];
        let table = ingress_drops("loxi_a", &[("eth0", drops), ("hs1", vec![Drop::All])]).unwrap();
        let script = table.script();
        assert!(script.contains("ip daddr 172.18.0.1 udp dport 4789 counter drop"), "{script}");
        let ports = "ip daddr 172.18.0.1 meta l4proto { tcp, udp } th dport 30000-32767 counter drop";
        assert!(script.contains(ports), "{script}");
        assert!(script.contains("device \"hs1\""), "{script}");
        let port = |address: Option<&str>, target: &str| LocalPort {
            address: address.map(|text| text.parse().unwrap()),
            protocol: "tcp",
            port: 80,
            target: (target.parse().unwrap(), 8080),
        };
        let ports = [port(Some("127.0.0.1"), "10.244.1.10"), port(None, "fd00:1::a")];
        let script = local_ports("loxi_a_hs1", "loxi_host", &ports).unwrap().script();
        for rule in [
            "ip daddr 127.0.0.1 tcp dport 80 dnat ip to 10.244.1.10:8080",
            "meta nfproto ipv6 fib daddr type local tcp dport 80 dnat ip6 to [fd00:1::a]:8080",
            "oifname \"loxi_host\" ct status dnat ip daddr 10.244.1.10 tcp dport 8080 masquerade",
        ] {
            assert!(script.contains(rule), "{rule}: {script}");
        }
        let pods = ["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        let cluster = ["10.244.0.0/16".parse().unwrap()];
        let script = masquerade("loxi_a", "eth0", &pods, &cluster).unwrap().script();
        let rule = "oifname \"eth0\" ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 counter masquerade";
        assert!(script.contains(rule), "{script}");
        assert!(script.contains("ip6 saddr fd00:1::/64 counter masquerade"), "{script}");
    }

    #[test]
    fn names_can_not_carry_rules() {
        for bad in ["", "a b", "a\";drop", "1a", "a{", "é"] {
            assert!(matches!(ingress_drops(bad, &[]), Err(NftError::BadName { .. })), "{bad}");
            let devices = [(bad, vec![Drop::All])];
            assert!(ingress_drops("ok", &devices).is_err(), "{bad}");
            assert!(masquerade("ok", bad, &[], &[]).is_err(), "{bad}");
        }
    }
}
