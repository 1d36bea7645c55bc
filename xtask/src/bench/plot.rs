//! Draws messages per second over sessions as an SVG: a panel for each size and kind of connection, a
//! line for each server.

use std::fmt::Write as _;

/// One line of a panel: a value for each place on the horizontal axis, where there is one.
pub(crate) struct Line {
    pub(crate) name: String,
    /// Any CSS colour.
    pub(crate) colour: &'static str,
    pub(crate) dashed: bool,
    pub(crate) values: Vec<Option<f64>>,
}

pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

/// What is drawn.
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// The places on the horizontal axis, and what they are.
    pub(crate) places: Vec<String>,
    pub(crate) horizontal: &'static str,
    pub(crate) vertical: &'static str,
    pub(crate) panels: Vec<Panel>,
}

const PANEL_WIDTH: f64 = 480.0;
const PANEL_HEIGHT: f64 = 330.0;
const HEAD: f64 = 96.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 58.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 52.0;
/// Between the labels of two lines' ends.
const LABEL_GAP: f64 = 13.0;

impl Plot {
    pub(crate) fn svg(&self) -> String {
        let columns = self.panels.len().clamp(1, 2);
        let rows = self.panels.len().div_ceil(columns).max(1);
        let (width, height) = (PANEL_WIDTH * real(columns), HEAD + PANEL_HEIGHT * real(rows) + 8.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#333\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        text(
            &mut svg,
            (20.0, 30.0),
            "font-size=\"18\" font-weight=\"600\" fill=\"#111\"",
            &self.title,
        );
        text(&mut svg, (20.0, 50.0), "fill=\"#666\"", &self.subtitle);
        self.legend(&mut svg);
        let scale = Scale::of(&self.panels);
        for (place, panel) in self.panels.iter().enumerate() {
            let corner =
                (PANEL_WIDTH * real(place % columns), HEAD + PANEL_HEIGHT * real(place / columns));
            self.panel(&mut svg, corner, panel, &scale);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The names of all lines, each once, in their colours.
    fn legend(&self, svg: &mut String) {
        let mut names: Vec<&str> = Vec::new();
        let mut x = 20.0;
        // What is drawn last lies above the others and is named first.
        for line in self.panels.iter().flat_map(|panel| panel.lines.iter().rev()) {
            if names.contains(&line.name.as_str()) {
                continue;
            }
            names.push(&line.name);
            stroke(svg, &[(x, 74.0), (x + 26.0, 74.0)], line);
            text(svg, (x + 32.0, 78.0), "", &line.name);
            x += 56.0 + 7.2 * real(line.name.chars().count());
        }
    }

    fn panel(&self, svg: &mut String, corner: (f64, f64), panel: &Panel, scale: &Scale) {
        let (left, right) = (corner.0 + LEFT, corner.0 + PANEL_WIDTH - RIGHT);
        let (top, bottom) = (corner.1 + TOP, corner.1 + PANEL_HEIGHT - BOTTOM);
        let y = |value: f64| bottom - (bottom - top) * scale.share(value);
        let step = (right - left) / real(self.places.len().saturating_sub(1).max(1));
        let x = |place: usize| left + step * real(place);
        let bold = "font-weight=\"600\" font-size=\"13\"";
        text(svg, (left, corner.1 + 20.0), bold, &panel.title);
        for (value, label) in scale.marks() {
            let colour = if label.is_empty() { "#f2f2f2" } else { "#d9d9d9" };
            let _infallible = writeln!(
                svg,
                "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"{colour}\"/>",
                y(value)
            );
            text(svg, (left - 8.0, y(value) + 4.0), "text-anchor=\"end\"", &label);
        }
        for (place, label) in self.places.iter().enumerate() {
            text(svg, (x(place), bottom + 18.0), "text-anchor=\"middle\"", label);
        }
        let middle = f64::midpoint(left, right);
        let grey = "text-anchor=\"middle\" fill=\"#666\"";
        text(svg, (middle, bottom + 36.0), grey, self.horizontal);
        let middle = f64::midpoint(top, bottom);
        let turned = format!("{grey} transform=\"rotate(-90 {:.1} {middle:.1})\"", corner.0 + 18.0);
        text(svg, (corner.0 + 18.0, middle), &turned, self.vertical);
        let mut ends = Vec::new();
        for line in &panel.lines {
            let points: Vec<_> = line
                .values
                .iter()
                .enumerate()
                .filter_map(|(place, value)| Some((x(place), y((*value)?))))
                .collect();
            stroke(svg, &points, line);
            let last = line.values.iter().rev().find_map(|value| *value);
            if let (Some(&end), Some(value)) = (points.last(), last) {
                ends.push((end, value, line));
            }
        }
        label_ends(svg, ends);
    }
}

/// Writes the value at the end of each line, one below the other where they would meet.
fn label_ends(svg: &mut String, mut ends: Vec<((f64, f64), f64, &Line)>) {
    ends.sort_by(|((x, y), ..), ((other_x, other_y), ..)| {
        x.total_cmp(other_x).then(y.total_cmp(other_y))
    });
    let (mut column, mut free) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for ((x, y), value, line) in ends {
        if x > column {
            (column, free) = (x, f64::NEG_INFINITY);
        }
        let y = (y + 4.0).max(free);
        free = y + LABEL_GAP;
        let colour = format!("fill=\"{}\" font-size=\"11\"", line.colour);
        text(svg, (x + 8.0, y), &colour, &thousands(value));
    }
}

/// A logarithmic axis over whole powers of ten.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(panels: &[Panel]) -> Self {
        let values = panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.values);
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.copied().flatten().filter(|value| *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        if high == 0.0 {
            (low, high) = (1.0, 10.0);
        }
        Self { low: low.log10().floor(), high: high.log10().ceil() }
    }

