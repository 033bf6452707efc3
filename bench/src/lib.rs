//! Micro benches, lab experiments on real hosts, simulator, reports.
