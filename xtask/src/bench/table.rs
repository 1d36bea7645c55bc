//! Tables for a terminal and for a document, from one source.

use std::fmt::Write as _;

pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Aligned columns: the first to the left, the others to the right.
    pub(crate) fn text(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
        };
        let mut text = String::new();
        for line in lines() {
            for (column, cell) in line.iter().enumerate() {
                let width = width(column).unwrap_or(0);
                let _infallible = if column == 0 {
                    write!(text, "{cell:width$}")
                } else {
                    write!(text, "  {cell:>width$}")
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|---|", self.head.join(" | "));
        text.push_str(&"--:|".repeat(self.head.len().saturating_sub(1)));
        text.push('\n');
        for row in &self.rows {
            let _infallible = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

/// A figure with about three digits; a dash where there is none.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() || size.is_infinite() => "–".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The figure in the middle, or the mean of the two in the middle; nothing of nothing.
pub(crate) fn median_of(figures: &mut [f64]) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    let upper = *figures.get(half)?;
    let lower = if figures.len().is_multiple_of(2) { figures.get(half - 1) } else { None };
    Some(lower.map_or(upper, |lower| f64::midpoint(*lower, upper)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_table_twice() {
        let mut table = Table::new(["", "a"]);
        table.row(["speed", "1 000"]);
        assert_eq!(table.text(), "           a\nspeed  1 000\n");
        assert_eq!(table.markdown(), "|  | a |\n|---|--:|\n| speed | 1 000 |\n");
    }

    #[test]
    fn a_median_is_in_the_middle() {
        let check = |figures: &mut [f64], median| assert_eq!(median_of(figures), median);
        check(&mut [], None);
        check(&mut [7.0], Some(7.0));
        check(&mut [3.0, 1.0], Some(2.0));
        check(&mut [9.0, 1.0, 2.0], Some(2.0));
        check(&mut [9.0, 1.0, 4.0, 2.0], Some(3.0));
    }

    #[test]
    fn figures_have_three_digits() {
        let shown = [1234.5, 12.34, 0.123, f64::NAN].map(figure);
        assert_eq!(shown, ["1234", "12.3", "0.12", "–"]);
    }
}
