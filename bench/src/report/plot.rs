//! Curves as inline SVG.

use plotters::prelude::*;

use crate::result::Series;

const SIZE: (u32, u32) = (640, 300);
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 95, 191), RGBColor(217, 119, 6), RGBColor(20, 128, 74), RGBColor(140, 60, 160)];
const SOFT: RGBColor = RGBColor(93, 104, 120);
const FONT: &str = "system-ui, sans-serif";

/// A plot of curves with a common unit. What cannot be drawn is said in place of the plot.
pub(super) fn svg(curves: &[&Series]) -> String {
    let mut text = String::new();
    match draw(curves, &mut text) {
        Ok(()) => text,
        Err(e) => format!("<p>plot not drawn: {}</p>", super::escape(&e)),
    }
}

fn draw(curves: &[&Series], text: &mut String) -> Result<(), String> {
    let largest = |values: &dyn Fn(&Series) -> &[f64]| {
        curves.iter().flat_map(|c| values(c).iter().copied()).fold(0.0, f64::max)
    };
    let right = largest(&|c| &c.t_s).max(1.0);
    let top = (largest(&|c| &c.value) * 1.3).max(1.0);
    let unit = curves.first().map_or("", |c| c.unit.as_str());
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let e = |e: &dyn std::fmt::Display| e.to_string();
    let mut chart = ChartBuilder::on(&root)
        .margin(6)
        .x_label_area_size(34)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..right, 0.0..top)
        .map_err(|x| e(&x))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 232, 237))
        .axis_style(RGBColor(190, 197, 206))
        .label_style((FONT, 12, &SOFT))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_label_formatter(&|v| format!("{v:.0}"))
        .x_desc("seconds")
        .y_desc(unit)
        .axis_desc_style((FONT, 12, &SOFT))
        .draw()
        .map_err(|x| e(&x))?;
    for (from, to) in outages(curves, right) {
        let shade = RGBColor(192, 38, 45).mix(0.10).filled();
        chart
            .draw_series(std::iter::once(Rectangle::new([(from, 0.0), (to, top)], shade)))
            .map_err(|x| e(&x))?;
    }
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points = curve.t_s.iter().copied().zip(curve.value.iter().copied());
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .map_err(|x| e(&x))?
            .label(curve.name.clone())
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2))
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .label_font((FONT, 12, &SOFT))
        .draw()
        .map_err(|x| e(&x))?;
    root.present().map_err(|x| e(&x))
}

/// Times between an event and the `up` that ends it; one that never ends lasts to the right edge.
fn outages(curves: &[&Series], right: f64) -> Vec<(f64, f64)> {
    let mut all = Vec::new();
    let mut open = None;
    for event in curves.iter().flat_map(|c| &c.events) {
        if event.what == "up" {
            all.extend(open.take().map(|from| (from, event.t_s)));
        } else {
            open = open.or(Some(event.t_s));
        }
    }
    all.extend(open.map(|from| (from, right)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Event;

    #[test]
    fn outages_are_pairs_and_the_last_may_stay_open() {
        let event = |t_s, what: &str| Event { t_s, what: what.into() };
        let curve = Series {
            scenario: String::new(),
            arm: String::new(),
            name: String::new(),
            unit: String::new(),
            t_s: Vec::new(),
            value: Vec::new(),
            events: vec![event(1.0, "down"), event(3.0, "up"), event(5.0, "kill")],
        };
        assert_eq!(outages(&[&curve], 9.0), [(1.0, 3.0), (5.0, 9.0)]);
    }
}
