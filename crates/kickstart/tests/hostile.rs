//! Whatever the bytes are, reading ends, in time and memory bounded by their number.

use std::io::Read as _;
use std::time::Duration;

use kiln_kickstart::*;

/// A small deterministic generator (xorshift64*): the same inputs on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// The processor time of this thread: other tests and programs run beside it.
fn spent() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Every include brings in the whole input again, under the next of a few names.
struct Echo(Vec<u8>, u32);

impl Loader for Echo {
    fn load(&mut self, _path: &str, _from: &str) -> Result<Loaded, LoadError> {
        self.1 = (self.1 + 1) % 40;
        Ok(Loaded {
            name: format!("echo{}.ks", self.1),
            bytes: self.0.clone(),
        })
    }
}

fn inputs() -> Vec<(Version, String)> {
    #[derive(serde::Deserialize)]
    struct Case {
        version: Version,
        input: String,
    }
    let packed = &include_bytes!("data/cases.jsonl.gz")[..];
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .unwrap();
    let cases = text.lines().map(|l| serde_json::from_str(l).unwrap());
    cases.map(|c: Case| (c.version, c.input)).collect()
}

fn mutate(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len() + 1);
        match random.below(8) {
            0 => out.truncate(at),
            1 if at < out.len() => out[at] ^= 1 << random.below(8),
            2 => out.insert(at, b"\"'\\#%@-=,\n\r\0\x85 "[random.below(14)]),
            3 => {
                let line = out
                    .split(|b| *b == b'\n')
                    .nth(random.below(4))
                    .unwrap_or(b"")
                    .to_vec();
                out.push(b'\n');
                out.extend(line);
            }
            4 => out.splice(at..at, other.iter().copied()).for_each(drop),
            5 => out.splice(at..at, *b"\n%include x\n").for_each(drop),
            6 => out
                .splice(at..at, *b"\n%end\n%packages --nocore\n")
                .for_each(drop),
            _ => out.splice(at..at, "é\u{2028}٥".bytes()).for_each(drop),
        }
    }
    out
}

/// Reads, renders, flattens; everything a caller could do. Includes bring in the first `echo` bytes again.
fn exercise(version: Version, bytes: &[u8], echo: usize) -> Parsed {
    let mut loader = Echo(bytes.iter().copied().take(echo).collect(), 0);
    let parsed = parse("x.ks", bytes, &Options::new(version), &mut loader);
    for diagnostic in parsed.diagnostics.iter().take(20) {
        let text = render(&parsed.kickstart, diagnostic);
        assert!(text.len() < 4000, "{text}");
    }
    flatten(&parsed, version);
    parsed
}

#[test]
fn mutated_cases_neither_panic_nor_hang() {
    let cases = inputs();
    let mut random = Random(0x6b69_6c6e);
    for index in 0..4000_usize {
        let (version, input) = &cases[index % cases.len()];
        let other = &cases[random.below(cases.len())].1;
        let bytes = mutate(input.as_bytes(), other.as_bytes(), &mut random);
        let start = spent();
        let parsed = exercise(*version, &bytes, if index % 100 == 0 { 200 } else { 0 });
        let took = spent() - start;
        assert!(took < Duration::from_secs(10), "{took:?} for {bytes:?}");
        for span in parsed.diagnostics.iter().filter_map(|d| d.span) {
            assert!(
                span.start <= span.end && (span.file.0 as usize) < parsed.kickstart.files.len()
            );
        }
    }
}

#[test]
fn what_is_flattened_flattens_to_itself() {
    let mut differ = Vec::new();
    for (version, input) in inputs() {
        let options = Options::new(version);
        let first = parse("x.ks", input.as_bytes(), &options, &mut NoIncludes);
        if first.has_errors() {
            continue;
        }
        let once = flatten(&first, version);
        // The reference writes some values without the quotes that they need, and an old keyboard as a comment.
        let second = parse("flat.ks", once.as_bytes(), &options, &mut NoIncludes);
        let lossy = once.contains("# old format") || once.contains("%a") || second.has_errors();
        if !lossy && flatten(&second, version) != once {
            differ.push(input);
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}

/// Ten megabytes of one pattern.
fn ten_megabytes(head: &str, pattern: &str) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    let rounds = (10 << 20) / pattern.len();
    bytes.extend(pattern.as_bytes().repeat(rounds));
    bytes
}

#[test]
fn ten_megabytes_of_anything_are_read_within_a_second() {
    let patterns = [
        ("", "\n"),
        ("", "x\n"),
        ("", "x "),
        ("lang ", "x"),
        ("", "\"\n"),
        ("rootpw '", "a"),
        ("", "skipx\n"),
        ("", "repo --name=a --baseurl=b\n"),
        ("", "part / --labl=x\n"),
        ("", "services --enabled=a\n"),
        ("services --enabled=", "a,"),
        ("", "%include x\n"),
        ("", "%packages\n%end\n"),
        ("", "%post\n%post\n"),
        ("%packages\n", "a\n"),
        ("%packages\n", "@a --op\n"),
        ("%post\n", "\n"),
        ("%post\n", "%include x\n"),
        ("%pst\n", "x\n"),
        ("", "\u{2028}"),
        ("part ", "-"),
        ("part / ", "--fstype=x "),
        ("realm join ", "--no-password "),
        ("", "network --bridgeslaves=a --bridgeopts=b=c\n"),
        ("network --bridgeslaves=a --bridgeopts=", "b=c,"),
    ];
    for (head, pattern) in patterns {
        let bytes = ten_megabytes(head, pattern);
        let start = spent();
        let parsed = exercise(Version::default(), &bytes, 200);
        let took = spent() - start;
        // The tests are built with little optimisation; a release build keeps the second.
        let allowed = Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 1 });
        assert!(took < allowed, "{took:?} for {head:?} {pattern:?}");
        assert!(parsed.diagnostics.len() <= 1001, "{head:?} {pattern:?}");
        assert!(
            parsed.kickstart.items.len() <= 200_000,
            "{head:?} {pattern:?}"
        );
    }
}

#[test]
fn a_thousand_typical_files_take_about_a_second() {
    let script = "%post --log=/var/log/post.log\necho hello\n%end\n";
    let packages = (0..100)
        .map(|n| format!("package{n}\n"))
        .collect::<String>();
    let text = format!(
        "lang en_US.UTF-8\nkeyboard --xlayouts=us\ntimezone Europe/Paris --utc\nrootpw --lock\n\
         part / --size=8192 --fstype=ext4\nfirewall --enabled --ssh\nservices --enabled=sshd,cups\n\
         repo --name=a --baseurl=http://example.org/a\n{script}{script}%packages --nocore\n{packages}%end\n"
    );
    let options = Options::default();
    let start = spent();
    for _ in 0..1000 {
        let parsed = parse("x.ks", text.as_bytes(), &options, &mut NoIncludes);
        assert!(parsed.is_valid(), "{:?}", parsed.diagnostics);
    }
    let allowed = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
    let took = spent() - start;
    assert!(took < allowed, "{took:?}");
}
