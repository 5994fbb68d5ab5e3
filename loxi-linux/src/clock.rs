//! The one clock of the dataplane: `CLOCK_BOOTTIME` in nanoseconds.
//!
//! It is monotonic and counts the time a machine sleeps, so that a flow's age
//! means the same before and after a suspension. It never fails on Linux.

/// Nanoseconds since boot.
#[must_use]
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_goes_forward() {
        let first = super::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(super::now() >= first + 2_000_000);
    }
}
