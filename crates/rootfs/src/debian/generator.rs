//! What Debian's mkinitramfs and its hooks list directories for.
//!
//! They expand patterns like `/etc/ld.so.conf*`, and so they read all names in `/etc`, `/` and `/usr/lib`: without this knowledge any
//! file that a script adds to `/etc`, and any package with a directory in `/usr/lib`, would cost a new initramfs. What a script
//! expands is known for the very scripts that were read by people, and only while the configuration that they source does nothing
//! but set variables.
//!
//! The functions that hooks share are known too, and get a few more behind them that spare processes (`hook-functions.sh`).

use std::fs;
use std::path::Path;

use kiln_digest::Sha256;
use kiln_sandbox::{Call, Mount, Say, Silence};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::regular;
use crate::run::{Extras, Place};
use crate::trace::{Affixes, Glob, Search};

/// A script that was read.
struct Script {
    path: &'static str,
    /// SHA-256 of those of its versions that were read.
    versions: &'static [&'static str],
    /// Other scripts that it sources.
    functions: &'static [Functions],
    /// What it sources besides: files, and all files of directories.
    configuration: &'static [&'static str],
    /// What its own process lists directories for. Other listings, of directories that matter as a whole, are not here.
    globs: &'static [(&'static str, &'static [&'static str])],
}

/// Functions for scripts, and SHA-256 of those of their versions that were read.
struct Functions {
    path: &'static str,
    versions: &'static [&'static str],
}

/// Versions are those of bookworm and of trixie: initramfs-tools 0.142+deb12u3 and 0.148.4, klibc 2.0.12 and 2.0.14, live-boot
/// 20230131 and 20250815.
const SCRIPTS: &[Script] = &[
    Script {
        path: "/usr/sbin/mkinitramfs",
        versions: &[
            "30ca50148a93b77b596097f0905c2b6c1f04deacfe2d01bdb04f4b0f04ffaed8",
            "16780cbe540fa1a9d7b1faad173b1fd74bdd4de3e56e773d10462d9ce77161bf",
        ],
        functions: &[HOOK_FUNCTIONS, BOOT_FUNCTIONS],
        configuration: &[
            "/etc/initramfs-tools/initramfs.conf",
            "/etc/initramfs-tools/conf.d",
            "/usr/share/initramfs-tools/conf.d",
            "/usr/share/initramfs-tools/conf-hooks.d",
        ],
        globs: &[("/", &["lib*"]), ("/etc", &["ld.so.conf*"])],
    },
    Script {
        path: "/usr/share/initramfs-tools/hooks/klibc-utils",
        versions: &[
            "cbf958037f123a092c7b13a87206397f3950aa3dc402c4dde8ffb3884628f0f2",
            "56e06e437c8b05f066d3f86f9af7b49425b27949164aaf83890dbe154ebe42ba",
        ],
        functions: &[],
        configuration: &[],
        globs: &[("/usr/lib", &["klibc-*.so"])],
    },
    Script {
        path: "/usr/share/initramfs-tools/hooks/live",
        versions: &[
            "046f032b3d282b76768f817a62e299827e1175982cfc39fd28f4f3faaa31234a",
            "a66e3336d293267cea750290efe12a989172899464ffdd49f57b24f2949bfe40",
        ],
        functions: &[HOOK_FUNCTIONS],
        configuration: &["/etc/live/boot.conf", "/etc/live/boot"],
        globs: &[(
            "/usr/lib",
            &[
                "libacl*",
                "libblkid*",
                "libuuid*",
                "libdevmapper*",
                "libattr*",
            ],
        )],
    },
];

const HOOK_FUNCTIONS: Functions = Functions {
    path: "/usr/share/initramfs-tools/hook-functions",
    versions: &[
        "05ec37b6ab74e1205027bc1d8bcb429ab18d9f3e06ea66bdf552083c5fa516af",
        "8329c405b5af7cbae6c7409de334b0663add53b97eb7f7d608750808d86b1c93",
    ],
};
const BOOT_FUNCTIONS: Functions = Functions {
    path: "/usr/share/initramfs-tools/scripts/functions",
    versions: &[
        "1c12fdb98f6b03c47e2a5f6d7e6e019ac016345eb0fd8300b808b128e70f00b5",
        "b328b49756e00ec7c692dcdd28526831def5e9e0d7a0d0963087b450c2db4743",
    ],
};

/// What follows the functions that hooks share. It does what the programs do that it stands for.
const FASTER: &str = include_str!("hook-functions.sh");

