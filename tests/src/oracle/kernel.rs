//! The Linux kernel as a device under test: a network namespace whose ports are TAPs held here.
//!
//! Writing a frame to a TAP is ingress, reading is egress; there is no other host, no
//! offload and no timer between. The kernel forwards within the write call, mostly; what
//! it defers comes within a moment, which [`Kernel::exchange`] waits for.
//! Everything disappears with the value.

use super::Frame;
use crate::wire;
use loxi_linux::netns::NetNs;
use loxi_linux::packet::{FrameIo, Tap, TapOptions};
use loxi_linux::place::Place;
use loxi_linux::{nftables, sysctl};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long an output that is expected may take.
const PATIENCE: Duration = Duration::from_millis(400);

/// How long an output may take that the step's known difference would bring.
const HOPE: Duration = Duration::from_millis(20);

/// How long an output that isn't expected may take to show up.
const GRACE: Duration = Duration::from_micros(400);

/// Settings that make the kernel comparable, with the reason.
const SETTINGS: &[(&str, &str)] = &[
    // Routers, without rate limits: ours is a bucket that the test keeps full.
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "1000000"),
    ("net.ipv4.icmp_msgs_burst", "1000000"),
    // No checks by the reverse route, which the reference leaves to anti-spoof.
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    // No redirects: one link per port, and the lab's routes are static.
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    // Errors come from the ingress interface, as RFC 1812 section 4.3.2.4 has it.
    ("net.ipv4.icmp_errors_use_inbound_ifaddr", "1"),
    // No chatter of the kernel's own.
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.default.addr_gen_mode", "1"),
    ("net.ipv6.auto_flowlabels", "0"),
    ("net.ipv6.flowlabel_reflect", "0"),
];

/// A port of the device.
#[derive(Debug, Clone, Copy)]
pub struct Device {
    /// Its name.
    pub name: &'static str,
    /// Its MAC.
    pub mac: &'static str,
    /// Its MTU.
    pub mtu: u32,
}

/// The device under test.
pub struct Kernel {
    namespace: NetNs,
    taps: Vec<Tap>,
}

impl Kernel {
    /// Makes a namespace with these ports, up and without addresses.
    #[must_use]
    pub fn new(devices: &[Device]) -> Self {
        let namespace = NetNs::anonymous().expect("a network namespace");
        let taps: Vec<Tap> = namespace
            .run(|| {
                for (key, value) in SETTINGS {
                    sysctl::write(key, value).expect("sysctl");
                }
                let open = |device: &Device| Tap::open(device.name, TapOptions::default()).expect("a TAP");
                devices.iter().map(open).collect()
            })
            .expect("enter the namespace");
        let kernel = Self { namespace, taps };
        kernel.ip("link set lo up");
        for device in devices {
            kernel.ip(&format!("link set {} address {} mtu {}", device.name, device.mac, device.mtu));
            kernel.ip(&format!("link set {} up", device.name));
        }
        kernel
    }

    /// Runs `ip` with these words.
    pub fn ip(&self, words: &str) {
        self.tool("ip", words);
    }

    /// Runs `bridge` with these words.
    pub fn bridge(&self, words: &str) {
        self.tool("bridge", words);
    }

    fn tool(&self, program: &str, words: &str) {
        let place = Place { net: Some(&self.namespace), mounts: None };
        let output = place.output(Command::new(program).args(words.split_whitespace())).expect(program);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {words}: {errors}");
    }

    /// Changes a setting.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.namespace.run(|| sysctl::write(key, value)).expect("enter").expect("sysctl");
    }

    /// Changes a setting that this kernel may not have (a module that isn't loaded).
    pub fn sysctl_if_there(&self, key: &str, value: &str) {
        match self.namespace.run(|| sysctl::write(key, value)).expect("enter") {
            Err(error) if !error.is_missing() => panic!("{error}"),
            _ => {}
        }
    }

    /// Applies an nftables script.
    pub fn nft(&self, script: &str) {
        self.namespace.run(|| nftables::apply_text(script)).expect("enter").expect("nft");
    }

    /// Throws away what the kernel says by itself after its configuration.
    pub fn settle(&mut self) {
        std::thread::sleep(Duration::from_millis(60));
        self.drain(&mut Vec::new());
    }

    /// Sends frames in and returns what comes out, sorted by port. `expected` is how many frames are
    /// waited for with patience; more are taken if they come at once, or a little later if `hoped`.
    pub fn exchange(&mut self, frames: &[Frame], expected: usize, hoped: bool) -> Vec<Frame> {
        let mut out = Vec::new();
        for frame in frames {
            // Refused by the TAP itself (shorter than a header): nothing can come of it.
            let _ = self.taps[frame.port].send(&frame.bytes);
            self.drain(&mut out);
        }
        // By looking again and again: a timer of this length would sleep for many times as long.
        let start = Instant::now();
        loop {
            let limit = match out.len() {
                got if got < expected => PATIENCE,
                0 if hoped => HOPE,
                _ => GRACE,
            };
            if start.elapsed() > limit {
                break;
            }
            std::thread::yield_now();
            self.drain(&mut out);
        }
        // Stable: frames of one port stay in order.
        out.sort_by_key(|frame| frame.port);
        out
    }

    fn drain(&mut self, out: &mut Vec<Frame>) {
        let mut bytes = Vec::new();
        for (port, tap) in self.taps.iter_mut().enumerate() {
            while tap.recv(&mut bytes).expect("read a TAP").is_some() {
                if !is_housekeeping(&bytes) {
                    out.push(Frame { port, bytes: bytes.clone() });
                }
            }
        }
    }
}

/// What a Linux host says unasked: multicast listener reports and router solicitations.
fn is_housekeeping(frame: &[u8]) -> bool {
    if let Some(inner) = wire::encapsulated(frame) {
        return is_housekeeping(&frame[inner..]);
    }
    if !wire::is_v6(frame) {
        return false;
    }
    let kind = match frame[wire::ETH + 6] {
        0 => frame.get(wire::ETH + 48),
        58 => frame.get(wire::ETH + 40),
        _ => None,
    };
    matches!(kind, Some(130..=133 | 143))
}
