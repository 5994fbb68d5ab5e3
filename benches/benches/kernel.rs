//! Net ns per packet of the eBPF backend and of the kernel's own forwarding, as root.
//! `cargo bench -p loxi-benches --bench kernel`, or with `-- --quick` for a first look; another word
//! measures what has it in its name only.

use anyhow::Result;
use loxi_benches::ebpf::{self, Effort};
use loxi_benches::record;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let quick = words.iter().any(|word| word == "--quick");
    let only = words.iter().find(|word| !word.starts_with('-')).map(String::as_str);
    if !rustix::process::geteuid().is_root() {
        println!("left out: eBPF and its peers, which need root");
        return Ok(());
    }
    // Tables with a value per processor, and the caches, are one processor's.
    let mut last = rustix::thread::CpuSet::new();
    last.set(std::thread::available_parallelism()?.get() - 1);
    rustix::thread::sched_setaffinity(None, &last)?;
    let effort = if quick { Effort::quick() } else { Effort::full() };
    let mut tell = |line: &str| println!("{line}");
    let mut figures = ebpf::run(&effort, only, &mut tell)?;
    figures.live = ebpf::live(&effort, only, &mut tell)?;
    if only.is_none() {
        let path = record::write(&figures)?;
        println!("figures are in {}", path.display());
    }
    Ok(())
}
