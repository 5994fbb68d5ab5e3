//! Loading while the process is stopped and goes on, as a shell or a freezer does it: the verifier
//! gives up then, without a fault of the programs.
#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::privileged;
use loxi_backend_ebpf::{Devices, Ebpf, Mode, Options, Sizes};
use std::process::Command;

#[test]
fn a_pause_of_the_process_fails_no_load() {
    if !privileged("a_pause_of_the_process_fails_no_load") {
        return;
    }
    let mut pauses = Command::new("sh");
    // Many at once: the loader's first repetition isn't enough.
    let pause = "for n in 1 2 3 4 5 6 7 8; do
        for m in 1 2 3 4 5 6; do kill -STOP $0; kill -CONT $0; sleep 0.01; done
        sleep 0.3
    done";
    let mut pauses = pauses.args(["-c", pause]).arg(std::process::id().to_string()).spawn().unwrap();
    let opened = loop {
        let options = Options {
            mode: Mode::Tc,
            sizes: Sizes { flows_v4: 1000, flows_v6: 1000 },
            devices: Devices::None,
            ..Options::default()
        };
        let opened = Ebpf::open(options).map(drop);
        // The last pauses may come when everything is loaded.
        if opened.is_err() || pauses.try_wait().unwrap().is_some() {
            break opened;
        }
    };
    pauses.wait().unwrap();
    if let Err(error) = opened {
        panic!("{}", error.to_string().chars().take(120).collect::<String>());
    }
}
