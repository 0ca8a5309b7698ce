//! Sizes, times, rates, counts and switches as people write them, and back.

use std::time::Duration;

use slotcast::Rate;

/// Units of a size, with their bytes; a size is shown in the first that divides it.
const SIZE_UNITS: [(&str, u64); 6] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)];

/// Units of a time, with their nanoseconds; a time is shown in the first that fits.
const TIME_UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000_000), ("min", 60_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];

/// More decimals than anybody means. The limit keeps the arithmetic below inside a `u128`.
const MAX_DECIMALS: usize = 9;

/// Reads a size: bare bytes, or a number with a unit of 1,024 (`64k`, `1.5MiB`, `1 GiB`).
///
/// # Errors
/// One line that quotes the text and shows what is accepted.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = parse(text, &SIZE_UNITS, 1)
        .ok_or_else(|| format!("{text:?} is not a size; write bytes or a unit, as in 65536, 64k, 16MiB, 1GiB"))?;
    usize::try_from(bytes).map_err(|_| format!("{text:?} is more than this machine can address"))
}

/// Reads a time: bare seconds, or a number with a unit (`500ms`, `1.5s`, `10m`, `10min`, `1h`).
///
/// # Errors
/// One line that quotes the text and shows what is accepted.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let nanoseconds = parse(text, &TIME_UNITS, 1_000_000_000)
        .ok_or_else(|| format!("{text:?} is not a time; write seconds or a unit, as in 30, 500ms, 1.5s, 10min, 1h"))?;
    u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| format!("{text:?} is longer than centuries"))
}

/// Reads a rate: a bare whole number a second, or one with a unit (`100/s`, `90/min`, `90/m`).
///
/// # Errors
/// One line that quotes the text and shows what is accepted.
pub fn parse_rate(text: &str) -> Result<Rate, String> {
    let (number, unit) = text.split_once('/').map_or((text, "s"), |(number, unit)| (number, unit.trim()));
    let per_minute = match unit {
        "s" => 60,
        "m" | "min" => 1,
        _ => 0,
    };
    if per_minute == 0 || !is_digits(number.trim()) {
        return Err(format!("{text:?} is not a rate; write a number a second or a minute, as in 100, 100/s, 90/min"));
    }
    let count = parse_count::<u32>(number)?.checked_mul(per_minute);
    count.map(Rate::per_minute).ok_or_else(|| format!("{text:?} is too large a number"))
}

/// Reads a whole number.
///
/// # Errors
/// One line that quotes the text.
pub fn parse_count<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let digits = text.trim();
    if !is_digits(digits) {
        return Err(format!("{text:?} is not a whole number"));
    }
    let number = digits.parse::<u64>().ok().and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| format!("{text:?} is too large a number"))
}

/// Reads a switch; only the environment gives it a value.
///
/// # Errors
/// One line that quotes the text.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("{text:?} is neither 1 (or true) nor 0 (or false)")),
    }
}

/// A size in the largest unit that loses nothing: `1MiB`, `1500`.
pub fn show_size(bytes: usize) -> String {
    let fits = |unit: u64| bytes > 0 && (bytes as u64).is_multiple_of(unit);
    match SIZE_UNITS.iter().find(|(_, unit)| fits(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes as u64 / unit),
        None => bytes.to_string(),
    }
}

/// A time in the largest unit that loses nothing; one minute and one hour are shown as `60s` and `60min`.
pub fn show_time(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    let fits = |unit: u128| {
        let least = if unit > 1_000_000_000 { 2 * unit } else { unit };
        nanoseconds >= least && nanoseconds.is_multiple_of(unit)
    };
    match TIME_UNITS.iter().find(|(_, unit)| fits(u128::from(*unit))) {
        Some((name, unit)) => format!("{}{name}", nanoseconds / u128::from(*unit)),
        None => format!("{}s", time.as_secs_f64()),
    }
}

