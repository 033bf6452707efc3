//! What the papers measured besides bulk flows, played where that is quick: what gateways owe a call, a viewer
//! and a stream of datagrams. How good the numbers are over many seeds is reported, not asserted:
//! `mpip-bench sim --performance --profiles applications`.

use mpip_bench::sim::papers::ROWS;
use mpip_core::schedule::Scheduler;

/// The figures of a row by the adaptive scheduler with seed 1, by what they are of.
fn played(id: &str) -> impl Fn(&str) -> f64 {
    played_with(id, 1)
}

fn played_with(id: &str, seed: u64) -> impl Fn(&str) -> f64 {
    let row = ROWS.iter().find(|r| r.id == id).expect("row");
    let figures = row.play("adaptive", Scheduler::Adaptive, seed).unwrap_or_else(|e| panic!("{e}"));
    move |what| {
        let figure = figures.iter().find(|f| f.what.starts_with(what));
        figure.unwrap_or_else(|| panic!("no figure \"{what}\" in {figures:?}")).value
    }
}

/// The median of five seeds.
fn median(id: &str) -> impl Fn(&str) -> f64 {
    let plays: Vec<_> = (1..=5).map(|seed| played_with(id, seed)).collect();
    move |what| {
        let mut of: Vec<f64> = plays.iter().map(|of| of(what)).collect();
        of.sort_by(f64::total_cmp);
        of[2]
    }
}

#[test]
fn a_call_hardly_notices_a_cut() {
    let of = played("P5");
    // Within 200 ms, as in the lab; 40 ms and a round trip is what gateways are made for.
    assert!(of("longest silence of the audio") <= 100.0);
    assert!(of("longest silence of the video") <= 100.0);
    assert!(of("video rate from 5 s after the cut") >= of("video rate before the cut"));
}

#[test]
fn a_call_over_thin_paths_has_more_video_than_over_one() {
    let of = median("P6");
    let ratio = of("video rate against");
    // 49 bytes on each packet leave 1.89; more would mean that something is counted twice.
    assert!((1.4..1.95).contains(&ratio), "{ratio}");
    // Over a hundred seeds 0.73 to 1.2 of it, the median 0.94; of ten with the gateway's own queue 0.82 to 1.43, the median 0.97.
    let (delay, alone) = ("audio one-way delay, p95, worse", "audio one-way delay, p95, one path");
    assert!(of(delay) <= 1.25 * of(alone), "{} ms", of(delay));
    assert!(of("audio packets lost") <= 5.0);
}

#[test]
fn a_rule_brings_audio_to_the_shorter_path_and_leaves_the_video_alone() {
    let of = played("P7");
    let delay = of("audio one-way delay, median, by rule");
    assert!((50.0..55.0).contains(&delay), "{delay} ms");
    assert!(of("video rate with the rule") >= 95.0);
}

#[test]
fn a_viewer_has_the_quality_that_one_path_cannot_carry() {
    // Over a hundred seeds 10 to 42 s, the median 16.
    let of = median("P8");
    assert!(of("1080p reached after") <= 30.0);
    assert!(of("1080p segments, of all") >= 10.0);
}

#[test]
fn a_path_that_comes_back_while_clocks_drift_is_not_favoured() {
    let of = played("R1");
    assert!(of("share of path 1, moved by a drift of 42 ppm") <= 2.0);
    // In points; 5 is the goal. Three seeds 2.5 to 4.8, the median 3.2 (2.2 with rates over 20 ms); at ten times the drift that
    // was seen 8.5.
    let more = of("what path 2 has more when it comes back at 4.2 ppm");
    assert!(more.abs() <= 5.0, "{more} points");
}

#[test]
fn datagrams_fill_both_paths() {
    let of = played("R8");
    let ratio = of("delivered against");
    assert!((1.85..2.0).contains(&ratio), "{ratio}");
}
