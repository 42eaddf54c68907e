//! Ten live kickstarts in the manner of published ones: each is fit for its installer, and has a complete plan.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::Sandbox;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/live")
}

/// What a definition must lead to.
struct Wanted {
    definition: &'static str,
    distribution: &'static str,
    /// The language of its installer.
    version: &'static str,
    /// Rows of the plan's table: what, and a part of what becomes of it.
    rows: &'static [(&'static str, &'static str)],
    repositories: usize,
}

const ALL: &[Wanted] = &[
    Wanted {
        definition: "fedora-workstation.ks",
        distribution: "fedora:42",
        version: "F42",
        rows: &[
            ("%packages", "@^workstation-product-environment"),
            ("%packages", "-google-noto-sans-cjk-*fonts"),
            ("%post --nochroot", "with the root at /mnt/sysimage"),
            ("firewall", "--service=mdns"),
            ("xconfig", "graphical.target"),
        ],
        repositories: 3,
    },
    Wanted {
        definition: "fedora-plasma.ks",
        distribution: "fedora:45",
        version: "F45",
        rows: &[
            ("lang", "LANG=en_US.UTF-8 in /etc/locale.conf"),
            ("%packages", "@kde-media"),
            ("%post", "write its output to /var/log/ks-post.log"),
            ("user", "make user liveuser in groups wheel"),
        ],
        repositories: 3,
    },
    Wanted {
        definition: "almalinux-gnome.ks",
        distribution: "almalinux:9",
        version: "RHEL9",
        rows: &[
            ("selinux", "SELINUX=permissive"),
            ("keyboard", "/etc/vconsole.conf"),
            ("timesource", "chronyd.service"),
            ("%packages", "grub2-tools*"),
            ("services", "enable NetworkManager.service, chronyd.service"),
        ],
        repositories: 5,
    },
    Wanted {
        definition: "rocky-xfce.ks",
        distribution: "rocky:9",
        version: "RHEL9",
        rows: &[
            (
                "authselect",
                "authselect select sssd with-mkhomedir --force",
            ),
            ("%post", "/usr/bin/python3"),
            ("user", "with uid 1000 in groups wheel, lab"),
            ("%packages", "f*-backgrounds-xfce"),
        ],
        repositories: 4,
    },
    Wanted {
        definition: "centos-server.ks",
        distribution: "centos:9",
        version: "RHEL9",
        rows: &[
            ("network", "bond0.nmconnection"),
            ("network", "vlan171.nmconnection"),
            (
                "%certificate",
                "/etc/pki/ca-trust/source/anchors/internal.crt",
            ),
            ("%pre-install", "with the root at /mnt/sysimage"),
            ("%packages", "@nodejs:20/minimal"),
            ("skipx", "multi-user.target"),
        ],
        repositories: 2,
    },
    Wanted {
        definition: "almalinux-modules.ks",
        distribution: "almalinux:8",
        version: "RHEL8",
        rows: &[
            ("module", "stream"),
            ("%packages", "@container-tools:rhel8/common"),
            ("firewall", "--service=postgresql"),
            ("%post", "in the root"),
        ],
        repositories: 4,
    },
    Wanted {
        definition: "debian-remix.ks",
        distribution: "debian:bookworm",
        version: "F45",
        rows: &[
            (
                "lang",
                "generate locales cs_CZ.UTF-8, en_US.UTF-8, sk_SK.UTF-8",
            ),
            ("user", "in groups sudo, audio, video"),
            ("xconfig", "log in to the xfce session"),
            ("%packages", "@xfce-desktop"),
        ],
        repositories: 2,
    },
    Wanted {
        definition: "kiosk.ks",
        distribution: "debian:bookworm",
        version: "F45",
        rows: &[
            ("network", "Museum.nmconnection (with a secret, mode 600)"),
            ("%pre-install", "with the root at /mnt/sysimage"),
            ("services", "enable kiosk.service"),
        ],
        repositories: 0,
    },
    Wanted {
        definition: "classroom",
        distribution: "debian:trixie",
        version: "F45",
        rows: &[
            ("network", "set the host name to room"),
            ("xconfig", "log in to the mate session"),
            ("%packages", "stellarium*"),
            ("%post", "/usr/bin/python3"),
        ],
        repositories: 0,
    },
    Wanted {
        definition: "contest.ks",
        distribution: "fedora:42",
        version: "F42",
        rows: &[
            ("%packages", "java-*-openjdk-devel"),
            ("services", "contest-clock.service"),
            ("sshkey", "judge@contest"),
            ("%post --nochroot", "its failure ends the build"),
            ("network", "link.nmconnection"),
        ],
        repositories: 3,
    },
];

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let output = sandbox
        .command(arguments)
        .current_dir(data())
        .output()
        .expect("kiln starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.stdout.is_empty(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{errors}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The installer's own reader accepts them: no error, and no warning but that something was given again.
#[test]
fn they_are_fit_for_their_installers() {
    let sandbox = Sandbox::new();
    for wanted in ALL {
        // What %pre makes is not there yet, so the classroom's includes are not followed.
        let (files, follow): (&[&str], &[&str]) = match wanted.definition {
            "classroom" => (
                &[
                    "classroom/base.ks",
                    "classroom/desktop.ks",
                    "classroom/lessons.ks",
                ],
                // %ksappend is followed all the same.
                &["--include-path", "parts"],
            ),
            file => (&[file], &["-i"]),
        };
        let arguments = [
            &["check", "--json", "--version", wanted.version],
            follow,
            files,
        ]
        .concat();
        for verdict in list(&json(&sandbox, &arguments)) {
            let findings = list(&verdict["findings"]).iter();
            let bad: Vec<_> = findings.filter(|f| f["code"] != "defined-twice").collect();
            assert!(bad.is_empty(), "{}: {bad:#?}", verdict["file"]);
        }
    }
}

/// Every line has a row that says what becomes of it, without an error and without a command that is not known.
#[test]
fn they_have_complete_plans() {
    let sandbox = Sandbox::new();
    for wanted in ALL {
        let of = wanted.definition;
        let plan = json(
            &sandbox,
            &["plan", "--json", "--distribution", wanted.distribution, of],
        );
        let layers = list(&plan["layers"]);
        let work = list(&plan["work"]);
        assert_eq!(work.len(), layers.len());
        let rows: Vec<&Value> = work
            .iter()
            .flat_map(|layer| list(&layer["lines"]))
            .collect();
        for row in &rows {
            let known = ["executed", "planned", "recorded", "ignored"]
                .iter()
                .any(|is| row["is"] == *is);
            assert!(known, "{of}: {row:#}");
            let silent = list(&row["actions"]).is_empty() && list(&row["notices"]).is_empty();
            assert!(!silent, "{of}: {row:#}");
            let wrong = list(&row["notices"]).iter().any(|n| n["level"] == "error");
            assert!(!wrong, "{of}: {row:#}");
        }
        let commands: usize = layers
            .iter()
            .map(|layer| list(&layer["commands"]).len())
            .sum();
        let shown = rows
            .iter()
            .filter(|row| !row["what"].as_str().is_some_and(|w| w.starts_with('%')));
        assert_eq!(shown.count(), commands, "{of}");
        for (what, says) in wanted.rows {
            let fits = |row: &&&Value| row["what"] == *what && row.to_string().contains(says);
            assert!(
                rows.iter().any(|row| fits(&row)),
                "{of}: no {what} with {says:?} in {rows:#?}"
            );
        }
        let count = list(&plan["repositories"]).len() + list(&plan["rpm_repositories"]).len();
        assert_eq!(count, wanted.repositories, "{of}");
        let table = sandbox
            .command(&["plan", "--distribution", wanted.distribution, of])
            .current_dir(data())
            .output()
            .expect("kiln starts");
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        for row in &rows {
            let origin = row["origin"].as_str().unwrap_or("?");
            assert!(table.contains(origin), "{of}: {origin} is not in\n{table}");
        }
    }
}

/// Packages of which nobody says who signs them are not installed, which is said before anything is fetched.
#[test]
fn rpm_repositories_need_a_key() {
    let sandbox = Sandbox::new();
    let definition = data().join("rocky-xfce.ks");
    let definition = definition.to_str().expect("UTF-8");
    let ran = sandbox.kiln(&["build", "--distribution", "rhel:9", definition]);
    assert_eq!(ran.code, 1, "{}", ran.whole());
    for words in [
        "nothing says who signs the packages of the repository url",
        "el-repos.ks:1",
        "key = \"FILE\"",
    ] {
        assert!(ran.stderr.contains(words), "{words}\n{}", ran.whole());
    }
}
