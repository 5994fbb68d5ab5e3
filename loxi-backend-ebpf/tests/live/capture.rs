//! What goes over a device, as dumpcap sees it: aggregates whole, checksums as they are.

use crate::fixture::privileged;
use loxi_linux::netns::NetNs;
use loxi_linux::place::Place;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Whether a test that captures can run; if not, says why.
pub fn able(test: &str) -> bool {
    let found = Command::new("dumpcap").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if let Err(error) = found {
        eprintln!("SKIPPED {test}: dumpcap, which comes with tshark: {error}");
        return false;
    }
    privileged(test)
}

/// A capture under way. It ends with this value.
pub struct Capture {
    child: Child,
    folder: tempfile::TempDir,
    device: String,
}

impl Capture {
    /// Captures what goes over a device, both ways, from now on.
    pub fn start(at: &NetNs, device: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("dumpcap");
        // Classic pcap, whole frames, a buffer that holds all of a test.
        command.args(["-P", "-q", "-s", "262144", "-B", "64", "-i", device, "-w"]);
        command.arg(folder.path().join("frames")).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Place { net: Some(at), mounts: None }.spawn(&mut command).unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // It names the file once its socket is open.
        let mut said = String::new();
        while !said.starts_with("File: ") {
            said = lines.next().expect("dumpcap has ended").unwrap();
        }
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, folder, device: device.to_owned() }
    }

    /// Ends it: the frames.
    pub fn stop(mut self) -> Vec<Vec<u8>> {
        // What the kernel holds for dumpcap is read within a block's time.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success(), "dumpcap at {}", self.device);
        frames(&std::fs::read(self.folder.path().join("frames")).unwrap())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The frames of a pcap file (draft-ietf-opsawg-pcap) of this machine's byte order.
fn frames(file: &[u8]) -> Vec<Vec<u8>> {
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    assert!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&word(0)), "no pcap");
    let (mut frames, mut at) = (Vec::new(), 24);
    while at < file.len() {
        let (kept, length) = (word(at + 8), word(at + 12));
        assert_eq!(kept, length, "a frame was cut off");
        frames.push(file[at + 16..at + 16 + kept].to_vec());
        at += 16 + kept;
    }
    frames
}