/// What is known of a root's generator.
pub(super) struct Generator {
    /// What it and its hooks are known to search for; nothing of unknown ones.
    pub(super) globs: Vec<Glob>,
    /// What lies over the root's files while it runs.
    pub(super) mounts: Vec<Mount>,
}

/// What a root says.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Paths of scripts that are known.
    scripts: Vec<String>,
    /// The functions that hooks share, if they are known.
    functions: Option<String>,
}

/// Looks at a root's generator.
pub(super) fn generator(place: &Place<'_>) -> Result<Generator> {
    let known = place.call(&LookAtGenerator {}, (), Extras::bare())?;
    let scripts = SCRIPTS
        .iter()
        .filter(|script| known.scripts.iter().any(|path| path == script.path));
    let faster = known.functions.map(|functions| Mount::File {
        target: HOOK_FUNCTIONS.path.to_owned(),
        content: (functions + FASTER).into_bytes(),
        mode: 0o644,
    });
    Ok(Generator {
        globs: scripts.flat_map(Script::globs).collect(),
        mounts: faster.into_iter().collect(),
    })
}

impl Script {
    fn globs(&self) -> impl Iterator<Item = Glob> {
        self.globs.iter().map(|(directory, patterns)| Glob {
            script: self.path.to_owned(),
            search: Search {
                directory: (*directory).to_owned(),
                depth: Some(1),
                names: patterns
                    .iter()
                    .map(|pattern| Affixes::of(pattern))
                    .collect(),
            },
        })
    }

    /// Whether a root has it as it was read.
    fn is_known(&self, root: &Path) -> bool {
        is_one_of(root, self.path, self.versions)
            && self
                .functions
                .iter()
                .all(|f| is_one_of(root, f.path, f.versions))
            && self
                .configuration
                .iter()
                .all(|path| sets_variables(&below(root, path)))
    }
}

/// Says what is known of a root's generator.
#[derive(Serialize, Deserialize)]
pub(crate) struct LookAtGenerator {}

impl Call for LookAtGenerator {
    const NAME: &'static str = "debian.known-generator";
    type Handed = ();
    type Message = Silence;
    type Answer = Known;

    fn run(self, (): (), _: &Say<Silence>) -> std::result::Result<Known, kiln_sandbox::Error> {
        let root = Path::new("/");
        let scripts = SCRIPTS.iter().filter(|script| script.is_known(root));
        let functions = is_one_of(root, HOOK_FUNCTIONS.path, HOOK_FUNCTIONS.versions)
            .then(|| regular::text(below(root, HOOK_FUNCTIONS.path)).ok())
            .flatten();
        Ok(Known {
            scripts: scripts.map(|script| script.path.to_owned()).collect(),
            functions,
        })
    }
}

fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn is_one_of(root: &Path, path: &str, versions: &[&str]) -> bool {
    let text = regular::read(below(root, path));
    text.is_ok_and(|text| versions.contains(&hex::encode(Sha256::digest(text)).as_str()))
}

