//! What a typical kickstart reads as.

use kiln_kickstart::*;

/// Files in memory.
struct Files(Vec<(&'static str, &'static str)>);

impl Loader for Files {
    fn load(&mut self, path: &str, from: &str) -> Result<Loaded, LoadError> {
        let tried = include_candidates(path, from);
        for (name, text) in &self.0 {
            if tried.iter().any(|t| t == name) {
                return Ok(Loaded {
                    name: (*name).to_owned(),
                    bytes: text.as_bytes().to_vec(),
                });
            }
        }
        Err(LoadError::not_found(format!(
            "`{path}` cannot be read: tried {}",
            tried.join(", ")
        )))
    }
}

fn read(text: &str, files: Vec<(&'static str, &'static str)>) -> Parsed {
    parse(
        "lab/main.ks",
        text.as_bytes(),
        &Options::default(),
        &mut Files(files),
    )
}

fn commands(parsed: &Parsed) -> Vec<&Command> {
    let items = parsed.kickstart.items.iter();
    items
        .filter_map(|i| match i {
            Item::Command(c) => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn a_live_kickstart_reads_completely() {
    let parsed = read(
        "lang en_GB.UTF-8 --addsupport=de_DE,fr_FR\nkeyboard --xlayouts='us','de'\n\
         partition / --size=8192 --type=ext4 # root\nfirewall --enabled --ssh --port=8080,53:udp\n\
         %include base.ks\n%post --nochroot --log=/tmp/x.log --interpreter=/bin/bash\necho hi\n%include part.sh\n%end\n",
        vec![
            (
                "lab/base.ks",
                "rootpw --plaintext secret\n%packages --nocore\n@^desktop\nvim\n-nano*\n%end\n",
            ),
            ("lab/part.sh", "touch /tmp/y"),
        ],
    );
    assert_eq!(parsed.diagnostics, []);
    let all = commands(&parsed);
    let names: Vec<_> = all.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["lang", "keyboard", "part", "firewall", "rootpw"]);
    assert_eq!(all[0].args, ["en_GB.UTF-8"]);
    assert_eq!(all[0].list("--addsupport"), ["de_DE", "fr_FR"]);
    assert_eq!(all[1].list("--xlayouts"), ["us", "de"]);
    assert_eq!(all[2].int("--size"), Some(8192));
    assert_eq!(all[2].text("--fstype"), Some("ext4"));
    assert!(all[3].flag("--enable") && all[3].flag("--ssh"));
    assert_eq!(all[3].list("--port"), ["8080:tcp", "53:udp"]);
    assert_eq!(parsed.kickstart.location(all[4].span), "lab/base.ks:1");

    let Some(Item::Packages(packages)) = parsed.kickstart.items.get(5) else {
        panic!("no packages");
    };
    assert!(packages.header.flag("--nocore"));
    assert_eq!(
        packages.items[0].what,
        PackageRef::Environment("desktop".into())
    );
    assert!(packages.items[2].exclude);

    let Some(Item::Script(script)) = parsed.kickstart.items.get(6) else {
        panic!("no script");
    };
    assert_eq!(script.body, "echo hi\ntouch /tmp/y\n");
    assert!(!script.chroot);
    assert_eq!(script.interpreter, "/bin/bash");
    let places: Vec<_> = script
        .lines
        .iter()
        .map(|s| parsed.kickstart.location(*s))
        .collect();
    assert_eq!(places, ["lab/main.ks:7", "lab/part.sh:1"]);
}

#[test]
fn many_findings_in_one_run_each_with_its_place() {
    let parsed = read(
        "timezon UTC\nlang en_US --adsupport=x\nrootpw 'abc\n%pakages\nvim\n%end\npart / --size=big\n",
        vec![],
    );
    let found: Vec<_> = parsed
        .diagnostics
        .iter()
        .map(|d| {
            (
                d.code,
                d.span.unwrap().line,
                d.help.first().map_or("", String::as_str),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("unknown-command", 1, "did you mean `timezone`?"),
            ("unknown-option", 2, "did you mean `--addsupport`?"),
            (
                "quoting",
                3,
                "close it on the same line: a kickstart has no continuation lines"
            ),
            ("unknown-section", 4, "did you mean `%packages`?"),
            ("bad-value", 7, "write `--size=N` with a whole number"),
        ]
    );
}

#[test]
fn a_missing_include_names_what_was_tried() {
    let parsed = read("%include gone.ks\n", vec![]);
    let [one] = &parsed.diagnostics[..] else {
        panic!()
    };
    assert_eq!(
        one.message,
        "`gone.ks` cannot be read: tried gone.ks, lab/gone.ks"
    );
}

#[test]
fn an_include_loop_is_told_as_a_chain() {
    let parsed = read(
        "%include a.ks\nskipx\n",
        vec![
            ("lab/a.ks", "%include b.ks\n"),
            ("lab/b.ks", "%include a.ks\n"),
        ],
    );
    let [one] = &parsed.diagnostics[..] else {
        panic!()
    };
    assert_eq!(
        one.message,
        "this include closes an include loop: lab/a.ks → lab/b.ks → lab/a.ks"
    );
    assert_eq!(commands(&parsed).len(), 1);
}

#[test]
fn a_rendered_finding_shows_the_line() {
    let parsed = read("skipx\n  part / --size=8 --labl=x\n", vec![]);
    assert_eq!(
        render(&parsed.kickstart, &parsed.diagnostics[0]),
        "error[unknown-option]: `part` has no option `--labl`\n \
         --> lab/main.ks:2:19\n  |\n2 |   part / --size=8 --labl=x\n  |                   ^^^^^^^^\n  \
         = help: did you mean `--label`?\n"
    );
}
