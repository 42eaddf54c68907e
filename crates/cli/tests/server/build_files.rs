//! Build files that no friend writes: each is read, or refused with its place; what is read is sent to a server, which builds it
//! or says what is wrong with it.
//!
//! `cargo xtask fuzz-server --seconds N` makes them for longer than the test of every day.

use std::time::{Duration, Instant};

use kiln_client::{Kind, config};
use serde_json::Value;

use crate::harness::{BUILDS, Server};
use crate::hostile::{Dice, number};

const WHOLE: &str = "# a build
steps:
- &one
  name: kiln
  id: first
  args: [check, good.ks]
  env: ['A=b']
  timeout: 5s
- name: kiln
  id: second
  waitFor: [first]
  args:
  - check
  - \"$_A.ks\"
- <<: *one
  id: third
substitutions: {_A: x}
artifacts:
  objects:
    location: gs://none/$BUILD_ID
    paths: ['*.ks', '**']
options:
  dynamicSubstitutions: true
  env: [C=d]
timeout: 60s
tags: [t]
";
/// What means something in YAML, or once did.
const TOKENS: &[&str] = &[
    "&one ",
    "*one",
    "*none",
    "&a [*a]",
    "<<: *one",
    "<<: [*one, *one]",
    "<<: 1",
    "!!binary aGk=",
    "!!python/object/apply:os.system [id]",
    "!!int x",
    "!tag ",
    "!<tag:yaml.org,2002:str> 1",
    "%YAML 9.9\n",
    "%TAG ! tag:x:\n",
    "---\n",
    "...\n",
    "? ",
    "? [a, b]\n: c",
    "|\n",
    ">-\n  x\n",
    "|99\n",
    "\u{feff}",
    "\0",
    "\t",
    "\r\n",
    "\u{2028}",
    "\u{85}",
    "\u{7f}",
    ".inf",
    "-.nan",
    "1e999",
    "0x7fffffffffffffffff",
    "0o17",
    "1_000",
    "~",
    "null",
    "yes",
    "2026-11-28",
    "12:30:45",
    "{",
    "}",
    "[",
    "]",
    ",",
    ": ",
    "- ",
    "#",
    "'",
    "\"",
    "\"\\x",
    "\"\\ud800\"",
    "\"\\U00110000\"",
    "@",
    "`",
    "%",
    "steps: 1\n",
    "steps: []\n",
    "name: {}\n",
    "args: {a: b}\n",
    "env: 3\n",
    "1: 2\n",
    "[a]: b\n",
    "{a: b}: c\n",
    "null: x\n",
    "true: x\n",
];

impl Dice {
    /// A build file with something changed in it.
    fn build_file(&mut self) -> Vec<u8> {
        let mut lines: Vec<String> = WHOLE.lines().map(str::to_owned).collect();
        for _ in 0..self.roll(5) {
            let (at, other) = (self.roll(lines.len()), self.roll(lines.len()));
            match self.roll(7) {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[other].clone()),
                2 => lines.swap(at, other),
                3 => lines[at].insert_str(0, &" ".repeat(self.roll(5))),
                4 => lines[at] = lines[at].trim_start().to_owned(),
                5 => lines[at] = self.large(),
                _ => {
                    let place = self.roll(lines[at].len() + 1);
                    let place =
                        (place..=lines[at].len()).find(|place| lines[at].is_char_boundary(*place));
                    let token = self.pick(TOKENS);
                    lines[at].insert_str(place.unwrap_or(0), token);
                }
            }
            if lines.is_empty() {
                lines.push(String::new());
            }
        }
        let mut bytes = lines
            .join(["\n", "\r\n", "\r"][self.roll(20).saturating_sub(17)])
            .into_bytes();
        if self.roll(4) == 0 && !bytes.is_empty() {
            let at = self.roll(bytes.len());
            match self.roll(3) {
                0 => bytes.truncate(at),
                1 => bytes[at] = u8::try_from(self.roll(256)).unwrap(),
                _ => bytes.insert(at, b"{[\"'\\\x00\xff&*!|>%"[self.roll(13)]),
            }
        }
        bytes
    }

    /// Something that is small to write and large to read.
    fn large(&mut self) -> String {
        let many = 1 + self.roll(5000);
        match self.roll(8) {
            0 => format!("a: {}", "[".repeat(many)),
            1 => format!("a: {}{}", "{a: ".repeat(many), "}".repeat(many)),
            2 => format!("a: {}b", "- ".repeat(many)),
            3 => "  - {name: kiln, args: [check, x.ks]}\n".repeat(2 * many),
            4 => format!("tags: [{}]", "x, ".repeat(many)),
            5 => format!(
                "a: &x {}\nb: [{}]",
                "y".repeat(100 * many),
                "*x, ".repeat(many)
            ),
            6 => {
                let mut bomb = "b0: &b0 [x, x, x, x]\n".to_owned();
                for level in 1..=self.roll(30) {
                    bomb.push_str(&format!(
                        "b{level}: &b{level} [{}]\n",
                        format!("*b{}, ", level - 1).repeat(8)
                    ));
                }
                bomb
            }
            _ => (0..many % 300)
                .map(|level| format!("{}k{level}:\n", " ".repeat(level)))
                .collect(),
        }
    }
}

#[test]
fn any_build_file_is_read_or_refused() {
    let seconds = number("KILN_FUZZ_SECONDS").unwrap_or(3);
    let seed = number("KILN_FUZZ_SEED").unwrap_or(0x5eed);
    let server = Server::open();
    let mut dice = Dice(seed.max(1));
    let (since, mut made) = (Instant::now(), 0_u64);
    let (mut refused, mut sent, mut built) = (0_u64, 0_u64, 0_u64);
    while since.elapsed() < Duration::from_secs(seconds) {
        let bytes = dice.build_file();
        // As the client reads a file: what is no UTF-8 is refused before.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let name = if dice.roll(10) == 0 {
            "c.json"
        } else {
            "c.yaml"
        };
        let number = made;
        let told = || format!("seed {seed}, file {number}, {name}:\n{:.2000}", text);
        made += 1;
        let began = Instant::now();
        let read = config::read(&text, name);
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}, {}",
            began.elapsed(),
            told()
        );
        match read {
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind, Kind::Input, "{}", told());
                let place = error.place.as_deref().unwrap_or("");
                assert!(
                    place.starts_with(&format!("{name}:")),
                    "{error:?}, {}",
                    told()
                );
                assert!(error.to_string().contains(name), "{error}, {}", told());
            }
            Ok(build) => {
                let body = build.to_string();
                assert!(body.len() < 64 << 20, "{} bytes, {}", body.len(), told());
                let (status, answer) = server.request("POST", BUILDS, "", body.as_bytes());
                let answer: Value =
                    serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", told()));
                sent += 1;
                match status {
                    200 => built += 1,
                    400..=499 => {
                        let message = answer["error"]["message"].as_str().unwrap_or("");
                        assert!(
                            !message.is_empty() && !message.contains("internal error"),
                            "{answer}, {}",
                            told()
                        );
                    }
                    _ => panic!("{status} {answer}, {}", told()),
                }
            }
        }
    }
    println!("seed {seed}: {made} build files, {refused} refused, {sent} sent, {built} built");
    assert!(
        refused > 20 && built > 0,
        "of {made} files {refused} were refused, {built} built"
    );
    assert!(server.request("GET", "/healthz", "", b"").0 == 200);
}
