//! Charts of a result file: curves over any axis, for reports to draw.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How values are laid out along an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Evenly, from 0.
    #[default]
    Linear,
    /// By their logarithm; values of 0 and less are left out.
    Log,
    /// Quantiles from 0 to below 1, by how many nines they have: 50 %, 90 %, 99 %, …
    Quantile,
}

/// An axis.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// What it shows, with unit.
    pub label: String,
    /// Layout.
    #[serde(default)]
    pub scale: Scale,
}

impl Axis {
    /// An axis of this layout.
    #[must_use]
    pub fn new(label: &str, scale: Scale) -> Self {
        Self { label: label.to_owned(), scale }
    }
}

/// How a curve is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// Points joined in their order.
    #[default]
    Line,
    /// Points alone.
    Dots,
}

/// A curve of a chart.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// How it is drawn.
    #[serde(default)]
    pub style: Style,
    /// Pairs of x and y.
    pub points: Vec<[f64; 2]>,
}

/// A chart.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl Chart {
    /// Latencies over quantiles, one curve per histogram (in ns); empty ones are left out. Nothing is left:
    /// no chart.
    #[must_use]
    pub fn latency<'a>(
        title: &str,
        histograms: impl IntoIterator<Item = (String, &'a Histogram<u64>)>,
    ) -> Option<Self> {
        let curves: Vec<Curve> = histograms
            .into_iter()
            .filter(|(_, histogram)| !histogram.is_empty())
            .map(|(name, h)| Curve { name, style: Style::Line, points: quantiles(h) })
            .collect();
        (!curves.is_empty()).then(|| Self {
            title: title.to_owned(),
            x: Axis::new("percentile", Scale::Quantile),
            y: Axis::new("latency, µs", Scale::Log),
            curves,
        })
    }
}

/// A histogram in ns as pairs of quantile and µs, denser towards the end.
fn quantiles(histogram: &Histogram<u64>) -> Vec<[f64; 2]> {
    // The largest value stands for the last sample, not for infinitely many nines.
    let last = 1.0 - 0.5 / histogram.len() as f64;
    histogram
        .iter_quantiles(5)
        .map(|v| [v.quantile_iterated_to().min(last), v.value_iterated_to() as f64 / 1e3])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_curve_rises_and_ends_at_the_largest_value() {
        let mut h = Histogram::<u64>::new(3).expect("three digits");
        for us in 1..=10_000_u64 {
            h.record(us * 1_000).expect("in range");
        }
        let empty = Histogram::<u64>::new(3).expect("three digits");
        let chart = Chart::latency("t", [("a".into(), &h), ("b".into(), &empty)]).expect("a curve");
        assert_eq!(chart.curves.len(), 1, "an empty histogram has no curve");
        let points = &chart.curves[0].points;
        assert!(points.windows(2).all(|w| w[0][0] <= w[1][0] && w[0][1] <= w[1][1]));
        let [q, us] = points.last().copied().expect("points");
        assert!(q < 1.0 && (us / 10_000.0 - 1.0).abs() < 0.001, "{q} {us}");
        let middle = points.iter().find(|p| p[0] >= 0.5).expect("median");
        assert!((middle[1] / 5_000.0 - 1.0).abs() < 0.01, "{middle:?}");
        assert!(Chart::latency("t", [("b".into(), &empty)]).is_none());
    }
}
