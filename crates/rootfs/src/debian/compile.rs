//! Byte-compiling for PyPy, on another processor than dpkg's.
//!
//! Debian's packages of Python modules compile them for PyPy too if it is there, one script after the other, each with a PyPy that
//! is started for it. In a desktop with PyPy that is a seventh of the whole build, while a processor is idle. Nothing but PyPy reads what comes
//! of it, and `pypy3compile` writes it whether it is there or not: so it makes no difference when that happens. `py3compile` leaves
//! alone what an import has written before, so there it would.

use kiln_sandbox::Mount;

use super::daemons;
use super::deb::Deb;

/// The package whose program is stood in for.
const PYPY: &str = "pypy3";
/// Runs dpkg and the queue.
const BESIDE: &str = "/run/kiln/beside";

/// Whether packages may compile for PyPy.
pub(super) fn compiles<'a>(mut debs: impl Iterator<Item = &'a Deb>) -> bool {
    debs.any(|deb| deb.name == PYPY)
}

/// What a run of [`beside`] has mounted.
pub(super) fn mounts() -> [Mount; 2] {
    let script = |target: String, content: &str| Mount::File {
        target,
        content: content.as_bytes().to_vec(),
        mode: 0o755,
    };
    [
        script(BESIDE.to_owned(), include_str!("beside.sh")),
        script(
            format!("{}/pypy3compile", daemons::OWN),
            include_str!("compile.sh"),
        ),
    ]
}

