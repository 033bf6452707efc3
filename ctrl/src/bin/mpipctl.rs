//! `mpipctl`: shows what a running mpipd does. See [`mpip_ctrl::ctl`].

use std::io::{self, BufWriter, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use mpip_ctrl::ctl::args::Cli;
use mpip_ctrl::ctl::run::{Screen, run};
use mpip_ctrl::ctl::table::Style;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("mpipctl: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let stdout = io::stdout();
    let mut out = BufWriter::new(stdout.lock());
    match runtime.block_on(run(cli, &mut out, screen())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let code = e.exit_code();
            if code != 0 {
                eprintln!("mpipctl: {e}");
            }
            ExitCode::from(code)
        }
    }
}

/// Colour and redrawing only on a terminal that can, and that is not asked to be plain.
fn screen() -> Screen {
    let terminal = io::stdout().is_terminal()
        && std::env::var_os("TERM").is_some_and(|t| !t.is_empty() && t != "dumb");
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let lines = terminal.then(|| terminal_size::terminal_size().map_or(24, |(_, h)| h.0));
    Screen { style: Style { colour: terminal && !plain }, lines }
}
