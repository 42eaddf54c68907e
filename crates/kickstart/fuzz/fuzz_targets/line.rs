//! One line, which reaches the lexer and the option table faster: `cargo fuzz run line`.
#![no_main]

use kiln_kickstart::{NoIncludes, Options, Version, command_table, flatten, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [version, command, words @ ..] = data else { return };
    let version = Version::ALL[usize::from(*version) % Version::ALL.len()];
    let table = command_table();
    let name = &table[usize::from(*command) % table.len()].name;
    let mut line = format!("{name} ").into_bytes();
    line.extend(words);
    let parsed = parse("line.ks", &line, &Options::new(version), &mut NoIncludes);
    flatten(&parsed, version);
});
