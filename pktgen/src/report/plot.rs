//! Curves as inline SVG.

use plotters::prelude::*;

use crate::result::{Chart, Scale, Series, Style};

const SIZE: (u32, u32) = (640, 300);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 95, 191),
    RGBColor(217, 119, 6),
    RGBColor(20, 128, 74),
    RGBColor(140, 60, 160),
    RGBColor(192, 38, 45),
    RGBColor(8, 131, 149),
];
const SOFT: RGBColor = RGBColor(93, 104, 120);
const FONT: &str = "system-ui, sans-serif";

/// Curves of a result over time, with a common unit. What cannot be drawn is said in place of the plot.
pub(super) fn over_time(series: &[&Series]) -> String {
    let end = series.iter().flat_map(|s| s.t_s.iter().copied()).fold(1.0, f64::max);
    let curve = |s: &&Series| Drawn {
        name: s.name.clone(),
        style: Style::Line,
        points: s.t_s.iter().copied().zip(s.value.iter().copied()).collect(),
    };
    let curves: Vec<Drawn> = series.iter().map(curve).collect();
    let top = curves.iter().flat_map(|c| &c.points).map(|p| p.1).fold(0.0, f64::max);
    svg(&Plot {
        x: Direction { label: "seconds", scale: Scale::Linear, from: 0.0, to: end },
        y: Direction {
            label: series.first().map_or("", |s| s.unit.as_str()),
            scale: Scale::Linear,
            from: 0.0,
            to: (top * 1.3).max(1.0),
        },
        shades: outages(series, end),
        legend: SeriesLabelPosition::UpperRight,
        curves,
    })
}

/// A chart of a result.
pub(super) fn chart(chart: &Chart) -> String {
    let (sx, sy) = (chart.x.scale, chart.y.scale);
    let curves: Vec<Drawn> = chart
        .curves
        .iter()
        .map(|curve| Drawn {
            name: curve.name.clone(),
            style: curve.style,
            points: curve
                .points
                .iter()
                .filter_map(|&[x, y]| Some((place(sx, x)?, place(sy, y)?)))
                .collect(),
        })
        .collect();
    let values = |pick: fn(&(f64, f64)) -> f64| curves.iter().flat_map(|c| &c.points).map(pick);
    let (x, y) = (extent(sx, values(|p| p.0)), extent(sy, values(|p| p.1)));
    let Some(((x0, x1), (y0, y1))) = x.zip(y) else {
        return "<p>plot not drawn: there are no points</p>".to_owned();
    };
    svg(&Plot {
        x: Direction { label: &chart.x.label, scale: sx, from: x0, to: x1 },
        // Room for the legend.
        y: Direction { label: &chart.y.label, scale: sy, from: y0, to: y1 + (y1 - y0) * 0.25 },
        shades: Vec::new(),
        // What such charts show tends to grow to the right.
        legend: SeriesLabelPosition::UpperLeft,
        curves,
    })
}

/// A curve in places instead of values.
struct Drawn {
    name: String,
    style: Style,
    points: Vec<(f64, f64)>,
}

/// An axis in places.
struct Direction<'a> {
    label: &'a str,
    scale: Scale,
    from: f64,
    to: f64,
}

struct Plot<'a> {
    x: Direction<'a>,
    y: Direction<'a>,
    curves: Vec<Drawn>,
    /// Times to shade.
    shades: Vec<(f64, f64)>,
    legend: SeriesLabelPosition,
}

/// Where a value goes; nowhere, if it has no place on such an axis.
fn place(scale: Scale, value: f64) -> Option<f64> {
    let place = match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
        Scale::Quantile => -(1.0 - value.max(0.0)).log10(),
    };
    place.is_finite().then_some(place)
}

/// The label of a place.
fn label(scale: Scale, span: f64, place: f64) -> String {
    match scale {
        Scale::Linear => short(place, span),
        Scale::Log => short(10_f64.powf(place), 10_f64.powf(place)),
        Scale::Quantile => {
            let percent = 100.0 * (1.0 - 10_f64.powf(-place));
            let digits = (place - 2.0).ceil().clamp(0.0, 9.0) as usize;
            format!("{percent:.digits$} %")
        }
    }
}

