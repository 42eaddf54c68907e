//! Kickstarts made out of the shared cases and the option tables: valid ones, nearly valid ones, and odd ones.

use std::collections::BTreeMap;

use kiln_kickstart::{
    Argument, ArgumentKind, CommandEntry, State, ValueType, Version, command_table,
};

use crate::differences::{Case, Input};
use crate::random::Random;

/// What the shared cases consist of.
pub(crate) struct Stock {
    /// All inputs.
    texts: Vec<String>,
    /// Command lines of inputs that the reference accepts, by their first word.
    lines: BTreeMap<String, Vec<String>>,
    /// Values, by the option that they were given to.
    values: BTreeMap<String, Vec<String>>,
}

impl Stock {
    pub(crate) fn new(cases: Vec<Case>) -> Stock {
        let mut stock = Stock {
            texts: Vec::new(),
            lines: BTreeMap::new(),
            values: BTreeMap::new(),
        };
        for case in cases {
            let text = case.input.input;
            for line in text.lines() {
                if case.answer.ok {
                    stock.add_line(line);
                }
                stock.add_values(line);
            }
            if !stock.texts.contains(&text) {
                stock.texts.push(text);
            }
        }
        stock
    }

    fn add_line(&mut self, line: &str) {
        let first = line.split_whitespace().next().unwrap_or("");
        let lines = self.lines.entry(first.to_owned()).or_default();
        if !lines.iter().any(|l| l == line) {
            lines.push(line.to_owned());
        }
    }

    fn add_values(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            let (name, value) = match pair[1].split_once('=') {
                Some(pair) => pair,
                None => (pair[0], pair[1]),
            };
            if name.starts_with("--") && !name.contains('=') {
                let values = self.values.entry(name.to_owned()).or_default();
                if !values.iter().any(|v| v == value) {
                    values.push(value.to_owned());
                }
            }
        }
    }
}

const VERSIONS: [&Version; 7] = [
    &Version::Rhel8,
    &Version::Rhel9,
    &Version::Rhel10,
    &Version::F42,
    &Version::F43,
    &Version::F44,
    &Version::F45,
];

/// Texts that are quoted right where they need it.
const TEXTS: [&str; 26] = [
    "a",
    "b",
    "0",
    "/dev/sda1",
    "md0",
    "a,b",
    "a, b ,,c",
    "a=b",
    "a=1,b=2",
    "x y",
    "",
    " ",
    "a#b",
    "#x",
    "it's",
    "say \"hi\"",
    "{\"k\": {\"n\": 1}}",
    "back\\slash",
    "$VAR",
    "é",
    "-5",
    "-x",
    "--y",
    "http://example.com/x?a=b&c=d",
    "*",
    "a:b",
];
const NUMBERS: [&str; 17] = [
    "0", "2", "10", "3260", "1", "5", "100", "101", "4096", "-3", "+5", "1_000", " 7 ", "007", "x",
    "1.5", "",
];
const POSITIONALS: [&str; 16] = [
    "/",
    "/boot//",
    "/home",
    "swap",
    "none",
    "raid.01",
    "raid.02",
    "pv.01",
    "btrfs.01",
    "vg/lv",
    "LABEL=x",
    "join",
    "use",
    "reconfigure",
    "Europe/Paris",
    "sda1",
];

/// Makes one input; the same for the same seed and index.
pub(crate) fn input(stock: &Stock, seed: u64, index: u64) -> Input {
    let mut maker = Maker {
        stock,
        random: Random::new(seed, index),
        version: Version::F45,
    };
    maker.version = *maker.random.pick(&VERSIONS);
    maker.input()
}

struct Maker<'a> {
    stock: &'a Stock,
    random: Random,
    version: Version,
}

