//! What the real rpm says of two roots.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::tool;
use crate::roots::{Aspect, Difference};
use crate::{Result, process};

/// A question about all packages, and how its answer is read out.
struct Query {
    name: &'static str,
    arguments: &'static [&'static str],
}

/// `SHA256HEADER` is the digest of all that a package's header says, which is signed. What is asked for beside it is what people ask rpm for,
/// and what rpm adds when it installs: the states of files. `gpg-pubkey` is no package: dnf has rpm keep the key that it has checked
/// packages by, Kiln proves packages itself.
const QUERIES: &[Query] = &[
    Query {
        name: "packages, with the digests of their headers and payloads",
        arguments: &[
            "--qf",
            "%{NEVRA} %{SHA256HEADER} %{SIGMD5} %{PAYLOADDIGEST}\\n",
        ],
    },
    Query {
        name: "files: owners, modes, digests, flags, states",
        arguments: &[
            "--qf",
            "[%{=NEVRA} %{FILENAMES} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEMODES:octal} %{FILEDIGESTS} %{FILELINKTOS} \
             %{FILEFLAGS:fflags} %{FILESTATES:fstate}\\n]",
        ],
    },
    Query {
        name: "files with capabilities",
        arguments: &["--qf", "[%{=NEVRA} %{FILENAMES} %{FILECAPS}\\n]"],
    },
    Query {
        name: "scriptlets",
        arguments: &["--scripts"],
    },
    Query {
        name: "triggers",
        arguments: &["--triggers", "--filetriggers"],
    },
    Query {
        name: "provided names",
        arguments: &["--qf", "[%{=NEVRA} %{PROVIDENEVRS}\\n]"],
    },
    Query {
        name: "needed names",
        arguments: &["--qf", "[%{=NEVRA} %{REQUIRENEVRS}\\n]"],
    },
];

/// How many paths rpm is asked about at once.
const PATHS: usize = 500;
/// How much of a difference is shown.
const SHOWN: usize = 20;

fn rpm(root: &Path) -> Command {
    let mut command = tool("rpm");
    command.arg("--root").arg(root);
    command.args(["--dbpath", "/var/lib/rpm", "--nosignature"]);
    command
}

/// Has rpm check both databases and asks both all questions; returns what is not the same.
pub(super) fn queries(ours: &Path, theirs: &Path) -> Result<Vec<String>> {
    for root in [ours, theirs] {
        let mut check = tool("rpmdb");
        check.arg("--root").arg(root);
        check.args(["--dbpath", "/var/lib/rpm", "--verifydb"]);
        process::output(&mut check)?;
    }
    let mut unequal = Vec::new();
    for Query { name, arguments } in QUERIES {
        let ask = |root: &Path| {
            let said = process::output(rpm(root).arg("-qa").args(*arguments))?;
            let lines = said.lines().filter(|line| !line.starts_with("gpg-pubkey-"));
            let mut lines: Vec<String> = lines.map(str::to_owned).collect();
            lines.sort_unstable();
            Ok::<_, String>(lines)
        };
        unequal.extend(same(name, &ask(ours)?, &ask(theirs)?));
    }
    Ok(unequal)
}

/// Asks who owns paths that both roots have.
pub(super) fn owners<'a>(
    ours: &Path,
    theirs: &Path,
    paths: impl Iterator<Item = &'a PathBuf>,
) -> Result<Option<String>> {
    let paths: Vec<PathBuf> = paths.map(|path| Path::new("/").join(path)).collect();
    let ask = |root: &Path| {
        let mut all = Vec::new();
        for some in paths.chunks(PATHS) {
            // It fails where a file is nobody's, and says so among its answers.
            let output = rpm(root).arg("-qf").args(some).output();
            let output = output.map_err(|error| format!("rpm could not be started: {error}"))?;
            let said = String::from_utf8_lossy(&output.stdout);
            // One path may have several owners, in any order.
            let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            all.extend(lines);
        }
        Ok::<_, String>(all)
    };
    let name = format!("owners of the {} paths that both have", paths.len());
    Ok(same(&name, &ask(ours)?, &ask(theirs)?))
}

/// Compares two answers, says what came of it, and returns what is not the same.
fn same(name: &str, ours: &[String], theirs: &[String]) -> Option<String> {
    if ours.is_empty() || theirs.is_empty() {
        return Some(format!("rpm, {name}: a root has nothing of it"));
    }
    if ours == theirs {
        println!("rpm, {name}: {} lines, the same", ours.len());
        return None;
    }
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (ours.iter().collect(), theirs.iter().collect());
    let mut message = format!(
        "rpm, {name}: {} lines of A, {} of B",
        ours.len(),
        theirs.len()
    );
    let only = |side: &str, lines: Vec<&&String>| {
        let shown = lines.iter().take(SHOWN);
        let shown: String = shown
            .map(|line| format!("\n  only {side}: {line}"))
            .collect();
        match lines.len().saturating_sub(SHOWN) {
            0 => shown,
            more => format!("{shown}\n  and {more} more"),
        }
    };
    message += &only("A", a.difference(&b).collect());
    message += &only("B", b.difference(&a).collect());
    Some(message)
}

/// What `rpm -V` finds in one root only, or otherwise there.
pub(super) fn verification(ours: &Path, theirs: &Path) -> Result<Vec<Difference>> {
    let (a, b) = (verified(ours)?, verified(theirs)?);
    println!("rpm -Va: {} lines for A, {} for B", a.len(), b.len());
    let paths: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| a.get(*path) != b.get(*path));
    let word =
        |found: Option<&String>| found.map_or_else(|| "nothing".to_owned(), |f| format!("`{f}`"));
    let difference = |path: &String| Difference {
        path: path.trim_start_matches('/').into(),
        aspect: Aspect::Verification,
        detail: format!(
            "rpm -V says {} in A, {} in B",
            word(a.get(path)),
            word(b.get(path))
        ),
    };
    Ok(differ.map(difference).collect())
}

/// What rpm says of each path that is not as its package has it. Lines without a path are kept whole.
fn verified(root: &Path) -> Result<BTreeMap<String, String>> {
    let output = rpm(root).args(["-Va", "--nomtime"]).output();
    let output = output.map_err(|error| format!("rpm could not be started: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if !complaint.trim().is_empty() {
        return Err(format!("rpm -Va of {}: {complaint}", root.display()));
    }
    Ok(said.lines().map(finding).collect())
}

/// A line such as `S.5......  c /etc/passwd`: the path, and what is before it.
fn finding(line: &str) -> (String, String) {
    match line.find(" /") {
        Some(at) => {
            let (what, path) = line.split_at(at);
            (path.trim().to_owned(), what.trim().to_owned())
        }
        None => (line.to_owned(), line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_have_paths() {
        let (path, what) = finding("S.5......  c /etc/with space");
        assert_eq!(
            (path.as_str(), what.as_str()),
            ("/etc/with space", "S.5......  c")
        );
        let (path, what) = finding("missing     /proc");
        assert_eq!((path.as_str(), what.as_str()), ("/proc", "missing"));
        let odd = "Unsatisfied dependencies for a-1-1.noarch:";
        assert_eq!(finding(odd).0, odd);
    }

    #[test]
    fn answers_that_differ_or_are_empty_are_told() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(same("x", &lines("a b"), &lines("a b")), None);
        let told = same("x", &lines("a b"), &lines("a c")).unwrap();
        assert!(
            told.contains("only A: b") && told.contains("only B: c"),
            "{told}"
        );
        assert!(same("x", &[], &[]).is_some());
    }
}
