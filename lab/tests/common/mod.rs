//! What the privileged tests share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeSet;

use lab::plan::Plan;
use lab::world;
use loxi_linux::netns::NetNs;
use loxi_linux::rtnetlink::Rtnl;

/// Whether the test can run; if not, says why.
pub fn privileged(test: &str) -> bool {
    match NetNs::anonymous() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED {test}: no network namespaces can be made here: {error}");
            false
        }
    }
}

/// A plan that no other test has, also not one of a process running beside this one.
pub fn plan(what: &str) -> Plan {
    Plan::new(&format!("t{}-{what}", std::process::id())).unwrap()
}

/// What an instance could leave on this machine. Folders of other labs come and go.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    links: BTreeSet<String>,
    run: BTreeSet<String>,
    netns: BTreeSet<String>,
    mounts: Vec<String>,
    own: bool,
}

pub fn state(plan: &Plan) -> State {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let own = world::folder(plan);
    let text = own.to_str().unwrap().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let links = Rtnl::open().unwrap().links().unwrap();
    State {
        links: links.into_iter().map(|link| link.name).collect(),
        run: names("/run").into_iter().filter(|name| name != "loxi-lab").collect(),
        netns: names("/run/netns"),
        mounts: mounts.lines().filter(|line| line.contains(&text)).map(str::to_owned).collect(),
        own: own.exists() || own.with_extension("lock").exists(),
    }
}
