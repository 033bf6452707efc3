//! Many seeded runs in parallel, as tests make them: which seeds, what is told of them, and the loop over them.

use super::world::Trace;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which runs to make: `<prefix>_SEEDS` of them, from `<prefix>_FROM` on; of a single one everything that happens is
/// told, with `<prefix>_FRAMES=1` every frame too. Environment variables.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// How many.
    pub count: u64,
    /// The first.
    pub from: u64,
    /// What is told.
    pub trace: Trace,
}

impl Seeds {
    /// `count` runs from seed 1 on, if the environment does not say otherwise.
    ///
    /// # Panics
    /// A variable is not a number.
    #[must_use]
    pub fn of(prefix: &str, count: u64) -> Self {
        let number = |name: &str, default: u64| match std::env::var(format!("{prefix}_{name}")) {
            Ok(text) => {
                text.parse().unwrap_or_else(|_| panic!("{prefix}_{name}={text} is not a number"))
            }
            Err(_) => default,
        };
        let (count, from) = (number("SEEDS", count), number("FROM", 1));
        let trace = match (count, number("FRAMES", 0)) {
            (1, 0) => Trace::Events,
            (1, _) => Trace::Frames,
            _ => Trace::Off,
        };
        Self { count, from, trace }
    }

    /// What `play` makes of each seed, in the order in which they ended; one thread per CPU.
    ///
    /// # Panics
    /// When `play` does.
    pub fn play<T: Send>(self, play: impl Fn(u64, Trace) -> T + Sync) -> Vec<T> {
        let next = AtomicU64::new(self.from);
        let all = Mutex::new(Vec::new());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.from + self.count {
                            break;
                        }
                        let outcome = play(seed, self.trace);
                        all.lock().expect("no run has panicked").push(outcome);
                    }
                });
            }
        });
        all.into_inner().expect("no run has panicked")
    }
}
