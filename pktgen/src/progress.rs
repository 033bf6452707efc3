//! Progress on anything over two seconds: a bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress of one command. Time is planned in seconds; what takes longer than planned says so by standing at 100 %.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    started: Instant,
}

impl Progress {
    /// A progress display for work of about `planned`.
    #[must_use]
    pub fn new(planned: Duration) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(5);
        let plain = target.is_hidden();
        let bar = ProgressBar::with_draw_target(Some(planned.as_secs().max(1)), target);
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {msg}") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, plain, started: Instant::now() }
    }

    /// Says what happens now.
    pub fn step(&self, message: &str) {
        if self.plain {
            eprintln!("[{:>4} s] {message}", self.started.elapsed().as_secs());
        } else {
            self.bar.set_message(message.to_owned());
            self.tick();
        }
    }

    /// Moves the bar to the time that has passed.
    pub fn tick(&self) {
        let most = self.bar.length().unwrap_or(1);
        self.bar.set_position(self.started.elapsed().as_secs().min(most));
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        if self.plain {
            eprintln!("[{:>4} s] {text}", self.started.elapsed().as_secs());
        } else {
            self.bar.println(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
