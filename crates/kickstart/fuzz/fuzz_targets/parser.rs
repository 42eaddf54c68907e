//! Whole files, in every version of the language, with includes that bring the file in again; then flattening.
#![no_main]

use kiln_kickstart::{LoadError, Loaded, Loader, Options, Version, flatten, parse, render};
use libfuzzer_sys::fuzz_target;

/// Every include finds the second half of the input, under its own name.
struct Half<'a>(&'a [u8]);

impl Loader for Half<'_> {
    fn load(&mut self, path: &str, _from: &str) -> Result<Loaded, LoadError> {
        if path.starts_with("missing") {
            return Err(LoadError::not_found(format!("cannot read `{path}`")));
        }
        Ok(Loaded {
            name: path.to_owned(),
            bytes: self.0.to_vec(),
        })
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let version = Version::ALL[usize::from(choice & 0x7f) % Version::ALL.len()];
    let mut options = Options::new(version);
    options.follow_includes = choice & 0x80 == 0;
    let mut loader = Half(text.get(text.len() / 2..).unwrap_or(&[]));
    let parsed = parse("fuzz.ks", text, &options, &mut loader);
    for diagnostic in &parsed.diagnostics {
        let _ = render(&parsed.kickstart, diagnostic);
    }
    if parsed.has_errors() {
        return;
    }
    // What is flattened is read again, without an include, and flattens to itself.
    let once = flatten(&parsed, version);
    let again = parse(
        "flat.ks",
        once.as_bytes(),
        &Options::new(version),
        &mut loader,
    );
    if !again.has_errors() {
        assert_eq!(flatten(&again, version), once);
    }
});
