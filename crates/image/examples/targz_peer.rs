//! Times `disk.tar.gz` for an existing raw disk: `cargo run --release -p kiln-image --example targz_peer -- DISK OUT [THREADS]`.
//! Compare with `tar -I 'gzip -6' -cf OUT DISK`.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use kiln_image::targz::TarGz;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: targz_peer DISK OUT [THREADS]";
    let disk = File::open(args.next().ok_or(usage)?)?;
    let mut out = File::create(args.next().ok_or(usage)?)?;
    let threads = args.next().map_or(Ok(2), |n| n.parse())?;
    let started = Instant::now();
    let summary = TarGz::new(0, threads).write(&disk, &mut out, &mut |_| Ok(()))?;
    let seconds = started.elapsed().as_secs_f64();
    let image = disk.metadata()?.len();
    println!(
        "{image} bytes in {seconds:.2} s: {} bytes; zeros {}, stored {}, compressed {}",
        summary.size.0, summary.zeros, summary.stored, summary.compressed
    );
    Ok(())
}
