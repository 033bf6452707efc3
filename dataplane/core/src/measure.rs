//! Delay measurement: unwrapped one-way delay, windowed minimum, feedback selection.