/// The command with the queue beside it.
pub(super) fn beside(argv: Vec<String>) -> Vec<String> {
    std::iter::once(BESIDE.to_owned()).chain(argv).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::{Command, Output};

    /// The scripts in a directory of their own, with a `pypy3compile` that notes what it is told to do, and packages
    /// whose lists are in files of their names.
    fn run(dir: &Path, compiler: &str, dpkg: &str) -> Output {
        let root = dir.display().to_string();
        let put = |name: &str, text: &str| {
            let text = text
                .replace("/run/kiln", &root)
                .replace("/usr/bin/pypy3compile", &format!("{root}/real"));
            let file = dir.join(name);
            fs::write(&file, text).expect("a script");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
        };
        put("beside", include_str!("beside.sh"));
        put("pypy3compile", include_str!("compile.sh"));
        put(
            "real",
            &format!("#!/bin/sh\necho \"$*\" >> {root}/said\n{compiler}\n"),
        );
        put(
            "dpkg-query",
            &format!("#!/bin/sh\nshift; cd {root}; cat \"$@\"\n"),
        );
        put("dpkg", &format!("#!/bin/sh\ncd {root}\n{dpkg}\n"));
        let path = std::env::var("PATH").expect("a PATH");
        let mut command = Command::new(dir.join("beside"));
        command
            .env("PATH", format!("{root}:{path}"))
            .arg(dir.join("dpkg"));
        command.output().expect("a shell")
    }

    fn said(dir: &Path) -> Vec<String> {
        let said = fs::read_to_string(dir.join("said")).expect("what was told");
        let root = format!("{}/", dir.display());
        said.lines().map(|line| line.replace(&root, "@")).collect()
    }

    #[test]
    fn packages_wait_for_nothing_and_everything_is_done_at_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let dpkg = "for name in one two; do\n\
              touch $name.py; echo \"$PWD/$name.py\" > $name; pypy3compile -p $name\n\
              while [ $name = one ] && [ ! -e said ]; do sleep 0.01; done\n\
            done\n\
            pypy3compile -p meld /usr/share/meld\n\
            pypy3compile -p pypy3 -p pypy3-lib:amd64\n\
            pypy3compile -p 'an odd;name'\n\
            echo dpkg is done >> said";
        let wait = "case $* in *one.py) sleep 0.3 ;; esac";
        let output = run(dir.path(), wait, dpkg);
        assert!(output.status.success(), "{output:?}");
        let expected = [
            "@one.py",
            // Not put off: the queue has no way to say it.
            "-p an odd;name",
            "dpkg is done",
            "@two.py",
            "-p meld /usr/share/meld",
            "-p pypy3 -p pypy3-lib:amd64",
        ];
        assert_eq!(said(dir.path()), expected);
        for left in ["compile", "asked", "compiled"] {
            assert!(!dir.path().join(left).exists(), "{left}");
        }
    }

    #[test]
    fn packages_that_ask_while_the_compiler_is_busy_share_a_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let dpkg = "mkdir doc; touch a.py 'b c.py' doc/d.py\n\
            printf '%s\\n' /. \"$PWD/a.py\" \"$PWD/a.pyc\" > a:amd64\n\
            printf '%s\\n' \"$PWD/b c.py\" /usr/share/doc/b/e.py 'diverted by x to: /y.py' > b\n\
            pypy3compile -p pypy3 -p pypy3-lib; pypy3compile -p a:amd64; pypy3compile -p b; pypy3compile -p nobody";
        let output = run(dir.path(), "sleep 0.3", dpkg);
        assert!(output.status.success(), "{output:?}");
        let expected = ["-p pypy3 -p pypy3-lib", "@a.py @b c.py"];
        assert_eq!(said(dir.path()), expected);
    }

    #[test]
    fn of_a_directory_those_modules_are_compiled_that_were_there_when_it_was_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let dpkg = "mkdir -p lib/a.py; touch lib/a.py/__init__.py 'lib/b c.py' lib/d.txt\n\
            pypy3compile \"$PWD/lib\"; touch lib/later.py";
        let output = run(dir.path(), "", dpkg);
        assert!(output.status.success(), "{output:?}");
        let said = said(dir.path()).join("\n");
        assert!(said.contains("@lib/a.py/__init__.py"), "{said}");
        assert!(said.contains("@lib/b c.py"), "{said}");
        assert!(!said.contains("later") && !said.contains("d.txt"), "{said}");
    }

    #[test]
    fn what_was_compiled_with_its_directory_is_compiled_again_only_if_it_has_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let dpkg = "mkdir lib; touch lib/same.py lib/other.py\n\
            pypy3compile \"$PWD/lib\"; until [ -e said ]; do sleep 0.01; done; sleep 0.1\n\
            touch -d 2001-01-01 lib/other.py; touch lib/new.py\n\
            printf '%s\\n' \"$PWD\"/lib/same.py \"$PWD\"/lib/other.py \"$PWD\"/lib/new.py > lib.list\n\
            pypy3compile -p lib.list; pypy3compile -p lib.list";
        let output = run(dir.path(), "", dpkg);
        assert!(output.status.success(), "{output:?}");
        let said = said(dir.path());
        assert!(said[0].contains("same.py"), "{said:?}");
        assert_eq!(said[1], "@lib/other.py @lib/new.py", "{said:?}");
        // What has changed once counts as changed from then on.
        assert!(
            said[2..].iter().all(|line| line == "@lib/other.py"),
            "{said:?}"
        );
    }

    #[test]
    fn what_was_made_apart_is_not_compiled_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let answers = dir.path().join("apart/pypy3compile");
        fs::create_dir_all(&answers).expect("a directory");
        let sum = "0".repeat(64);
        for (name, sums) in [
            (
                "one:amd64",
                format!("{sum}  {}/lib/one.py\n", dir.path().display()),
            ),
            (
                "bad",
                format!("{sum}  {}/lib/bad.py\n", dir.path().display()),
            ),
            ("pypy3,pypy3-lib", String::new()),
        ] {
            fs::write(answers.join(name), "").expect("a file");
            fs::write(answers.join(format!("{name}.sums")), sums).expect("a file");
        }
        let script = format!(
            "#!/bin/sh\necho \"answer $2\" >> {}/said\n[ \"$2\" != bad ]\n",
            dir.path().display()
        );
        let stand_in = dir.path().join("kiln-answer");
        fs::write(&stand_in, script).expect("a script");
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).expect("a mode");
        let dpkg = "pypy3compile -p pypy3 -p pypy3-lib\n\
            mkdir lib; touch lib/one.py lib/bad.py; pypy3compile \"$PWD/lib\"\n\
            echo \"$PWD/lib/one.py\" > one:amd64; pypy3compile -p one:amd64";
        let output = run(dir.path(), "sleep 0.3", dpkg);
        assert!(output.status.success(), "{output:?}");
        let expected = [
            "answer pypy3,pypy3-lib",
            "answer bad",
            "answer one:amd64",
            "@lib/bad.py",
            "answer one:amd64",
        ];
        assert_eq!(said(dir.path()), expected);
    }

    #[test]
    fn failures_count_as_they_do_in_scripts() {
        let fails = "exit 3";
        for (dpkg, expected) in [
            // Scripts of packages ignore it.
            ("echo /a.py > six; pypy3compile -p six", 0),
            ("pypy3compile -p meld /usr/share/meld", 0),
            ("mkdir lib; touch lib/a.py; pypy3compile \"$PWD/lib\"", 1),
            ("pypy3compile -p pypy3 -p pypy3-lib", 1),
            ("pypy3compile -p 'an odd;name'", 3),
            ("echo /a.py > six; pypy3compile -p six; exit 7", 7),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let output = run(dir.path(), fails, dpkg);
            assert_eq!(output.status.code(), Some(expected), "{dpkg}: {output:?}");
        }
    }

    #[test]
    fn a_root_without_the_program_is_told_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let output = run(dir.path(), "", "rm real; pypy3compile -p python3-six");
        assert_eq!(output.status.code(), Some(127), "{output:?}");
    }
}
