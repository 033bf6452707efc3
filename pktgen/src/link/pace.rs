//! The polling thread's loop and its naps.
//!
//! Two cores carry a whole lab, so the thread sleeps when nothing moves: until the next departure, and
//! 50 µs at most, which is what an arriving packet may wait to be noticed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::emulator::Emulator;

/// Longest nap.
const NAP: Duration = Duration::from_micros(50);
/// What the kernel needs to wake a thread up; so much earlier than the departure the nap ends.
const WAKE_UP: Duration = Duration::from_micros(10);
/// A shorter one costs more than it gives.
const SHORTEST_NAP: Duration = Duration::from_micros(10);

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
    let nap = emulator.next_departure().map_or(NAP, |at| {
        // Nothing sleeps past a departure; what is left is spent asking again.
        NAP.min(at.since(emulator.now()).saturating_sub(WAKE_UP))
    });
    if nap < SHORTEST_NAP {
        std::thread::yield_now();
    } else {
        std::thread::sleep(nap);
    }
}

/// Makes the calling thread's naps end when they should, instead of up to 50 µs later: the kernel
/// groups wake-ups by a slack that each thread may lower for itself.
///
/// # Errors
/// When `/proc` is not there or does not allow it; naps are longer then.
pub fn sharpen_naps() -> io::Result<()> {
    fs::write(PathBuf::from("/proc").join(thread_id()?).join("timerslack_ns"), "1")
}

/// Puts the calling thread in front of all ordinary ones (`SCHED_FIFO`), so that the hosts of a lab do
/// not delay the packets between them by using its CPUs. The thread naps, so they get theirs.
///
/// # Errors
/// Without the privilege (root, or `CAP_SYS_NICE`), or without util-linux's `chrt`.
pub fn go_first() -> io::Result<()> {
    let out = Command::new("chrt").args(["--fifo", "--pid", "1"]).arg(thread_id()?).output();
    let out = out.map_err(|e| io::Error::new(e.kind(), format!("chrt of util-linux: {e}")))?;
    if out.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&out.stderr).trim().to_owned()))
}

/// The kernel's id of the calling thread.
fn thread_id() -> io::Result<OsString> {
    let thread = fs::read_link("/proc/thread-self")?;
    let id = thread.file_name().ok_or_else(|| io::Error::other("no thread id in /proc"))?;
    Ok(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_are_sharp_for_this_thread_alone() {
        let slack = |id: OsString| {
            let path = PathBuf::from("/proc").join(id).join("timerslack_ns");
            fs::read_to_string(path).unwrap().trim().to_owned()
        };
        let ids = std::thread::scope(|scope| {
            let sharp = scope.spawn(|| {
                sharpen_naps().unwrap();
                slack(thread_id().unwrap())
            });
            (sharp.join().unwrap(), slack(thread_id().unwrap()))
        });
        assert_eq!(ids.0, "1");
        assert_ne!(ids.1, "1");
    }
}
