//! The world comes up and goes away.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use lab::plan::Plan;
use lab::world::{World, remove};

#[test]
fn up_down() {
    let plan = Plan::new("t1").unwrap();
    let t = std::time::Instant::now();
    let world = World::create(&plan).unwrap();
    eprintln!("{:?}", t.elapsed());
    if std::env::var("STAY").is_ok() {
        std::thread::sleep(std::time::Duration::from_secs(30));
    }
    world.remove().unwrap();
    eprintln!("{:?}", t.elapsed());
    assert_eq!(remove(&plan).unwrap(), Default::default());
}
