//! The world comes up, goes away, and is its own instance's alone.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod fixture;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use fixture::{plan, privileged, state};
use lab::plan::{Plan, Spot};
use lab::world::{Removed, World, WorldError, folder, remove};
use loxi_linux::netns::NetNs;
use loxi_linux::place::Place;
use loxi_linux::rtnetlink::Rtnl;

#[test]
fn it_comes_up_and_leaves_nothing() {
    if !privileged("it_comes_up_and_leaves_nothing") {
        return;
    }
    let plan = plan("updown");
    let before = state(&plan);
    let world = World::create(&plan).unwrap();
    assert_ne!(state(&plan), before, "something is there that can be looked for");
    for spot in Spot::all() {
        assert!(world.spot(spot).is_some(), "{spot}");
    }
    let of_node = world.mounts(1).unwrap().run(|| std::fs::read_dir("/run").unwrap().count()).unwrap();
    assert_eq!(of_node, 2, "a node's /run is its own: the cluster and the pods");
    world.remove().unwrap();
    assert_eq!(state(&plan), before);
    assert_eq!(remove(&plan).unwrap(), Removed::default());
    assert_eq!(state(&plan), before);
}

#[test]
fn one_at_a_time_has_an_instance() {
    if !privileged("one_at_a_time_has_an_instance") {
        return;
    }
    let plan = plan("claim");
    let world = World::create(&plan).unwrap();
    let holder = std::process::id().to_string();
    for error in [World::create(&plan).unwrap_err(), remove(&plan).unwrap_err()] {
        assert!(matches!(&error, WorldError::Taken { holder: who, .. } if *who == holder), "{error}");
    }
    assert!(world.spot(Spot::Node(1)).unwrap().run(|| Rtnl::open().is_ok()).unwrap(), "it is untouched");
    drop(world);
    drop(World::create(&plan).unwrap());
}

/// What [`killed`] starts: a lab that waits to be killed. By itself it does nothing.
#[test]
fn held_until_killed() {
    let Ok(instance) = std::env::var("LAB_TEST_HOLD") else { return };
    let world = World::create(&Plan::new(&instance).unwrap()).unwrap();
    let place = Place { net: world.spot(Spot::Node(1)), mounts: world.mounts(1) };
    let mut child = place.spawn(Command::new("sleep").arg("60").stdout(Stdio::null())).unwrap();
    println!("\nup {}", child.id());
    std::io::stdout().flush().unwrap();
    child.wait().unwrap();
}

/// Starts a lab in a process of its own, with a program on a node, and kills it.
fn killed(plan: &Plan) -> u32 {
    let mut holder: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "held_until_killed", "--nocapture"])
        .env("LAB_TEST_HOLD", plan.instance())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(holder.stdout.take().unwrap());
    let up = output.lines().map(Result::unwrap).find_map(|line| line.strip_prefix("up ")?.parse().ok());
    holder.kill().unwrap();
    holder.wait().unwrap();
    up.expect("the holder has made its world")
}

/// Takes away what a killed lab has left, also when the test fails before it does so itself.
struct Swept<'a>(&'a Plan);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        let _ = remove(self.0);
    }
}

#[test]
fn what_a_killed_lab_leaves_goes_by_its_label() {
    if !privileged("what_a_killed_lab_leaves_goes_by_its_label") {
        return;
    }
    let (plan, beside) = (plan("killed"), plan("beside"));
    let _swept = Swept(&plan);
    let before = state(&plan);
    let bystander = World::create(&beside).unwrap();
    let (there, sleeper) = (state(&beside), killed(&plan));
    assert_ne!(state(&plan), before, "a killed lab leaves something");
    // One that has ended and that nobody has asked for yet has no command line.
    let alive = || std::fs::read(format!("/proc/{sleeper}/cmdline")).is_ok_and(|line| !line.is_empty());
    // One that has only just begun has none yet: its parent goes on before the kernel has put it there.
    let since = std::time::Instant::now();
    while !alive() && since.elapsed() < std::time::Duration::from_secs(10) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(alive());

    let removed = remove(&plan).unwrap();
    assert_eq!(removed, Removed { processes: 1, namespaces: Spot::all().len() });
    assert!(!alive());
    assert_eq!(state(&beside), there, "the other lab is untouched");
    assert!(
        bystander.spot(Spot::Wire).unwrap().run(|| Rtnl::open().unwrap().links().unwrap().len()).unwrap() > 3
    );
    bystander.remove().unwrap();
    assert_eq!(state(&plan), before);

    // The next start does the same by itself.
    killed(&plan);
    World::create(&plan).unwrap().remove().unwrap();
    assert_eq!(state(&plan), before);
}

#[test]
fn half_made_remains_are_removed() {
    if !privileged("half_made_remains_are_removed") {
        return;
    }
    let plan = plan("half");
    let before = state(&plan);
    // Killed between making a namespace's file and binding the namespace to it.
    std::fs::create_dir_all(folder(&plan).join("netns")).unwrap();
    std::fs::write(folder(&plan).join("netns/n1"), "").unwrap();
    NetNs::create_at(folder(&plan).join("netns/wire")).unwrap();
    assert_eq!(remove(&plan).unwrap(), Removed { processes: 0, namespaces: 2 });
    assert_eq!(state(&plan), before);
}
