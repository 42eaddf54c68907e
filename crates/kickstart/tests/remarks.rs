//! Messages name the cause: one for what is one mistake, at its place; and none where nothing is to be done.

use kiln_kickstart::{Diagnostic, NoIncludes, Options, Parsed, parse};

fn read(text: impl AsRef<[u8]>) -> Parsed {
    parse("a.ks", text.as_ref(), &Options::default(), &mut NoIncludes)
}

/// The only finding: its code, line, message and first advice.
#[track_caller]
fn only(text: impl AsRef<[u8]>) -> (Diagnostic, u32) {
    let mut found = read(text).diagnostics;
    assert_eq!(found.len(), 1, "{found:#?}");
    let one = found.remove(0);
    let line = one.span.map_or(0, |s| s.line);
    (one, line)
}

#[track_caller]
fn says(text: impl AsRef<[u8]>, code: &str, line: u32, words: &[&str]) {
    let (found, at) = only(text);
    let whole = format!("{} {}", found.message, found.help.join(" "));
    assert_eq!((found.code, at), (code, line), "{found:#?}");
    assert!(words.iter().all(|w| whole.contains(w)), "{whole}");
}

#[track_caller]
fn silent(text: &str) {
    let found = read(text).diagnostics;
    assert!(found.is_empty(), "{text}\n{found:#?}");
}

#[test]
fn a_backslash_continues_nothing() {
    for text in [
        "lang C\npart / \\\n  --size=100 \\\n  --grow\ntimezone UTC\n",
        "lang C\npart / \\\r\n  --size=100\r\n",
        "lang C\npart / --size=1 \\",
        "lang C\nbootloader --append=\"a \\\nb\"\n",
    ] {
        let (found, line) = only(text);
        assert!(["continuation", "quoting"].contains(&found.code));
        let whole = format!("{} {}", found.message, found.help.join(" "));
        assert!(whole.contains("no continuation lines"), "{whole}");
        assert_eq!(line, 2, "{text}");
    }
    // The reference takes this one; its password ends with a line break.
    says(
        "rootpw abc\\\n",
        "continuation-accepted",
        1,
        &["no continuation lines"],
    );
    silent("# a \\\nrootpw 'a\\b'\n");
}

#[test]
fn the_line_that_cuts_a_here_document_is_named() {
    let text = "lang C\n%post\ncat >x <<'EOF'\n%packages\nvim\n%end\nlnag x\nEOF\necho %end\n%end\nlang C\n";
    says(text, "heredoc", 4, &["`EOF` of a.ks:3", "`%packages`"]);
    let text = "%post\ncat >x <<-EOF\nreboot\n  %end\n\tlnag\n\tEOF\n%end\nlnag\n";
    let found = read(text).diagnostics;
    let lines: Vec<_> = found
        .iter()
        .map(|d| (d.code, d.span.map_or(0, |s| s.line)))
        .collect();
    assert_eq!(
        lines,
        [("heredoc", 4), ("unknown-command", 8)],
        "{found:#?}"
    );
    // Here the reference sees a script, two more lines and a second script; so does Kiln.
    silent("%post\ncat <<lang\n%end\nlang C\n%post\nlang\n%end\n");
    silent("%post\ncat <<EOF\nx\n%end\nlang C\n");
    silent("%post --interpreter=/usr/bin/python3\nx = 1 <<EOF\n%end\n");
}

