//! Answers as the versions of CNI write them.

use loxi_cni_proto::{Attached, Dns, Failure};
use serde_json::{Map, Value, json};

use crate::version::Version;

/// The answer to VERSION.
#[must_use]
pub fn versions(version: Version) -> String {
    text(&json!({
        "cniVersion": version.text(),
        "supportedVersions": Version::ALL.map(Version::text),
    }))
}

/// An error.
#[must_use]
pub fn failure(version: Version, failure: &Failure) -> String {
    let mut value = json!({ "cniVersion": version.text(), "code": failure.code, "msg": failure.msg });
    if !failure.details.is_empty() {
        value["details"] = failure.details.as_str().into();
    }
    text(&value)
}

/// The answer to ADD.
#[must_use]
pub fn attached(version: Version, attached: &Attached) -> String {
    let interfaces = attached.interfaces.iter().map(|interface| {
        let mut value = Map::new();
        value.insert("name".into(), interface.name.as_str().into());
        put(&mut value, "mac", &interface.mac);
        if version >= Version::V1_1 && interface.mtu > 0 {
            value.insert("mtu".into(), interface.mtu.into());
        }
        put(&mut value, "sandbox", &interface.sandbox);
        Value::Object(value)
    });
    let ips = attached.ips.iter().map(|ip| {
        let mut value = Map::new();
        if version < Version::V1_0 {
            let family = if ip.address.contains(':') { "6" } else { "4" };
            value.insert("version".into(), family.into());
        }
        value.insert("interface".into(), ip.interface.into());
        value.insert("address".into(), ip.address.as_str().into());
        put(&mut value, "gateway", &ip.gateway);
        Value::Object(value)
    });
    let routes = attached.routes.iter().map(|route| {
        let mut value = Map::new();
        value.insert("dst".into(), route.dst.as_str().into());
        put(&mut value, "gw", &route.gw);
        Value::Object(value)
    });
    text(&json!({
        "cniVersion": version.text(),
        "interfaces": interfaces.collect::<Vec<_>>(),
        "ips": ips.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "dns": attached.dns.as_ref().map_or_else(|| json!({}), dns),
    }))
}

fn dns(dns: &Dns) -> Value {
    let mut value = Map::new();
    for (name, list) in
        [("nameservers", &dns.nameservers), ("search", &dns.search), ("options", &dns.options)]
    {
        if !list.is_empty() {
            value.insert(name.into(), json!(list));
        }
    }
    put(&mut value, "domain", &dns.domain);
    Value::Object(value)
}

/// A text that may be left out.
fn put(object: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        object.insert(name.into(), text.into());
    }
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}