/// Whether a file, or each in a directory, does nothing but set variables to fixed values, if it exists.
fn sets_variables(path: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(path) {
        let mut entries = entries.map(|entry| entry.map(|entry| entry.path()));
        return entries.all(|path| path.is_ok_and(|path| sets_variables(&path)));
    }
    match regular::text(path) {
        Ok(text) => text.lines().all(sets_a_variable),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn sets_a_variable(line: &str) -> bool {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return true;
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let Some((name, value)) = line.split_once('=') else {
        return false;
    };
    let named = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    named && !value.contains(|c| "*?[]\\`$();&|<>".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_may_only_set_variables() {
        for line in [
            "",
            "# [ most | dep ]",
            "MODULES=most",
            "RUNSIZE=10%",
            "export A=\"b c\"",
            "DEVICE=",
        ] {
            assert!(sets_a_variable(line), "{line}");
        }
        for line in [
            ". /etc/x",
            "A=/etc/*",
            "A=$(ls /etc)",
            "A=1; ls",
            "[ -x /bin/a ] && B=1",
            "A=`b`",
            "f a=1",
            "A=$B",
        ] {
            assert!(!sets_a_variable(line), "{line}");
        }
    }

    #[test]
    fn an_unknown_script_is_unknown() {
        let root = tempfile::tempdir().expect("a directory");
        for script in SCRIPTS {
            assert!(!script.is_known(root.path()));
            let path = below(root.path(), script.path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, "#!/bin/sh\necho /etc/*\n").expect("a script");
            assert!(!script.is_known(root.path()));
        }
    }

    /// What a shell prints and returns that has the functions, and one that has not.
    fn both_ways(arguments: &[&str], cwd: &Path) -> (String, String) {
        let run = |functions: &str| {
            let script = format!(
                "set -u\n{functions}\nprogram=\"$1\"; shift; \"$program\" \"$@\" 2>/dev/null; echo \"= $?\""
            );
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &script, "sh"]).args(arguments);
            let output = shell.current_dir(cwd).output().expect("a shell");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        (run(FASTER), run(""))
    }

    #[test]
    fn functions_answer_as_the_programs_do() {
        let root = tempfile::tempdir().expect("a directory");
        let top = fs::canonicalize(root.path()).expect("a path");
        fs::create_dir_all(top.join("a/b c")).expect("directories");
        fs::write(top.join("a/b c/file"), "").expect("a file");
        fs::write(top.join("a/new\nline\n"), "").expect("a file");
        let link = |to: &str, at: &str| {
            std::os::unix::fs::symlink(to, top.join(at)).expect("a link");
        };
        link("a", "link");
        link("b c/file", "a/file link");
        link("nowhere", "a/dangling");
        link("loop", "a/loop");
        let inside = [
            "",
            "/",
            "a",
            "a/",
            "a/b c",
            "a/b c/file",
            "a//b c",
            "a/./b c",
            "a/../a",
            "a/.",
            "a/..",
            "link",
            "link/",
            "link/b c/file",
            "a/file link",
            "a/dangling",
            "a/dangling/x",
            "a/loop",
            "a/missing",
            "missing/x",
            "a/b c/file/x",
            "a/new\nline\n",
            "a/.hidden",
            "a/..more",
        ];
        let absolute = inside
            .iter()
            .map(|path| format!("{}/{path}", top.display()));
        let doubled = inside
            .iter()
            .map(|path| format!("//{}/{path}", top.display()));
        let relative = inside.iter().map(|path| (*path).to_owned());
        let fixed = ["/", "//", "/bin", "/usr/bin", "-x", "--", ".", ".."].map(str::to_owned);
        for path in absolute.chain(doubled).chain(relative).chain(fixed) {
            for program in [
                &["realpath", "-ms"][..],
                &["realpath", "-s"],
                &["realpath"],
                &["readlink", "-f"],
                &["readlink"],
                &["readlink", "-f", "--"],
                &["basename"],
                &["basename", "-a"],
            ] {
                let arguments = [program, &[&path]].concat();
                let (function, program) = both_ways(&arguments, &top);
                assert_eq!(function, program, "{arguments:?}");
            }
        }
        let ours = top.display().to_string();
        for (path, more) in [
            ("a", "-p"),
            ("a/b c", "-p"),
            ("a", "-v"),
            ("a/b c/file", "-p"),
            ("a/b c/file/x", "-p"),
        ] {
            let path = format!("{ours}/{path}");
            let (function, program) = both_ways(&["mkdir", more, &path], &top);
            assert_eq!(function, program, "{path}");
        }
        both_ways(&["mkdir", "-p", &format!("{ours}/new/deep")], &top);
        assert!(top.join("new/deep").is_dir());
    }

    /// Without this the functions could leave everything to the programs.
    #[test]
    fn plain_questions_need_no_program() {
        let root = tempfile::tempdir().expect("a directory");
        let top = fs::canonicalize(root.path()).expect("a path");
        let top = top.to_str().expect("a plain path");
        for (question, answer) in [
            (
                format!("realpath -ms /{top}/missing"),
                format!("{top}/missing\n"),
            ),
            (format!("realpath -s {top}"), format!("{top}\n")),
            (format!("readlink -f {top}"), format!("{top}\n")),
            (format!("mkdir -p {top}"), String::new()),
            ("basename /a/b".to_owned(), "b\n".to_owned()),
        ] {
            let script = format!("{FASTER}\nPATH=/nonexistent\n{question}");
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            let output = output.expect("a shell");
            assert!(output.status.success(), "{question}: {output:?}");
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                answer,
                "{question}"
            );
        }
    }

    #[test]
    fn a_known_script_needs_plain_configuration() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("script"), "true\n").expect("a script");
        let conf = root.path().join("conf.d");
        fs::create_dir(&conf).expect("a directory");
        let script = Script {
            path: "/script",
            // printf 'true\n' | sha256sum
            versions: &["a17fcf0a2f50e2d495e4f90ce263410edc183add6c62699a2facbccf60410f74"],
            functions: &[],
            configuration: &["/conf.d", "/missing"],
            globs: &[],
        };
        fs::write(conf.join("a"), "A=1\n").expect("a file");
        assert!(script.is_known(root.path()));
        fs::write(conf.join("b"), "cat /etc/*\n").expect("a file");
        assert!(!script.is_known(root.path()));
    }
}
