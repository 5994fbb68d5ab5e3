//! What the plugin makes of its environment and its input, before it asks anyone.
#![allow(clippy::unwrap_used, reason = "a test's steps fail like the test")]

use loxi_cni::input::{Input, MAX_CONFIG, Request, Verb};
use loxi_cni::run;
use proptest::prelude::*;
use serde_json::{Value, json};

const CONFIG: &str = r#"{"cniVersion":"1.1.0","name":"loxi","type":"loxi-cni","socket":"/nowhere/cni.sock"}"#;
const ADD: [(&str, &str); 6] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c0ffee"),
    ("CNI_NETNS", "/run/netns/pod"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin"),
    ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=a"),
];

/// The environment of an ADD with some variables changed; an empty one is as good as missing.
fn env(changes: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let all: Vec<(String, String)> =
        changes.iter().chain(&ADD).map(|(name, value)| ((*name).into(), (*value).into())).collect();
    move |name| all.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
}

/// The code of the error that is printed, and the whole of it.
fn error(changes: &[(&str, &str)], config: &str) -> (u64, Value) {
    let outcome = run(&env(changes), config.as_bytes());
    assert!(!outcome.success, "{}", outcome.stdout);
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
    (value["code"].as_u64().unwrap(), value)
}

#[test]
fn an_invocation_is_handed_over_as_it_was_given() {
    let input = Input::new(&env(&[]), CONFIG).unwrap();
    let Request::Ask { verb, socket, invocation } = input.request else { panic!("{input:?}") };
    assert_eq!((verb, socket.as_str()), (Verb::Add, "/nowhere/cni.sock"));
    assert_eq!(invocation.container_id, "c0ffee");
    assert_eq!(invocation.netns, "/run/netns/pod");
    assert_eq!(invocation.ifname, "eth0");
    assert_eq!(invocation.args, "IgnoreUnknown=1;K8S_POD_NAME=a");
    assert_eq!(invocation.cni_path, "/opt/cni/bin");
    assert_eq!(invocation.config, CONFIG);
    assert_eq!(invocation.cni_version, "1.1.0");
}

