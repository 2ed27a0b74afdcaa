//! Numbers in few columns, and their course in one.

/// A number in at most six columns: "0", "999", "1.23k", "45.6M".
pub(super) fn short(number: u64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    if number < 1000 {
        return number.to_string();
    }
    let (mut scaled, mut unit) = (number, 0);
    let mut below = 0;
    while scaled >= 1000 {
        below = scaled % 1000;
        scaled /= 1000;
        unit += 1;
    }
    let unit = UNITS[unit];
    match scaled {
        ..10 => format!("{scaled}.{:02}{unit}", below / 10),
        10..100 => format!("{scaled}.{}{unit}", below / 100),
        _ => format!("{scaled}{unit}"),
    }
}

/// Bytes a second as bits: "1.23Mbit".
pub(super) fn bits(bytes: u64) -> String {
    format!("{}bit", short(bytes.saturating_mul(8)))
}

/// The last values, each as a column of eighths of the largest of them.
pub(super) fn sparkline(
    values: impl DoubleEndedIterator<Item = u64> + Clone,
    width: usize,
) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let largest = values.clone().rev().take(width).max().unwrap_or(0);
    let level = |value: u64| match largest {
        0 => LEVELS[0],
        _ => {
            let level = u128::from(value) * 7 / u128::from(largest);
            LEVELS[usize::try_from(level).map_or(7, |level| level.min(7))]
        }
    };
    let newest_first: Vec<_> = values.rev().take(width).map(level).collect();
    let line: String = newest_first.into_iter().rev().collect();
    format!("{line:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_six_columns_at_most() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (12_345, "12.3k"),
            (999_999, "999k"),
            (1_234_567, "1.23M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(short(number), text);
            assert!(short(number).len() <= 6);
        }
        assert_eq!(bits(125_000), "1.00Mbit");
    }

    #[test]
    fn a_sparkline_ends_with_the_newest_and_is_as_wide_as_it_may_be() {
        assert_eq!(sparkline([0, 7, 14].into_iter(), 3), "▁▄█");
        assert_eq!(sparkline([99, 7, 14].into_iter(), 2), "▄█");
        assert_eq!(sparkline([5].into_iter(), 3), "  █");
        assert_eq!(sparkline([0, 0].into_iter(), 2), "▁▁");
    }
}