/// Reads `NUMBER[.DECIMALS][UNIT]` in the smallest unit, rounded down; `None` for anything else. `bare` is the worth of
/// a number without a unit. A part of a byte is refused, because anyone who writes `1.5` forgot the unit.
fn parse(text: &str, units: &[(&str, u64)], bare: u64) -> Option<u128> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let worth = match unit {
        "" => bare,
        unit => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    let (whole, decimals) = match number.split_once('.') {
        Some((_, decimals)) if worth == 1 || !is_digits(decimals) || decimals.len() > MAX_DECIMALS => return None,
        Some(parts) => parts,
        None => (number, ""),
    };
    if !is_digits(whole) {
        return None;
    }
    let digits = u128::from(whole.parse::<u64>().ok()?) * 10_u128.pow(MAX_DECIMALS as u32)
        + format!("{decimals:0<MAX_DECIMALS$}").parse::<u128>().ok()?;
    digits.checked_mul(u128::from(worth)).map(|value| value / 10_u128.pow(MAX_DECIMALS as u32))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let good: [(&str, usize); 14] = [
            ("0", 0),
            ("1", 1),
            ("65536", 65536),
            ("1k", 1024),
            ("1K", 1024),
            ("8KiB", 8192),
            ("8kib", 8192),
            ("1m", 1 << 20),
            ("16MiB", 16 << 20),
            ("16 MiB", 16 << 20),
            (" 1g ", 1 << 30),
            ("1GiB", 1 << 30),
            ("1.5k", 1536),
            ("0.5MiB", 1 << 19),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        // MB and kB are refused, not guessed at: half of the world means 1,000.
        let bad = [
            "",
            "k",
            "-1",
            "+1",
            "1.5",
            "1.",
            ".5k",
            "1..5k",
            "1.5.k",
            "1MB",
            "1kB",
            "1x",
            "1_000",
            "0x10",
            "1k k",
            "٣",
            "1.0000000001k",
            "99999999999999999999",
            "1\n2",
        ];
        for text in bad {
            let said = parse_size(text).unwrap_err();
            assert!(said.contains("is not a size; write") && said.lines().count() == 1, "{text}: {said}");
        }
        assert!(parse_size("18446744073709551615g").unwrap_err().contains("address"));
    }

    #[test]
    fn times() {
        let good: [(&str, u64); 12] = [
            ("0", 0),
            ("30", 30_000),
            ("1.5", 1_500),
            ("500ms", 500),
            ("0.5ms", 0),
            ("1.5s", 1_500),
            ("2 s", 2_000),
            ("10m", 600_000),
            ("10min", 600_000),
            ("1h", 3_600_000),
            ("24h", 86_400_000),
            ("0.25h", 900_000),
        ];
        for (text, milliseconds) in good {
            assert_eq!(parse_time(text).map(|time| time.as_millis() as u64), Ok(milliseconds), "{text}");
        }
        assert_eq!(parse_time("0.5ms"), Ok(Duration::from_micros(500)));
        for text in ["", "s", "-1s", "1d", "1us", "1 s s", "1.s", "soon", "1e3"] {
            let said = parse_time(text).unwrap_err();
            assert!(said.contains("is not a time; write"), "{text}: {said}");
        }
        assert!(parse_time("9999999999999h").unwrap_err().contains("centuries"));
    }

    #[test]
    fn rates() {
        for (text, rate, shown) in [
            ("0", Rate::UNLIMITED, "0/s"),
            ("0/min", Rate::UNLIMITED, "0/s"),
            ("100", Rate::per_second(100), "100/s"),
            ("100/s", Rate::per_second(100), "100/s"),
            (" 6000 / min ", Rate::per_second(100), "100/s"),
            ("90/m", Rate::per_minute(90), "90/min"),
            ("71582788/s", Rate::per_second(71_582_788), "71582788/s"),
        ] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
            assert_eq!((rate.to_string().as_str(), parse_rate(shown)), (shown, Ok(rate)));
        }
        for text in ["", "/s", "s", "-1/s", "1.5/s", "1/h", "1/", "1/s/s", "100 s", "1/S", "many"] {
            let said = parse_rate(text).unwrap_err();
            assert!(said.contains("is not a rate; write") && said.lines().count() == 1, "{text}: {said}");
        }
        for text in ["71582789/s", "4294967296/min"] {
            assert!(parse_rate(text).unwrap_err().contains("too large"), "{text}");
        }
    }

    #[test]
    fn counts_and_switches() {
        assert_eq!(parse_count::<usize>("100"), Ok(100));
        assert_eq!(parse_count::<u32>(" 7 "), Ok(7));
        assert!(parse_count::<u32>("4294967296").unwrap_err().contains("too large"));
        assert!(parse_count::<u32>("99999999999999999999999").unwrap_err().contains("too large"));
        for text in ["", "1.5", "-1", "+1", "1k", "many"] {
            assert!(parse_count::<usize>(text).unwrap_err().contains("is not a whole number"), "{text}");
        }
        for (text, value) in [("1", Some(true)), ("true", Some(true)), ("0", Some(false)), ("false", Some(false))] {
            assert_eq!(parse_switch(text).ok(), value, "{text}");
        }
        for text in ["", "yes", "2"] {
            assert!(parse_switch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for (bytes, shown) in [(0, "0"), (1000, "1000"), (1024, "1KiB"), (1536, "1536"), (1 << 20, "1MiB")] {
            assert_eq!(show_size(bytes), shown);
            assert_eq!(parse_size(shown), Ok(bytes));
        }
        let times =
            [(0, "0s"), (500, "500ms"), (1_500, "1500ms"), (1_000, "1s"), (60_000, "60s"), (3_600_000, "60min")];
        for (milliseconds, shown) in times {
            assert_eq!(show_time(Duration::from_millis(milliseconds)), shown);
            assert_eq!(parse_time(shown), Ok(Duration::from_millis(milliseconds)));
        }
    }
}
