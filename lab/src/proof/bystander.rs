//! The kernel in the dataplane's namespace stands by: it has nothing with which it could forward or answer.

use loxi_linux::netns::NetNs;
use loxi_linux::rtnetlink::{Rtnl, RtnlError};
use loxi_linux::{nftables, sysctl};

/// What of the namespace could forward or answer, in words; nothing in a good one.
#[must_use]
pub fn suspicions(dataplane: &NetNs) -> Vec<String> {
    let look = || {
        let mut found = Vec::new();
        for (what, result) in [
            ("links and routes", links_and_routes()),
            ("rules", rules()),
            ("settings", settings()),
            ("counters", forwarded()),
        ] {
            match result {
                Ok(suspicions) => found.extend(suspicions),
                Err(error) => found.push(format!("{what} can't be looked at: {error}")),
            }
        }
        found
    };
    dataplane.run(look).unwrap_or_else(|error| vec![error.to_string()])
}

fn links_and_routes() -> Result<Vec<String>, String> {
    let text = |error: RtnlError| error.to_string();
    let mut rtnl = Rtnl::open().map_err(text)?;
    let mut found = Vec::new();
    for link in rtnl.links().map_err(text)? {
        match link.kind.as_deref() {
            Some("veth" | "tun") => {}
            None if link.name == "lo" => {}
            kind => found.push(format!("{} is a {}", link.name, kind.unwrap_or("device of unknown kind"))),
        }
        if link.master.is_some() {
            found.push(format!("{} is enslaved", link.name));
        }
    }
    for route in rtnl.routes().map_err(text)? {
        // The kernel makes this one itself on each link with IPv6.
        let own = matches!(route.dst.addr, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !own {
            found.push(format!("there is a route: {route}"));
        }
    }
    Ok(found)
}

fn rules() -> Result<Vec<String>, String> {
    let text = nftables::list_json().map_err(|error| error.to_string())?;
    let mut found = suspicious_rules(&text)?;
    // nft shows what iptables-nft has made; the old iptables lists its tables here.
    for file in ["ip_tables_names", "ip6_tables_names", "arp_tables_names"] {
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        if !names.trim().is_empty() {
            found.push(format!(
                "there are iptables tables: {}",
                names.split_whitespace().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    Ok(found)
}

/// Everything of a ruleset but chains at ingress that drop.
fn suspicious_rules(ruleset: &str) -> Result<Vec<String>, String> {
    let ruleset: serde_json::Value = serde_json::from_str(ruleset).map_err(|error| error.to_string())?;
    let items = ruleset["nftables"].as_array().ok_or("no list of rules")?;
    let mut found = Vec::new();
    for item in items {
        let Some((kind, body)) = item.as_object().and_then(|object| object.iter().next()) else { continue };
        let fine = match kind.as_str() {
            "metainfo" => true,
            "table" => body["family"] == "netdev",
            "chain" => body["family"] == "netdev" && body["hook"] == "ingress",
            "rule" => body["family"] == "netdev" && only_drops(&body["expr"]),
            _ => false,
        };
        if !fine {
            found.push(format!("nft has a {kind} that is no ingress drop: {body}"));
        }
    }
    Ok(found)
}

fn only_drops(expressions: &serde_json::Value) -> bool {
    let known = ["match", "counter", "drop"];
    let list = expressions.as_array().map(Vec::as_slice).unwrap_or_default();
    let all = list.iter().filter_map(|one| one.as_object()?.keys().next());
    let drops = list.last().is_some_and(|last| last.get("drop").is_some());
    drops && all.into_iter().all(|kind| known.contains(&kind.as_str()))
}

fn settings() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        let value = sysctl::read(key).map_err(|error| error.to_string())?;
        if value != "0" {
            found.push(format!("{key} is {value}"));
        }
    }
    Ok(found)
}

/// What the kernel itself says to have forwarded (RFC 4293's counters).
fn forwarded() -> Result<Vec<String>, String> {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).map_err(|error| error.to_string())
    };
    let mut found = Vec::new();
    let (v4, v6) = (read("snmp")?, read("snmp6")?);
    for (family, count) in
        [("IPv4", of_snmp(&v4, "ForwDatagrams")), ("IPv6", of_snmp6(&v6, "Ip6OutForwDatagrams"))]
    {
        match count {
            Some(0) => {}
            Some(count) => found.push(format!("the kernel has forwarded {count} {family} packets")),
            None => found.push(format!("the kernel does not say how many {family} packets it has forwarded")),
        }
    }
    Ok(found)
}

/// A value of the line `Ip:` below the names of the line before.
fn of_snmp(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Ip: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|word| word == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

fn of_snmp6(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ingress_drops_are_fine() {
        let rule = |family: &str, verdict: &str| {
            format!(
                r#"{{"nftables":[{{"metainfo":{{}}}},{{"table":{{"family":"netdev"}}}},
                {{"chain":{{"family":"netdev","hook":"ingress"}}}},
                {{"rule":{{"family":"{family}","expr":[{{"counter":{{}}}},{{"{verdict}":null}}]}}}}]}}"#
            )
        };
        assert_eq!(suspicious_rules(&rule("netdev", "drop")).unwrap(), Vec::<String>::new());
        for (family, verdict) in
            [("netdev", "accept"), ("netdev", "fwd"), ("inet", "drop"), ("ip", "masquerade")]
        {
            assert_eq!(suspicious_rules(&rule(family, verdict)).unwrap().len(), 1, "{family} {verdict}");
        }
        assert!(suspicious_rules("{}").is_err());
    }

    #[test]
    fn kernel_counters_are_read_by_name() {
        let snmp = "Ip: Forwarding DefaultTTL ForwDatagrams\nIp: 2 64 7\nIcmp: InMsgs\nIcmp: 0\n";
        assert_eq!(of_snmp(snmp, "ForwDatagrams"), Some(7));
        assert_eq!(of_snmp(snmp, "Other"), None);
        assert_eq!(of_snmp6("Ip6InReceives 3\nIp6OutForwDatagrams 5\n", "Ip6OutForwDatagrams"), Some(5));
    }
}