#[test]
fn what_is_no_text_is_one_finding() {
    let utf16 = |mark: &[u8]| {
        let text = "lang en_US.UTF-8\nkeyboard us\n%packages\nvim\n%end\n";
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        mark.iter().copied().chain(units).collect::<Vec<u8>>()
    };
    says(
        utf16(b"\xff\xfe"),
        "not-utf8",
        1,
        &["UTF-16", "iconv -f utf-16"],
    );
    says(utf16(b""), "not-utf8", 1, &["UTF-16"]);
    says(
        b"\x1f\x8b\x08\x00\x00\n\xff\xfe\n%x\n",
        "not-utf8",
        1,
        &["compressed with gzip"],
    );
    says(
        b"\x7fELF\x02\x01\x01\x00\x00\x00",
        "not-utf8",
        1,
        &["a program"],
    );
    let noise: Vec<u8> = (0..4000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    says(noise, "not-utf8", 1, &["binary data"]);
    says(
        b"user --name=a --gecos=\"J\xfcrgen\"\n",
        "not-utf8",
        1,
        &["iconv -f latin1"],
    );
}

#[test]
fn characters_that_look_like_others_are_named() {
    says(
        "lang C\nlang\u{a0}C\n",
        "unknown-command",
        2,
        &["U+00A0", "plain space"],
    );
    says(
        "part / \u{2014}size=100\n",
        "unexpected-argument",
        1,
        &["U+2014", "hyphens"],
    );
    says(
        "rootpw \u{201c}secret\u{201d}\n",
        "quote-lookalike",
        1,
        &["U+201C"],
    );
    says(
        "%packages\n\u{2013}nano\n%end\n",
        "dash-lookalike",
        2,
        &["U+2013"],
    );
    silent(
        "user --name=a --gecos=\"Jean\u{a0}\u{2013} l\u{2019}ami\"\n%post\necho \u{201c}a\u{201d}\n%end\n",
    );
}

#[test]
fn templates_and_other_files_are_named() {
    says("lang {{ lang }}\n", "unexpected-argument", 1, &["template"]);
    says("rootpw ${PASSWORD}\n", "placeholder", 1, &["template"]);
    says(
        "%packages\n@EXTRA@\n%end\n",
        "placeholder",
        2,
        &["template"],
    );
    silent("url --url=http://x/$releasever\n%post\necho ${HOME} {{x}} @A@\n%end\n");
    let script = "#!/bin/bash\nset -e\napt-get install 'vim\nif true; then\n  reboot\nfi\n";
    says(
        script,
        "not-a-kickstart",
        2,
        &["a script for /bin/bash", "%post"],
    );
    says(
        "<html>\n<body>\n</html>\n",
        "not-a-kickstart",
        1,
        &["a web page"],
    );
    says("{\n \"a\": 1\n}\n", "not-a-kickstart", 1, &["JSON"]);
    // A mistake in a kickstart stays that mistake.
    says(
        "#!/usr/bin/ksvalidator\nlang C\nlnag C\n",
        "unknown-command",
        3,
        &["did you mean `lang`"],
    );
}

#[test]
fn line_ends_that_harm_a_script_are_remarked_on() {
    let text = "lang C\r\n%post\r\necho a\r\n%end\r\n%post\r\necho b\r\n%end\r\n";
    says(text, "script-crlf", 3, &["CR LF", "/bin/sh", "dos2unix"]);
    silent(
        "lang C\r\n%packages\r\nvim\r\n%end\r\n%post --interpreter=/usr/bin/python3\r\nprint()\r\n%end\r\n",
    );
}

#[test]
fn one_package_a_line() {
    says(
        "%packages\nvim nano\n%end\n",
        "several-packages",
        2,
        &["one name a line"],
    );
    says(
        "%packages\nvim,\n%end\n",
        "several-packages",
        2,
        &["one name a line"],
    );
    silent("%packages\n@Some Group\n@core --nodefaults\n-gcc-* # c\n%end\n");
}

#[test]
fn names_that_nobody_knows_are_remarked_on() {
    says(
        "timezone Europe/Pargue\n",
        "unknown-zone",
        1,
        &["`Europe/Prague`"],
    );
    says("lang en_UK.UTF-8\n", "unknown-locale", 1, &["did you mean"]);
    says(
        "lang C --addsupport=de_DE.UTF8,xx_XX.UTF-8\n",
        "unknown-locale",
        1,
        &["xx_XX"],
    );
    let (found, _) = only("lang de_DE@euro\n");
    let help = found.help.join(" ");
    assert!(
        help.contains("de_DE.ISO-8859-15@euro or de_DE.UTF-8"),
        "{help}"
    );
    assert!(!help.contains("did you mean"), "{help}");
    says("keyboard ja\n", "unknown-keymap", 1, &["did you mean"]);
    says(
        "keyboard --xlayouts='us,cz (qwertyy)'\n",
        "unknown-layout",
        1,
        &["cz(qwerty)"],
    );
    for zone in [
        "US/Eastern",
        "UTC",
        "Etc/UTC",
        "posix/Europe/Prague",
        "America/Argentina/Ushuaia",
    ] {
        silent(&format!("timezone {zone}\n"));
    }
    for lang in [
        "C",
        "C.UTF-8",
        "de_DE",
        "cs_CZ.utf8",
        "sr_RS.UTF-8@latin",
        "sr_RS@latin",
        "de_DE.ISO-8859-15@euro",
    ] {
        silent(&format!("lang {lang}\n"));
    }
    for keyboard in [
        "us",
        "'de-latin1-nodeadkeys'",
        "--vckeymap=cz-qwerty",
        "--xlayouts='cz (qwerty)','us'",
    ] {
        silent(&format!("keyboard {keyboard}\n"));
    }
}

#[test]
fn what_a_second_line_takes_back_is_remarked_on() {
    says(
        "lang C\nlang de_DE.UTF-8\n",
        "given-again",
        2,
        &["a.ks:1", "value"],
    );
    says(
        "services --enabled=a\nservices --enabled=b\n",
        "given-again",
        2,
        &["`--enabled`"],
    );
    says(
        "%packages --nocore\nvim\n%end\n%packages\nnano\n%end\n",
        "packages-again",
        4,
        &["`--nocore` of a.ks:1"],
    );
    silent(
        "lang C\nlang C\nbootloader --timeout=1\nbootloader --append=a\nfirewall --enabled --ssh\nfirewall --enabled\n",
    );
    silent("%packages\nvim\n%end\n%packages --nocore\nnano\n%end\n");
}

#[test]
fn remarks_change_no_verdict() {
    for text in [
        "lang xx_XX\n",
        "timezone X/Y\n",
        "lang C\nlang de_DE\n",
        "%packages\na b\n%end\n",
        "rootpw \u{201c}a\u{201d}\n",
    ] {
        let parsed = read(text);
        assert!(
            !parsed.diagnostics.is_empty() && parsed.is_valid(),
            "{text}"
        );
    }
}