impl Maker<'_> {
    fn input(&mut self) -> Input {
        let mut files = BTreeMap::new();
        let mut text = match self.random.below(10) {
            0..4 => self.lines(),
            4..6 => self.mutated_case(),
            _ => self.file(&mut files),
        };
        if self.random.chance(12) {
            text = self.damaged(&text);
        }
        let latin1 = text.chars().all(|c| u32::from(c) < 256) && self.random.chance(3);
        Input {
            version: self.version,
            latin1: latin1 && files.is_empty(),
            input: text,
            files,
        }
    }

    /// One to four lines, most of one command: what repeated lines add up to is part of the language.
    fn lines(&mut self) -> String {
        let mut entry = self.command();
        let mut out = String::new();
        for _ in 0..=self.random.below(4) {
            if self.random.chance(25) {
                entry = self.command();
            }
            out.push_str(&self.line(entry));
            if self.random.chance(4) {
                out.push_str(self.random.pick(&[" # comment", "#comment", " ", "\t"]));
            }
            out.push('\n');
        }
        out
    }

    fn command(&mut self) -> &'static CommandEntry {
        loop {
            let table = command_table();
            let entry = &table[self.random.below(table.len())];
            let active = entry
                .variant(self.version)
                .is_some_and(|v| v.state == State::Active && !v.arguments.is_empty());
            if active || self.random.chance(4) {
                return entry;
            }
        }
    }

    fn line(&mut self, entry: &CommandEntry) -> String {
        let arguments = self.arguments(entry);
        let written = self.stock.lines.get(&entry.name);
        let mut words: Vec<String> = match written {
            Some(lines) if self.random.chance(60) => {
                let line = &lines[self.random.below(lines.len())];
                line.split(' ')
                    .skip(1)
                    .filter(|w| !w.is_empty())
                    .map(str::to_owned)
                    .collect()
            }
            _ => {
                let mut words = Vec::new();
                let places = arguments.iter().filter(|a| a.names.is_empty()).count();
                for _ in 0..places {
                    words.push(self.positional());
                }
                for argument in arguments
                    .iter()
                    .filter(|a| a.required && !a.names.is_empty())
                {
                    let value = self.value(&argument.names[0], argument);
                    words.push(format!("{}={value}", argument.names[0]));
                }
                for _ in 0..self.random.below(5) {
                    self.add_option(&mut words, arguments);
                }
                words
            }
        };
        if self.random.chance(60) && !arguments.is_empty() {
            for _ in 0..=self.random.below(2) {
                self.edit(&mut words, arguments);
            }
        }
        let mut out = entry.name.clone();
        for word in words {
            out.push(' ');
            out.push_str(&word);
        }
        out
    }

    /// The arguments of a command, now and then of another version.
    fn arguments<'e>(&mut self, entry: &'e CommandEntry) -> &'e [Argument] {
        let version = match self.random.chance(3) {
            true => *self.random.pick(&VERSIONS),
            false => self.version,
        };
        entry.variant(version).map_or(&[], |v| &v.arguments)
    }

    fn edit(&mut self, words: &mut Vec<String>, arguments: &[Argument]) {
        let at = self.random.below(words.len() + 1);
        match self.random.below(40) {
            0..2 if at < words.len() => drop(words.remove(at)),
            2 if at < words.len() => words.insert(at, words[at].clone()),
            3 if at < words.len() => words.swap(at, 0),
            4..10 if at < words.len() => {
                if let Some((name, _)) = words[at].clone().split_once('=') {
                    words[at] = format!("{name}={}", self.text());
                }
            }
            10..12 if arguments.iter().any(|a| a.names.is_empty()) => {
                words.insert(at, self.positional());
            }
            _ => {
                let mut option = Vec::new();
                self.add_option(&mut option, arguments);
                words.splice(at..at, option).for_each(drop);
            }
        }
    }

    fn positional(&mut self) -> String {
        match self.random.chance(75) {
            true => self.random.pick(&POSITIONALS).to_owned(),
            false => self.text(),
        }
    }

    fn add_option(&mut self, words: &mut Vec<String>, arguments: &[Argument]) {
        let named: Vec<&Argument> = arguments.iter().filter(|a| !a.names.is_empty()).collect();
        if named.is_empty() {
            return;
        }
        if self.random.chance(1) {
            return words.push(
                self.random
                    .pick(&["--nosuch", "--nosuch=1", "-n"])
                    .to_owned(),
            );
        }
        let argument = self.random.pick(&named);
        let spelling = self.random.below(argument.names.len());
        let full = &argument.names[spelling];
        let mut name = full.clone();
        if self.random.chance(4) {
            let kept = 3 + self.random.below(name.len().saturating_sub(3));
            name.truncate(kept);
        }
        if argument.kind == ArgumentKind::Switch {
            if self.random.chance(3) {
                name.push_str("=x");
            }
            return words.push(name);
        }
        let value = self.value(full, argument);
        match self.random.below(40) {
            0..32 => words.push(format!("{name}={value}")),
            32..39 => words.extend([name, value]),
            _ => words.push(name),
        }
    }

    fn value(&mut self, name: &str, argument: &Argument) -> String {
        let written = match self.random.chance(10) {
            true if name == "--fstype" => {
                return self
                    .random
                    .pick(&["btrfs", "tmpfs", "swap", "xfs"])
                    .to_owned();
            }
            _ => self.stock.values.get(name),
        };
        match (written, argument.choices.is_empty()) {
            (Some(values), _) if self.random.chance(60) => {
                values[self.random.below(values.len())].clone()
            }
            (_, false) if self.random.chance(80) => {
                argument.choices[self.random.below(argument.choices.len())].clone()
            }
            _ if argument.value_type == ValueType::Integer && self.random.chance(90) => {
                let number = self.random.pick(&NUMBERS).to_owned();
                self.quoted(&number)
            }
            _ => self.text(),
        }
    }

    fn text(&mut self) -> String {
        let text = self.random.pick(&TEXTS).to_owned();
        self.quoted(&text)
    }

    /// The text as a word of a line, with one of the possible kinds of quotes; now and then without any.
    fn quoted(&mut self, text: &str) -> String {
        let plain = |c: char| c.is_alphanumeric() || "-_=,.:/*?&$@".contains(c);
        if (!text.is_empty() && text.chars().all(plain) && self.random.chance(80))
            || self.random.chance(4)
        {
            return text.to_owned();
        }
        let double = |t: &str| format!("\"{}\"", t.replace('\\', "\\\\").replace('"', "\\\""));
        let single = |t: &str| format!("'{}'", t.replace('\'', "'\"'\"'"));
        match self.random.below(5) {
            0..2 => double(text),
            2..4 => single(text),
            _ if text.is_empty() => "''".to_owned(),
            _ => text
                .chars()
                .flat_map(|c| match plain(c) {
                    true => vec![c],
                    false => vec!['\\', c],
                })
                .collect(),
        }
    }

    /// A shared case in any version, or two in one.
    fn mutated_case(&mut self) -> String {
        let texts = &self.stock.texts;
        let mut text = texts[self.random.below(texts.len())].clone();
        for _ in 0..self.random.below(2) {
            let other = &texts[self.random.below(texts.len())];
            text = format!("{}\n{other}", text.trim_end_matches('\n'));
        }
        match self.random.chance(50) {
            true => self.damaged(&text),
            false => text,
        }
    }

    /// A few characters or lines go, come, or come twice.
    fn damaged(&mut self, text: &str) -> String {
        const CHARS: [&str; 25] = [
            "\"", "'", "\\", "#", "%", "@", "-", "=", ",", " ", "\t", "\r", "\n", "\u{b}", "\u{c}",
            "\u{1c}", "\u{1f}", "\u{85}", "\u{2028}", "\u{a0}", "\u{feff}", "é", "\0", "^", ":",
        ];
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=self.random.below(3) {
            let at = self.random.below(chars.len() + 1);
            match self.random.below(8) {
                0 if at < chars.len() => drop(chars.remove(at)),
                1 => chars.truncate(at),
                2 => {
                    let text: String = chars.iter().collect();
                    let lines: Vec<&str> = text.lines().collect();
                    let line = lines.get(self.random.below(lines.len())).unwrap_or(&"");
                    let more = format!("{text}\n{line}");
                    chars = more.chars().collect();
                }
                3 if at < chars.len() => chars[at] = chars[at].to_ascii_uppercase(),
                _ => {
                    let more = self.random.pick(&CHARS);
                    chars.splice(at..at, more.chars()).for_each(drop);
                }
            }
        }
        chars.into_iter().collect()
    }

    /// Commands, sections, comments, includes.
    fn file(&mut self, files: &mut BTreeMap<String, String>) -> String {
        let mut out = String::new();
        for _ in 0..=self.random.below(5) {
            match self.random.below(12) {
                0..3 => {
                    let entry = self.command();
                    out.push_str(&self.line(entry));
                    out.push('\n');
                }
                3 => out.push_str(self.random.pick(&[
                    "\n",
                    "# x\n",
                    "  \n",
                    "#platform=x86\n",
                    "#platform= a b \n",
                    "#version=F43\n",
                    "  #platform=y\n",
                    "#platform=\n",
                ])),
                4 if self.random.chance(60) => self.include(&mut out, files),
                5..8 => self.packages(&mut out, files),
                _ => self.section(&mut out, files),
            }
        }
        out
    }

    fn include(&mut self, out: &mut String, files: &mut BTreeMap<String, String>) {
        let name = self.random.pick(&["a.ks", "b.ks"]);
        if files.len() < 2 && self.random.chance(85) {
            // Reserved first, so that what it includes in turn makes no other text of that name.
            files.insert(name.to_owned(), String::new());
            let text = match self.random.below(3) {
                0 => self.lines(),
                1 => self.file(files),
                _ => self.body_lines(),
            };
            files.insert(name.to_owned(), text);
        }
        let word = match self.random.chance(90) {
            true => "%include",
            false => "%ksappend",
        };
        out.push_str(&match self.random.below(20) {
            0 => format!("{word}\n"),
            1 => format!("  {word} {name}\n"),
            2 => format!("{word} '{name}' x # y\n"),
            _ => format!("{word} {name}\n"),
        });
    }

    fn body_lines(&mut self) -> String {
        const LINES: [&str; 16] = [
            "echo hi",
            "",
            "  # comment",
            "vim",
            "-nano",
            "@core",
            "-@core",
            "  indented",
            "%notasection",
            "cat <<'E'",
            "it's",
            "a \"b",
            "%end # x",
            "lang en_US",
            "x\\",
            "%foo bar",
        ];
        let count = self.random.below(4);
        (0..count)
            .map(|_| format!("{}\n", self.random.pick(&LINES)))
            .collect()
    }

    fn end(&mut self, out: &mut String) {
        out.push_str(match self.random.below(80) {
            0 => "",
            1 => "  %end\n",
            2 => "%end of it\n",
            3 => "%end",
            4 => "%END\n",
            5 => "%end#\n",
            6 => "%end it's\n",
            _ => "%end\n",
        });
    }

    fn section(&mut self, out: &mut String, files: &mut BTreeMap<String, String>) {
        const NAMES: [&str; 9] = [
            "%pre",
            "%pre-install",
            "%post",
            "%onerror",
            "%traceback",
            "%certificate",
            "%addon",
            "%anaconda",
            "%nosuch",
        ];
        const SCRIPT: [&str; 14] = [
            "--interpreter=/usr/bin/python3",
            "--interpreter /bin/bash",
            "--log=/tmp/x",
            "--logfile=/tmp/y z",
            "--logfile='/tmp/y z'",
            "--erroronfail",
            "--nochroot",
            "--log=",
            "--interpreter=''",
            "--err",
            "--lo=x",
            "extra",
            "--nosuch",
            "# comment",
        ];
        const CERTIFICATE: [&str; 9] = [
            "--filename=a.pem",
            "--dir=/etc/x",
            "--type=anchor",
            "--dir=''",
            "--filename=''",
            "--type=",
            "extra",
            "--filename='a b'",
            "--file=c",
        ];
        let index = self.random.below(NAMES.len() * 10 - 9) / 10;
        let name = NAMES[index];
        let options: &[&str] = match name {
            "%certificate" => &CERTIFICATE,
            _ => &SCRIPT,
        };
        out.push_str(name);
        if name == "%certificate" && self.random.chance(80) {
            out.push_str(" --filename=x.pem --dir=/etc/pki");
        }
        for _ in 0..self.random.below(3) {
            out.push(' ');
            out.push_str(self.random.pick(options));
        }
        out.push('\n');
        out.push_str(&self.body_lines());
        if self.random.chance(12) {
            self.include(out, files);
        }
        out.push_str(&self.body_lines());
        self.end(out);
    }

    fn packages(&mut self, out: &mut String, files: &mut BTreeMap<String, String>) {
        const WRONG: [&str; 5] = ["--ignore", "--exclude", "--timeout=x", "extra", "--nobase"];
        const OPTIONS: [&str; 17] = [
            "--default",
            "--excludedocs",
            "--ignoremissing",
            "--multilib",
            "--nocore",
            "--timeout=5",
            "--retries=0",
            "--timeout 0",
            "--instLangs=de,fr",
            "--inst-langs=en",
            "--inst-langs=",
            "--inst-langs='a b'",
            "--excludeWeakdeps",
            "--exclude-weakdeps",
            "--ignorebroken",
            "--excluded",
            "--multi",
        ];
        const ODD: [&str; 3] = ["-", "@core --nodefaults --optional", "@core --nodefaults=1"];
        const ITEMS: [&str; 37] = [
            "vim",
            "-vim",
            "nano # x",
            "vim nano",
            "-nano*",
            "a#b",
            "@core",
            "-@core",
            "@^env",
            "-@^env",
            "@^ env",
            "-@^other",
            "@core --nodefaults",
            "@core --optional",
            "@core --nodef",
            "-@core --optional",
            "@ core",
            "-@ core",
            "@a b",
            "-@a b",
            "@node:18/min",
            "-@node:18/min",
            "@node:18",
            "@",
            "-@",
            "@^",
            "@core --x",
            "  indented",
            "\tx",
            "x.i686",
            "- x",
            "-- x",
            "--x",
            "@--optional x",
            "@a  b",
            "-@a  b",
            "@node:18 --optional",
        ];
        out.push_str("%packages");
        for _ in 0..self.random.below(4) {
            let odd = self.random.chance(3);
            out.push(' ');
            out.push_str(
                self.random
                    .pick(if odd { &WRONG[..] } else { &OPTIONS[..] }),
            );
        }
        out.push('\n');
        for _ in 0..self.random.below(6) {
            let odd = self.random.chance(3);
            out.push_str(self.random.pick(if odd { &ODD[..] } else { &ITEMS[..] }));
            out.push('\n');
        }
        if self.random.chance(10) {
            self.include(out, files);
        }
        self.end(out);
    }
}
