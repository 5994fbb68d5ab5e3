//! What the privileged tests share: namespaces that go away, also when a test fails.
#![allow(dead_code, reason = "each test file uses its part")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use loxi_linux::netns::{self, NetNs};
use loxi_linux::packet::{FrameError, FrameIo, PacketSocket, RxMeta};
use loxi_linux::place::Place;
use loxi_linux::rtnetlink::{LinkChange, OperState, Rtnl, VethEnd};

/// Whether the test can run; if not, says why.
pub fn privileged(test: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "it needs root to make network namespaces".into()
    } else if let Err(error) = NetNs::anonymous() {
        format!("this machine allows no network namespaces: {error}")
    } else {
        return true;
    };
    eprintln!("SKIPPED {test}: {reason}");
    false
}

/// A name that no other test uses, also not one of a process running beside this one.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("lx-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A folder that goes away.
pub struct Folder(pub std::path::PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(unique("dir"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap_or_else(|e| eprintln!("{}: {e}", self.0.display()));
    }
}

/// Runs a program in a namespace and returns what it printed.
pub fn run(ns: &NetNs, program: &str, args: &[&str]) -> String {
    let place = Place { net: Some(ns), mounts: None };
    let output = place.output(Command::new(program).args(args)).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program's JSON.
pub fn json(ns: &NetNs, program: &str, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&run(ns, program, args)).unwrap()
}

/// A veth between two namespaces, both ends up, without IPv6 chatter.
pub fn veth(a: &NetNs, a_name: &str, b: &NetNs, b_name: &str) {
    use std::os::fd::AsFd;
    for ns in [a, b] {
        let _guard = netns::enter(ns).unwrap();
        loxi_linux::sysctl::write("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    }
    {
        let _guard = netns::enter(a).unwrap();
        let far = VethEnd { netns: Some(b.as_fd()), ..VethEnd::new(b_name) };
        Rtnl::open().unwrap().veth_add(&VethEnd::new(a_name), &far).unwrap();
    }
    for (ns, name) in [(a, a_name), (b, b_name)] {
        let _guard = netns::enter(ns).unwrap();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        Rtnl::open().unwrap().link_set(name, &up).unwrap();
    }
    for (ns, name) in [(a, a_name), (b, b_name)] {
        ns.run(|| await_up(name)).unwrap();
    }
}

/// Waits for a link to carry: until a worker of the kernel has seen to it, frames are lost.
fn await_up(name: &str) {
    let mut rtnl = Rtnl::open().unwrap();
    for _ in 0..300 {
        if rtnl.link(name).unwrap().unwrap().oper_state == OperState::Up {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{name} does not come up");
}

/// A packet socket on a device of a namespace.
pub fn socket(ns: &NetNs, device: &str) -> PacketSocket {
    let _guard = netns::enter(ns).unwrap();
    PacketSocket::open(device).unwrap()
}

/// The next frame that `wanted` accepts.
pub fn await_frame(io: &mut dyn FrameIo, wanted: impl Fn(&[u8]) -> bool) -> Option<(Vec<u8>, RxMeta)> {
    let end = Instant::now() + Duration::from_secs(3);
    let mut frame = Vec::new();
    while Instant::now() < end {
        match io.recv(&mut frame) {
            Ok(Some(meta)) if wanted(&frame) => return Some((frame, meta)),
            Ok(Some(_)) => {}
            Ok(None) | Err(FrameError::Down { .. }) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    None
}

/// The sum of a TCP or UDP checksum over an IPv4 frame without options is all ones if it is right.
pub fn l4_checksum_is_right(frame: &[u8]) -> bool {
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let l4 = &frame[34..14 + total];
    let mut bytes = frame[26..34].to_vec();
    bytes.extend([0, frame[23]]);
    bytes.extend((l4.len() as u16).to_be_bytes());
    bytes.extend_from_slice(l4);
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}
