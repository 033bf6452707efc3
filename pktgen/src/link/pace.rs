//! The polling thread's loop and its naps.
//!
//! Two cores carry a whole lab, so the thread sleeps when nothing moves: until the next departure, and
//! 50 µs at most, which is what an arriving packet may wait to be noticed.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use super::emulator::Emulator;

/// Longest nap.
const NAP: Duration = Duration::from_micros(50);
/// What the kernel needs to wake a thread up; so much earlier than the departure the nap ends.
const WAKE_UP: Duration = Duration::from_micros(10);

/// Moves packets until `between`, which runs once per pass, says to stop.
pub fn run(emulator: &mut Emulator, mut between: impl FnMut(&mut Emulator) -> ControlFlow<()>) {
    loop {
        let busy = emulator.pass();
        if between(emulator).is_break() {
            return;
        }
        if !busy {
            rest(emulator);
        }
    }
}

fn rest(emulator: &Emulator) {
    let until = emulator.next_departure().map_or(NAP, |at| at.since(emulator.now()));
    match until.min(NAP).checked_sub(WAKE_UP) {
        Some(nap) if nap >= WAKE_UP => std::thread::sleep(nap),
        _ => std::thread::yield_now(),
    }
}

/// Makes the calling thread's naps end when they should, instead of up to 50 µs later: the kernel
/// groups wake-ups by a slack that each thread may lower for itself.
///
/// # Errors
/// When `/proc` is not there or does not allow it; naps are longer then.
pub fn sharpen_naps() -> io::Result<()> {
    let thread = fs::read_link("/proc/thread-self")?;
    let id = thread.file_name().ok_or_else(|| io::Error::other("no thread id in /proc"))?;
    let mut file = std::path::PathBuf::from("/proc");
    file.push(id);
    file.push("timerslack_ns");
    fs::write(file, "1")
}
