//! Tables of plain text for a terminal.

/// Columns are as wide as necessary, two spaces apart; those in `right` are right-aligned.
pub(crate) fn render_table(head: Vec<String>, rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(&rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `42s`, `5m`, `3h05m`, `4d07h`.
pub(crate) fn format_age(ms: u64) -> String {
    let (s, m, h) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    match (s, m, h) {
        (0..60, ..) => format!("{s}s"),
        (_, 0..60, _) => format!("{m}m"),
        (.., 0..24) => format!("{h}h{:02}m", m % 60),
        _ => format!("{}d{:02}h", h / 24, h % 24),
    }
}

pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_formatted_briefly() {
        let check = |ms: u64, expected: &str| assert_eq!(format_age(ms), expected);
        check(0, "0s");
        check(59_999, "59s");
        check(60_000, "1m");
        check(3_600_000, "1h00m");
        check(90_000_000, "1d01h");
    }
}
