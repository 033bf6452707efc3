//! Path weights and dispatch: Algorithm 1, random draw, smooth weighted round robin.
