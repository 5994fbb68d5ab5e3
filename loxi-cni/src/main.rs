//! The plugin's process: everything is in the library.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A variable that is no UTF-8 is as good as missing: no runtime means it.
    let outcome = loxi_cni::run(&|name| std::env::var(name).ok(), std::io::stdin().lock());
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(outcome.stdout.as_bytes()).and_then(|()| stdout.flush());
    if outcome.success && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
