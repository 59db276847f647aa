//! Lengths of time as people write them: `30s`, `500ms`, `2m`, `1h`, or a number of seconds.

use std::time::Duration;

/// Units by their suffix, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a length of time, exact to the millisecond.
///
/// # Errors
/// A sentence that says what is wrong and what would be right.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let refuse = || format!("{text:?} is no length of time; write 30s, 500ms, 1.5m or 1h, or a number of seconds");
    let unit = if unit.is_empty() { "s" } else { unit };
    let &(_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
        return Err(refuse());
    }
    let too_long = || format!("{text:?} is too long for a length of time");
    let mut millis = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(length)).ok_or_else(too_long)?;
    if !fraction.is_empty() {
        // Nine digits are more than a millisecond can show of any unit.
        let digits = &fraction[..fraction.len().min(9)];
        let scale = 10u128.pow(u32::try_from(digits.len()).unwrap_or(0));
        let part = u128::from(digits.parse::<u64>().map_err(|_| refuse())?) * u128::from(length) / scale;
        millis = millis.checked_add(u64::try_from(part).map_err(|_| too_long())?).ok_or_else(too_long)?;
    }
    Ok(Duration::from_millis(millis))
}

/// A length of time for people: two units at most, none smaller than a tenth of a second.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, show};
    use std::time::Duration;

    #[test]
    fn lengths_of_time_are_read_to_the_millisecond() {
        for (text, millis) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("7", 7_000),
            ("0", 0),
            ("0.25", 250),
            ("1.5m", 90_000),
            ("0.001s", 1),
            ("1.0000000000001s", 1_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_of_time_is_refused_with_an_example() {
        for text in
            ["", "s", "1 s", "-1", "+1", "1x", "1.", ".5", "1..5", "1.2.3s", "1e3", "٣s", "1S", "forever", "1s1"]
        {
            let error = parse(text).unwrap_err();
            assert!(error.contains("30s"), "{text}: {error}");
        }
        for text in ["99999999999999999999", "18446744073709551615h"] {
            assert!(parse(text).unwrap_err().contains("too long"), "{text}");
        }
    }

    #[test]
    fn lengths_are_shown_short() {
        for (millis, text) in [
            (0, "0.0s"),
            (1_240, "1.2s"),
            (42_000, "42s"),
            (61_000, "1m01s"),
            (7_260_000, "2h01m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
    }
}
