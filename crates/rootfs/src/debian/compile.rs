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

    /// The scripts in a directory of their own, with a `pypy3compile` that notes what it is told to do.
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
            "dpkg",
            &format!("#!/bin/sh\nPATH={root}:$PATH\ncd {root}\n{dpkg}\n"),
        );
        let mut command = Command::new(dir.join("beside"));
        command.arg(dir.join("dpkg")).output().expect("a shell")
    }

    fn said(dir: &Path) -> Vec<String> {
        let said = fs::read_to_string(dir.join("said")).expect("what was told");
        said.lines().map(str::to_owned).collect()
    }

    #[test]
    fn packages_wait_for_nothing_and_everything_is_done_at_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let dpkg = "pypy3compile -p python3-six\n\
            pypy3compile -p meld /usr/share/meld\n\
            pypy3compile -p pypy3 -p pypy3-lib:amd64\n\
            pypy3compile -p 'an odd;name'\n\
            echo dpkg is done >> said";
        let output = run(dir.path(), "[ \"$2\" = pypy3 ] || sleep 0.3", dpkg);
        assert!(output.status.success(), "{output:?}");
        let mut said = said(dir.path());
        let done = said.iter().position(|line| line == "dpkg is done");
        // PyPy's own modules are not put off, nor what the queue has no way to say.
        let at_once = said
            .iter()
            .position(|line| line == "-p pypy3 -p pypy3-lib:amd64");
        assert!(at_once < done, "{said:?}");
        assert!(
            said.iter().position(|line| line == "-p an odd;name") < done,
            "{said:?}"
        );
        said.sort();
        let all = [
            "-p an odd;name",
            "-p meld /usr/share/meld",
            "-p pypy3 -p pypy3-lib:amd64",
        ];
        assert_eq!(
            said,
            [&all[..], &["-p python3-six", "dpkg is done"]].concat()
        );
        assert!(!dir.path().join("compile").exists());
    }

    #[test]
    fn of_a_directory_those_modules_are_compiled_that_were_there_when_it_was_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().display();
        let dpkg = "mkdir -p lib/a.py; touch lib/a.py/__init__.py 'lib/b c.py' lib/d.txt\n\
            pypy3compile \"$PWD/lib\"; touch lib/later.py";
        let output = run(dir.path(), "", dpkg);
        assert!(output.status.success(), "{output:?}");
        let said = said(dir.path()).join("\n");
        assert!(
            said.contains(&format!("{root}/lib/a.py/__init__.py")),
            "{said}"
        );
        assert!(said.contains(&format!("{root}/lib/b c.py")), "{said}");
        assert!(!said.contains("later") && !said.contains("d.txt"), "{said}");
    }

    #[test]
    fn failures_count_as_they_do_in_scripts() {
        let fails = "exit 3";
        for (dpkg, expected) in [
            // Scripts of packages ignore it.
            ("pypy3compile -p python3-six", 0),
            ("mkdir lib; touch lib/a.py; pypy3compile \"$PWD/lib\"", 1),
            ("pypy3compile -p pypy3 -p pypy3-lib", 3),
            ("pypy3compile -p python3-six; exit 7", 7),
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
