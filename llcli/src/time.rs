//! Points in time: of CLOCK_BOOTTIME, as the dataplane counts.

use crate::failure::Failure;
use loxi_core::packet::Timestamp;

/// Now, on this machine.
pub(crate) fn now() -> Timestamp {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp(seconds.saturating_mul(Timestamp::SECOND).saturating_add(nanoseconds))
}

/// Reads a time: `12.5`, `12.5s`, `12500000000ns`; after `+`, from `now` on.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let bad =
        || Failure::Input(format!("--at: `{text}` is no time (expected 12.5, 12.5s, 12500000000ns or +5s)"));
    let (start, rest) = match text.strip_prefix('+') {
        Some(rest) => (now.0, rest),
        None => (0, text),
    };
    let nanoseconds = match rest.strip_suffix("ns") {
        Some(number) => number.parse::<u64>().map_err(|_| bad())?,
        None => seconds(rest.strip_suffix('s').unwrap_or(rest)).ok_or_else(bad)?,
    };
    start.checked_add(nanoseconds).map(Timestamp).ok_or_else(bad)
}

/// Decimal seconds in nanoseconds, exactly.
fn seconds(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 {
        return None;
    }
    let part: u64 = format!("{part:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(Timestamp::SECOND)?.checked_add(part)
}

/// A distance in words: `3s`, `5m12s`, `2h03m`.
pub(crate) fn span(nanoseconds: u64) -> String {
    let seconds = nanoseconds / Timestamp::SECOND;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        let now = Timestamp(1_000);
        let read = |text| parse(text, now).map(|time| time.0).ok();
        assert_eq!(read("12.5"), Some(12_500_000_000));
        assert_eq!(read("0.000000001s"), Some(1));
        assert_eq!(read("18446744073709551615ns"), Some(u64::MAX));
        assert_eq!(read("+1s"), Some(1_000_001_000));
        assert_eq!(read("+5ns"), Some(1_005));
        for bad in ["", "s", "-1", "1e3", "1.", ".5", "1.0000000001", "99999999999999s", "+-1", "1 s", "nan"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn spans_are_short() {
        let s = |seconds: u64| span(seconds * Timestamp::SECOND);
        assert_eq!((s(7), s(61), s(7260)), ("7s".to_owned(), "1m01s".to_owned(), "2h01m".to_owned()));
    }
}