/// A number that changes by about a tenth of `span` from label to label.
fn short(value: f64, span: f64) -> String {
    let (factor, letter) = match value.abs().max(span) {
        a if a >= 1e9 => (1e9, "G"),
        a if a >= 1e6 => (1e6, "M"),
        a if a >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let digits = (1.0 - (span / factor / 5.0).log10()).floor().clamp(0.0, 6.0) as usize;
    let text = format!("{:.digits$}", value / factor);
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    format!("{text}{letter}")
}

/// From where to where an axis goes; nothing without values.
fn extent(scale: Scale, values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let mut ends = None::<(f64, f64)>;
    for v in values {
        ends = Some(ends.map_or((v, v), |(least, most)| (least.min(v), most.max(v))));
    }
    let (least, most) = ends?;
    let (least, most) = match scale {
        // From 0, unless that would press all values together.
        Scale::Linear if least >= 0.0 && least < 0.7 * most => (0.0, most),
        Scale::Quantile => (0.0, most),
        _ => (least, most),
    };
    let margin = if most > least { (most - least) * 0.04 } else { most.abs().max(1.0) * 0.05 };
    let from = if least == 0.0 { 0.0 } else { least - margin };
    Some((from, most + margin))
}

/// What cannot be drawn is said in place of the plot.
fn svg(plot: &Plot<'_>) -> String {
    let mut text = String::new();
    match draw(plot, &mut text) {
        Ok(()) => text,
        Err(e) => format!("<p>plot not drawn: {}</p>", super::escape(&e)),
    }
}

fn draw(plot: &Plot<'_>, text: &mut String) -> Result<(), String> {
    let Plot { x, y, curves, shades, legend } = plot;
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let e = |e: &dyn std::fmt::Display| e.to_string();
    let mut chart = ChartBuilder::on(&root)
        .margin(6)
        .x_label_area_size(34)
        .y_label_area_size(54)
        .build_cartesian_2d(x.from..x.to, y.from..y.to)
        .map_err(|x| e(&x))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 232, 237))
        .axis_style(RGBColor(190, 197, 206))
        .label_style((FONT, 12, &SOFT))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|&v| label(x.scale, x.to - x.from, v))
        .y_label_formatter(&|&v| label(y.scale, y.to - y.from, v))
        .x_desc(x.label)
        .y_desc(y.label)
        .axis_desc_style((FONT, 12, &SOFT))
        .draw()
        .map_err(|x| e(&x))?;
    for &(from, to) in shades {
        let shade = RGBColor(192, 38, 45).mix(0.10).filled();
        chart
            .draw_series(std::iter::once(Rectangle::new([(from, y.from), (to, y.to)], shade)))
            .map_err(|x| e(&x))?;
    }
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let colour = *colour;
        let points = curve.points.iter().copied();
        let drawn = match curve.style {
            Style::Line => chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                .map_err(|x| e(&x))?
                .label(curve.name.clone())
                .legend(move |(x, y)| {
                    PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2))
                }),
            Style::Dots => chart
                .draw_series(points.map(|p| Circle::new(p, 3, colour.mix(0.7).filled())))
                .map_err(|x| e(&x))?
                .label(curve.name.clone())
                .legend(move |(x, y)| Circle::new((x + 8, y), 3, colour.filled())),
        };
        let _ = drawn;
    }
    chart
        .configure_series_labels()
        .position(legend.clone())
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
    use crate::result::{Axis, Curve, Event};

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

    #[test]
    fn labels() {
        assert_eq!(short(12_500_000.0, 2_000_000.0), "12.5M");
        assert_eq!(short(0.5, 2.0), "0.5");
        assert_eq!(short(40.0, 60.0), "40");
        assert_eq!(short(0.002, 0.005), "0.002");
        assert_eq!(label(Scale::Log, 3.0, 2.0), "100");
        assert_eq!(label(Scale::Quantile, 5.0, 3.0), "99.9 %");
        assert_eq!(label(Scale::Quantile, 5.0, 1.0), "90 %");
        assert_eq!(place(Scale::Log, 0.0), None);
        assert_eq!(place(Scale::Quantile, 1.0), None);
    }

    #[test]
    fn an_axis_starts_at_zero_unless_the_values_are_far_from_it() {
        let of = |v: &[f64]| extent(Scale::Linear, v.iter().copied()).expect("values");
        assert_eq!(of(&[1.0, 10.0]).0, 0.0);
        let (from, to) = of(&[990.0, 1000.0]);
        assert!(from > 980.0 && to < 1010.0 && from < 990.0 && to > 1000.0);
        let (from, to) = of(&[5.0]);
        assert!(from < 5.0 && 5.0 < to);
        assert_eq!(extent(Scale::Log, std::iter::empty()), None);
    }

    #[test]
    fn hostile_points_are_left_out_and_no_points_are_said() {
        let mut c = Chart {
            title: "t".into(),
            x: Axis::new("x", Scale::Log),
            y: Axis::new("a < b", Scale::Linear),
            curves: vec![Curve {
                name: "<b>".into(),
                style: Style::Dots,
                points: vec![[0.0, 1.0], [-1.0, 1.0], [f64::NAN, 2.0], [1.0, f64::INFINITY]],
            }],
        };
        assert!(chart(&c).contains("no points"));
        c.curves[0].points.push([10.0, 3.0]);
        let text = chart(&c);
        assert!(text.contains("<circle") && text.contains("a &lt; b"), "{text}");
        assert!(!text.contains("<b>"));
    }
}
