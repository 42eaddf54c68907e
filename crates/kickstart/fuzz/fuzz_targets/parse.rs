//! A whole file with includes: `cargo fuzz run parse`.
#![no_main]

use kiln_kickstart::{Loaded, Loader, Options, Version, flatten, parse, render};
use libfuzzer_sys::fuzz_target;

/// Includes bring in the second half of the input.
struct Half<'a>(&'a [u8], u32);

impl Loader for Half<'_> {
    fn load(&mut self, path: &str, _from: &str) -> Result<Loaded, String> {
        self.1 += 1;
        match self.1 {
            1..8 => Ok(Loaded { name: path.to_owned(), bytes: self.0.to_vec() }),
            _ => Err(format!("cannot read {path}")),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let version = Version::ALL[usize::from(*choice) % Version::ALL.len()];
    let mut loader = Half(&data[data.len() / 2..], 0);
    let parsed = parse("fuzz.ks", data, &Options::new(version), &mut loader);
    for diagnostic in parsed.diagnostics.iter().take(10) {
        render(&parsed.kickstart, diagnostic);
    }
    flatten(&parsed, version);
});
