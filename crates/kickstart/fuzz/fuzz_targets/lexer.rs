//! Words: any line, in a place where nothing but the lexer decides what becomes of it.
#![no_main]

use kiln_kickstart::{Item, NoIncludes, Options, Version, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // `%addon` takes any words and hands them on, so every byte of the line goes through the lexer and none is judged.
    let mut text = b"%addon ".to_vec();
    text.extend(data);
    text.extend(b"\n%end\n");
    let options = Options::new(Version::default());
    let parsed = parse("fuzz.ks", &text, &options, &mut NoIncludes);
    for diagnostic in &parsed.diagnostics {
        let _ = kiln_kickstart::render(&parsed.kickstart, diagnostic);
    }
    // What was read can be quoted again, and reads as the same words.
    let Some(Item::Opaque(addon)) = parsed.kickstart.items.first() else {
        return;
    };
    let Ok(line) = std::str::from_utf8(data) else {
        return;
    };
    let breaks = |c: char| c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}');
    // A backslash at the end quotes the line's end, which no quoting brings back on one line.
    let has_break = line.contains(breaks) || addon.args.iter().any(|w| w.contains(breaks));
    if has_break || parsed.has_errors() {
        return;
    }
    let quoted: String = addon
        .args
        .iter()
        .map(|w| format!(" '{}'", w.replace('\'', "'\"'\"'")))
        .collect();
    let again = format!("%addon{quoted}\n%end\n");
    let again = parse("again.ks", again.as_bytes(), &options, &mut NoIncludes);
    match again.kickstart.items.first() {
        Some(Item::Opaque(second)) => assert_eq!(second.args, addon.args),
        other => panic!("{other:?}"),
    }
});