#[test]
fn the_socket_has_a_default() {
    let input = Input::new(&env(&[]), r#"{"cniVersion":"1.0.0","name":"loxi"}"#).unwrap();
    assert!(
        matches!(input.request, Request::Ask { socket, .. } if socket == "/run/loxi/default/agent/cni.sock")
    );
}

#[test]
fn what_a_verb_needs_is_demanded() {
    let needs: [(&str, &[&str]); 5] = [
        ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("GC", &["CNI_PATH"]),
        ("STATUS", &[]),
    ];
    for (command, needed) in needs {
        for (name, _) in &ADD[1..5] {
            let without = env(&[("CNI_COMMAND", command), (name, "")]);
            let made = Input::new(&without, CONFIG);
            if needed.contains(name) {
                let refused = made.unwrap_err();
                assert_eq!(refused.failure.code, 4, "{command} without {name}");
                assert!(refused.failure.msg.contains(name), "{}", refused.failure.msg);
            } else {
                made.unwrap_or_else(|refused| panic!("{command} without {name}: {}", refused.failure.msg));
            }
        }
    }
    assert_eq!(error(&[("CNI_COMMAND", "")], CONFIG).0, 4);
    assert_eq!(error(&[("CNI_COMMAND", "MAKE")], CONFIG).0, 4);
}

#[test]
fn nonsense_in_the_environment_is_refused() {
    for bad in ["../../etc", "-a", "a b", "a/b", ".."] {
        assert_eq!(error(&[("CNI_CONTAINERID", bad)], CONFIG).0, 4, "{bad}");
    }
    for bad in ["a/b", "..", ".", "a:b", "a b", "sixteen-letters-", "a\u{1}"] {
        assert_eq!(error(&[("CNI_IFNAME", bad)], CONFIG).0, 4, "{bad}");
    }
    assert!(Input::new(&env(&[("CNI_IFNAME", "fifteen-letters")]), CONFIG).is_ok());
}

#[test]
fn nonsense_in_the_configuration_is_refused() {
    for (code, config) in [
        (6, ""),
        (6, "{"),
        (6, "[]"),
        (6, r#"{"cniVersion":1,"name":"loxi"}"#),
        (1, r#"{"name":"loxi"}"#),
        (1, r#"{"cniVersion":"0.3.1","name":"loxi"}"#),
        (1, r#"{"cniVersion":"2.0.0","name":"loxi"}"#),
        (7, r#"{"cniVersion":"1.0.0"}"#),
        (7, r#"{"cniVersion":"1.0.0","name":"../loxi"}"#),
        (7, r#"{"cniVersion":"1.0.0","name":"loxi","socket":"cni.sock"}"#),
        (7, r#"{"cniVersion":"1.0.0","name":"loxi","socket":7}"#),
    ] {
        assert_eq!(error(&[], config).0, code, "{config}");
    }
    let long = format!("{CONFIG}{}", " ".repeat(usize::try_from(MAX_CONFIG).unwrap()));
    assert_eq!(error(&[], &long).0, 6);
    let outcome = run(&env(&[]), &b"\xff"[..]);
    assert!(outcome.stdout.contains("\"code\": 6"), "{}", outcome.stdout);
}

#[test]
fn errors_are_in_the_version_that_was_asked_for() {
    let old = CONFIG.replace("1.1.0", "0.4.0");
    assert_eq!(error(&[("CNI_CONTAINERID", "")], &old).1["cniVersion"], "0.4.0");
    assert_eq!(error(&[], "{").1["cniVersion"], "1.1.0");
}

#[test]
fn a_verb_is_as_old_as_its_version() {
    for command in ["GC", "STATUS"] {
        let (code, value) = error(&[("CNI_COMMAND", command)], &CONFIG.replace("1.1.0", "1.0.0"));
        assert_eq!(code, 1, "{value}");
    }
}

#[test]
fn versions_are_said_to_any_probe() {
    for (config, version) in
        [(CONFIG.replace("1.1.0", "0.4.0"), "0.4.0"), (String::new(), "1.1.0"), ("{}".into(), "1.1.0")]
    {
        let probe = env(&[("CNI_COMMAND", "VERSION"), ("CNI_NETNS", "dummy"), ("CNI_CONTAINERID", "")]);
        let outcome = run(&probe, config.as_bytes());
        assert!(outcome.success);
        let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(value, json!({ "cniVersion": version, "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"] }));
    }
}

#[test]
fn an_agent_that_is_not_there_is_to_be_asked_again() {
    for (command, code) in [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)] {
        let (found, value) = error(&[("CNI_COMMAND", command)], CONFIG);
        assert_eq!(found, code, "{command}: {value}");
        assert!(value["msg"].as_str().unwrap().contains("/nowhere/cni.sock"), "{value}");
        assert_eq!(value["details"].as_str().unwrap().matches("os error 2").count(), 1, "{value}");
    }
}

proptest! {
    /// Whatever it is given, the plugin answers with one JSON value.
    #[test]
    fn anything_is_answered(
        command in "ADD|DEL|CHECK|GC|STATUS|VERSION|.{0,4}",
        container in ".{0,8}",
        ifname in ".{0,20}",
        config in r#"\{"cniVersion":"(1\.1\.0|.{0,5})","name":".{0,5}"\}|.{0,20}"#,
    ) {
        let env = env(&[("CNI_COMMAND", &command), ("CNI_CONTAINERID", &container), ("CNI_IFNAME", &ifname)]);
        match Input::new(&env, &config) {
            Ok(Input { request: Request::Ask { invocation, .. }, .. }) => {
                prop_assert!(!invocation.container_id.contains('/'));
                prop_assert!(!invocation.ifname.contains('/'));
            }
            Ok(_) => prop_assert_eq!(command, "VERSION"),
            Err(refused) => prop_assert!(matches!(refused.failure.code, 1 | 4 | 6 | 7)),
        }
    }
}
