//! What packages ask byte-compilers for when they are configured.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A program that compiles modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Compiler {
    /// For CPython.
    Py3compile,
    /// For PyPy.
    Pypy3compile,
}

impl Compiler {
    /// All of them.
    pub(crate) const ALL: [Compiler; 2] = [Compiler::Py3compile, Compiler::Pypy3compile];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Compiler::Py3compile => "py3compile",
            Compiler::Pypy3compile => "pypy3compile",
        }
    }

    /// The package that has it.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Compiler::Py3compile => "python3-minimal",
            Compiler::Pypy3compile => "pypy3",
        }
    }

    /// How the names of its files end, after the module's: `six.cpython-311.pyc`.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Compiler::Py3compile => "cpython-",
            Compiler::Pypy3compile => "pypy",
        }
    }
}

/// A command of a maintainer script that has the modules of packages compiled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) compiler: Compiler,
    /// `NAME[:ARCHITECTURE]`, as the script says it: one, but for PyPy's own modules.
    pub(crate) packages: Vec<String>,
}

impl Ask {
    /// As a name of files.
    pub(crate) fn name(&self) -> String {
        self.packages.join(",")
    }
}

/// The commands of a script that name packages and nothing else, as debhelper writes them: other commands are left to the compiler.
pub(crate) fn asks(script: &[u8]) -> Vec<Ask> {
    let text = String::from_utf8_lossy(script);
    let found: BTreeSet<Ask> = text.lines().filter_map(ask).collect();
    found.into_iter().collect()
}

fn ask(line: &str) -> Option<Ask> {
    let line = line.trim();
    let line = line.strip_suffix("|| true").unwrap_or(line);
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let compiler = Compiler::ALL.into_iter().find(|c| c.name() == name)?;
    let mut packages = Vec::new();
    while let Some(word) = words.next() {
        let package = words.next().filter(|_| word == "-p")?;
        let quoted = package
            .strip_prefix('\'')
            .and_then(|p| p.strip_suffix('\''));
        packages.push(quoted.unwrap_or(package).to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".+:-".contains(c);
    let is_plain = |package: &String| package.chars().all(plain);
    // CPython's has the last one only.
    let most = match compiler {
        Compiler::Py3compile => 1,
        Compiler::Pypy3compile => 2,
    };
    let fits = (1..=most).contains(&packages.len()) && packages.iter().all(is_plain);
    fits.then_some(Ask { compiler, packages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_one_package_are_found_and_others_left_alone() {
        let script = "#!/bin/sh\nset -e\n\
            if command -v py3compile >/dev/null 2>&1; then\n\
            \tpy3compile -p python3-numpy:amd64 \nfi\n\
            \tpypy3compile -p python3-numpy:amd64  || true\n\
            \tpy3compile -p python3-numpy:amd64\n\
            py3compile -p meld /usr/share/meld\n\
            py3compile -p $package\n\
            py3compile -p other -V 3.9\n\
            py3compile /usr/lib/x\npy3compile\npy3compile -p\n\
            py3compile -p one -p two\npypy3compile -p a -p b -p c\n\
            pypy3compile -p pypy3 -p 'pypy3-lib:amd64'\n\
            # py3compile -p commented\n";
        let ask = |compiler, packages: &[&str]| Ask {
            compiler,
            packages: packages.iter().map(|&p| p.to_owned()).collect(),
        };
        let expected = [
            ask(Compiler::Py3compile, &["python3-numpy:amd64"]),
            ask(Compiler::Pypy3compile, &["pypy3", "pypy3-lib:amd64"]),
            ask(Compiler::Pypy3compile, &["python3-numpy:amd64"]),
        ];
        assert_eq!(asks(script.as_bytes()), expected);
        assert!(asks(b"\xff\xfe").is_empty());
    }
}