    /// Where a value lies between the ends.
    fn share(&self, value: f64) -> f64 {
        let span = (self.high - self.low).max(1.0);
        ((value.max(1e-9).log10() - self.low) / span).clamp(0.0, 1.0)
    }

    /// Lines across the panel; powers of ten have labels.
    fn marks(&self) -> Vec<(f64, String)> {
        let mut marks = Vec::new();
        let mut power = self.low;
        while power <= self.high {
            let value = 10_f64.powf(power);
            marks.push((value, thousands(value)));
            if power < self.high {
                marks.extend([2.0, 5.0].map(|times| (value * times, String::new())));
            }
            power += 1.0;
        }
        marks
    }
}

fn stroke(svg: &mut String, points: &[(f64, f64)], line: &Line) {
    let mut path = String::new();
    for (x, y) in points {
        let _infallible = write!(path, "{x:.1},{y:.1} ");
    }
    let dashes = if line.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
    let _infallible = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{dashes}/>",
        path.trim_end(),
        line.colour
    );
    if line.dashed {
        return;
    }
    for (x, y) in points {
        let _infallible = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{}\"/>",
            line.colour
        );
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _infallible = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>");
}

/// A number with thin spaces between its thousands.
fn thousands(value: f64) -> String {
    if value < 10.0 {
        let text = format!("{value:.1}");
        return text.strip_suffix(".0").map(str::to_owned).unwrap_or(text);
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn real(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::NAN, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_of_powers_of_ten() {
        let line = |values| Line { name: "a".into(), colour: "red", dashed: false, values };
        let panel =
            Panel { title: "a < b".into(), lines: vec![line(vec![Some(40.0), None, Some(900.0)])] };
        let scale = Scale::of(&[panel]);
        assert!((scale.share(10.0) - 0.0).abs() < 1e-9);
        assert!((scale.share(100.0) - 0.5).abs() < 1e-9);
        let labels: Vec<_> = scale.marks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["10", "", "", "100", "", "", "1\u{202f}000"]);
    }

    #[test]
    fn what_could_not_be_measured_is_not_drawn() {
        let line =
            Line { name: "a".into(), colour: "red", dashed: false, values: vec![None, None] };
        let plot = Plot {
            title: "t & u".into(),
            subtitle: String::new(),
            places: vec!["1".into(), "4".into()],
            horizontal: "h",
            vertical: "v",
            panels: vec![Panel { title: "p".into(), lines: vec![line] }],
        };
        let svg = plot.svg();
        assert!(svg.contains("t &amp; u") && !svg.contains("NaN") && !svg.contains("inf"));
        // The legend's two.
        assert_eq!(svg.matches("<circle").count(), 2);
    }
}
