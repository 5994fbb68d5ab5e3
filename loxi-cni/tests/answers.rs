//! Answers as each version of CNI writes them. `LOXI_GENERATE=1` writes the files anew, for a reader to judge.
#![allow(clippy::unwrap_used, reason = "a test's steps fail like the test")]

use std::path::Path;

use loxi_cni::output;
use loxi_cni::version::Version;
use loxi_cni_proto::{Address, Attached, Dns, Failure, Interface, Route};

fn pod() -> Attached {
    let interface = |name: &str, sandbox: &str, mac: &str| Interface {
        name: name.into(),
        mac: mac.into(),
        mtu: 1450,
        sandbox: sandbox.into(),
    };
    let address = |address: &str, gateway: &str| Address {
        address: address.into(),
        gateway: gateway.into(),
        interface: 1,
    };
    let route = |dst: &str, gw: &str| Route { dst: dst.into(), gw: gw.into() };
    Attached {
        interfaces: vec![
            interface("hs1", "", "02:00:00:00:00:01"),
            interface("eth0", "/run/netns/pod", "02:00:00:00:00:02"),
        ],
        ips: vec![
            address("10.244.1.10/24", "10.244.1.1"),
            address("fd00:10:244:1::a/64", "fd00:10:244:1::1"),
        ],
        routes: vec![route("0.0.0.0/0", "10.244.1.1"), route("::/0", "")],
        dns: Some(Dns {
            nameservers: vec!["10.96.0.10".into()],
            domain: "example".into(),
            search: vec!["svc.example".into()],
            options: vec!["ndots:5".into()],
        }),
    }
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("LOXI_GENERATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
}

#[test]
fn every_version_has_its_own_form() {
    for version in Version::ALL {
        compare(&format!("add-{}.json", version.text()), &output::attached(version, &pod()));
    }
}

#[test]
fn errors_and_versions_have_theirs() {
    let failure = Failure::new(11, "try again later").with_details("no podCIDR yet");
    compare("error.json", &output::failure(Version::V1_1, &failure));
    compare("versions.json", &output::versions(Version::V1_0));
}

#[test]
fn what_there_is_not_is_left_out() {
    let text = output::attached(Version::V1_1, &Attached::default());
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let empty = serde_json::json!({
        "cniVersion": "1.1.0", "interfaces": [], "ips": [], "routes": [], "dns": {},
    });
    assert_eq!(value, empty);
    assert!(!output::failure(Version::V1_1, &Failure::new(4, "x")).contains("details"));
}
