//! Safe prefetch, hugepage-backed slices and SIMD helpers for the MPIP engine.
