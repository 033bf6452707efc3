//! Writes the seeds of every target into `corpus/<target>/`.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    for (target, _) in mpip_core_fuzz::TARGETS {
        let dir = Path::new("corpus").join(target);
        fs::create_dir_all(&dir)?;
        let seeds = mpip_core_fuzz::seeds(target);
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{n:03}")), seed)?;
        }
        println!("{}: {} seeds", dir.display(), seeds.len());
    }
    Ok(())
}
