//! Packages that Debian's have no counterpart of: the directories, accounts, the release, module streams.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::deb::{Entries, Entry, MERGED};
use super::names::FILESYSTEM;
use super::spec::{DIST, Spec, Version, file_lines};

enum What {
    Directory,
    File(String),
    Link(&'static str),
}

/// A package of our own.
pub(super) struct Own {
    pub(super) name: &'static str,
    version: &'static str,
    release: String,
    tags: Vec<String>,
    sections: String,
    files: Vec<(String, u32, What)>,
    /// Whether files in `/etc` are configuration.
    configures: bool,
}

impl Own {
    pub(super) fn new(name: &'static str, version: &'static str) -> Self {
        Own {
            name,
            version,
            release: format!("1{DIST}"),
            tags: Vec::new(),
            sections: String::new(),
            files: Vec::new(),
            configures: false,
        }
    }

    pub(super) fn tag(mut self, tag: &str) -> Self {
        self.tags.push(tag.to_owned());
        self
    }

    pub(super) fn file(mut self, mode: u32, path: &str, text: &str) -> Self {
        self.files
            .push((path.to_owned(), mode, What::File(text.to_owned())));
        self
    }

    pub(super) fn link(mut self, path: &str, target: &'static str) -> Self {
        self.files
            .push((path.to_owned(), 0o777, What::Link(target)));
        self
    }

    pub(super) fn directory(mut self, mode: u32, path: &str) -> Self {
        self.files.push((path.to_owned(), mode, What::Directory));
        self
    }

    /// All that decides what is built, as a text.
    pub(super) fn key(&self) -> String {
        let mut key = format!(
            "{} {} {} {:?} {}",
            self.name, self.version, self.release, self.tags, self.sections
        );
        for (path, mode, what) in &self.files {
            let what = match what {
                What::Directory => "directory",
                What::File(text) => text,
                What::Link(target) => target,
            };
            key.push_str(&format!("{path} {mode:o} {what}"));
        }
        key
    }

    /// Builds it into a directory.
    pub(super) fn build(&self, work: &Path, into: &Path) {
        let content = work.join("content");
        fs::create_dir_all(&content).expect("a directory");
        let mut entries = Entries::new();
        for (path, mode, what) in &self.files {
            let place = content.join(path);
            fs::create_dir_all(place.parent().expect("a parent")).expect("a directory");
            match what {
                What::Directory => fs::create_dir_all(&place).expect("a directory"),
                What::File(text) => fs::write(&place, text).expect("a file"),
                What::Link(target) => symlink(target, &place).expect("a link"),
            }
            entries.insert(
                path.clone(),
                Entry::of(*mode, matches!(what, What::Directory)),
            );
        }
        let mut lines = file_lines(&entries, entries.keys(), |path| {
            self.configures && path.starts_with("etc/")
        });
        if self.name == "filesystem" {
            // The directories that others leave to it.
            for (path, entry) in entries
                .iter()
                .filter(|(path, _)| FILESYSTEM.contains(&path.as_str()))
            {
                lines.push_str(&format!(
                    "%dir %attr({:04o},root,root) \"/{path}\"\n",
                    entry.mode
                ));
            }
        }
        let list = work.join("files");
        fs::write(&list, lines).expect("a list of files");
        let spec = Spec {
            name: self.name.to_owned(),
            version: Version {
                epoch: None,
                version: self.version.to_owned(),
                release: self.release.clone(),
            },
            summary: format!("{} of a distribution for tests", self.name),
            is_noarch: true,
            tags: self.tags.clone(),
            sections: format!("{}%files -f {}\n", self.sections, list.display()),
        };
        spec.build(&content, work, into);
    }
}

/// All of them.
pub(super) fn packages() -> Vec<Own> {
    let mut all = vec![filesystem(), setup(), release(), pam(), kernel_install()];
    // Debian's rpm has its database in the home directory.
    let macros = "%_dbpath /var/lib/rpm\n";
    all.push(Own::new("kindling-rpm-config", "9").file(0o644, "etc/rpm/macros.dbpath", macros));
    let firmware = "usr/lib/firmware/kindling/WHENCE";
    all.push(Own::new("linux-firmware", "20260101").file(0o644, firmware, "Nothing, by nobody.\n"));
    all.extend(greeters());
    all
}

fn filesystem() -> Own {
    let mut own = Own::new("filesystem", "9");
    for path in FILESYSTEM {
        let mode = match *path {
            "tmp" | "var/tmp" => 0o1777,
            "root" => 0o700,
            "proc" | "sys" => 0o555,
            _ => 0o755,
        };
        own = own.directory(mode, path);
    }
    for top in MERGED {
        let target: &'static str = match *top {
            "bin" => "usr/bin",
            "sbin" => "usr/sbin",
            "lib" => "usr/lib",
            "lib64" => "usr/lib64",
            "lib32" => "usr/lib32",
            _ => "usr/libx32",
        };
        own = own.link(top, target);
    }
    own = own
        .link("var/run", "../run")
        .link("var/lock", "../run/lock");
    own = own.link("etc/mtab", "../proc/self/mounts");
    // As Fedora's: before there is any shell.
    own.sections = "%pretrans -p <lua>\nposix.mkdir(\"/usr\")\nposix.mkdir(\"/usr/bin\")\nposix.mkdir(\"/usr/lib\")\n\
        posix.mkdir(\"/proc\")\nposix.chmod(\"/proc\", 0555)\n".to_owned();
    own
}

const USERS: &[(&str, u32, &str, &str)] = &[
    ("root", 0, "/root", "/bin/bash"),
    ("bin", 1, "/usr/bin", "/usr/sbin/nologin"),
    ("daemon", 2, "/usr/sbin", "/usr/sbin/nologin"),
    ("adm", 3, "/var/adm", "/usr/sbin/nologin"),
    ("man", 6, "/var/cache/man", "/usr/sbin/nologin"),
    ("mail", 8, "/var/mail", "/usr/sbin/nologin"),
    ("nobody", 65534, "/", "/usr/sbin/nologin"),
];

const GROUPS: &[(&str, u32)] = &[
    ("root", 0),
    ("bin", 1),
    ("daemon", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mem", 8),
    ("kmem", 9),
    ("wheel", 10),
    ("cdrom", 11),
    ("mail", 12),
    ("man", 15),
    ("dialout", 18),
    ("floppy", 19),
    ("games", 20),
    ("utmp", 22),
    ("staff", 25),
    ("sudo", 27),
    ("audio", 29),
    ("tape", 33),
    ("plugdev", 34),
    ("kvm", 36),
    ("video", 39),
    ("shadow", 42),
    ("users", 100),
    ("input", 104),
    ("sgx", 105),
    ("render", 107),
    ("nogroup", 65533),
    ("nobody", 65534),
];

fn setup() -> Own {
    let users: String = USERS
        .iter()
        .map(|(name, id, home, shell)| format!("{name}:x:{id}:{id}:{name}:{home}:{shell}\n"))
        .collect();
    let groups: String = GROUPS
        .iter()
        .map(|(name, id)| format!("{name}:x:{id}:\n"))
        .collect();
    let shadow: String = USERS
        .iter()
        .map(|(name, ..)| format!("{name}:*:20000:0:99999:7:::\n"))
        .collect();
    let gshadow: String = GROUPS
        .iter()
        .map(|(name, _)| format!("{name}:*::\n"))
        .collect();
    let profile = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin\nexport PATH\n\
        for file in /etc/profile.d/*.sh; do [ ! -r \"$file\" ] || . \"$file\"; done\nunset file\n";
    let switch = "passwd: files systemd\ngroup: files systemd\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n";
    let mut own = Own::new("setup", "9")
        .tag("Requires: filesystem")
        .file(0o644, "etc/passwd", &users)
        .file(0o644, "etc/group", &groups)
        .file(0o000, "etc/shadow", &shadow)
        .file(0o000, "etc/gshadow", &gshadow)
        .file(0o644, "etc/shells", "/bin/sh\n/bin/bash\n/usr/bin/bash\n")
        .file(0o644, "etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
        .file(0o644, "etc/nsswitch.conf", switch)
        .file(0o644, "etc/profile", profile);
    for empty in ["etc/environment", "etc/fstab", "etc/subgid", "etc/subuid"] {
        own = own.file(0o644, empty, "");
    }
    own.configures = true;
    own
}

fn release() -> Own {
    let os = "NAME=\"Kindling Linux\"\nID=kindling\nID_LIKE=\"rhel centos fedora\"\nVERSION=\"9\"\nVERSION_ID=\"9\"\n\
        PLATFORM_ID=\"platform:el9\"\nPRETTY_NAME=\"Kindling Linux 9\"\n";
    let preset = "enable getty@.service\nenable NetworkManager.service\nenable dbus.*\nenable lightdm.service\nenable systemd-*.timer\n\
        disable systemd-networkd*\n";
    let mut own = Own::new("kindling-release", "9")
        .tag("Requires: filesystem kindling-rpm-config")
        .file(0o644, "usr/lib/os-release", os)
        .link("etc/os-release", "../usr/lib/os-release")
        .file(0o644, "etc/redhat-release", "Kindling Linux release 9\n")
        .link("etc/system-release", "redhat-release")
        .file(0o644, "etc/locale.conf", "LANG=C.UTF-8\n")
        .file(
            0o644,
            "usr/lib/systemd/system-preset/90-default.preset",
            preset,
        )
        .file(
            0o644,
            "usr/lib/systemd/system-preset/99-default-disable.preset",
            "disable *\n",
        );
    for provided in [
        "system-release",
        "system-release(releasever)",
        "redhat-release",
        "centos-release",
    ] {
        own = own.tag(&format!("Provides: {provided} = 9"));
    }
    own.tag("Provides: base-module(platform:el9)")
}

fn pam() -> Own {
    let allow = |kind: &str, more: &str| {
        format!(
            "{kind} [success=1 default=ignore] pam_unix.so {more}\n{kind} requisite pam_deny.so\n{kind} required pam_permit.so\n"
        )
    };
    let mut own = Own::new("pam-config", "9")
        .tag("Requires: setup")
        .file(0o644, "etc/pam.d/common-auth", &allow("auth", "nullok"))
        .file(0o644, "etc/pam.d/common-account", &allow("account", ""))
        .file(
            0o644,
            "etc/pam.d/common-password",
            &allow("password", "obscure yescrypt"),
        )
        .file(
            0o644,
            "etc/pam.d/common-session",
            "session required pam_unix.so\nsession optional pam_systemd.so\n",
        )
        .file(
            0o644,
            "etc/pam.d/common-session-noninteractive",
            "session required pam_unix.so\n",
        );
    own.configures = true;
    own
}

/// What `kernel-install add RELEASE DIRECTORY IMAGE` runs.
fn kernel_install() -> Own {
    let copy = "#!/bin/sh\nif [ \"$1\" = add ]; then exec install -m 0644 \"$4\" \"/boot/vmlinuz-$2\"; fi\n\
        rm -f \"/boot/vmlinuz-$2\" \"/boot/initramfs-$2.img\"\n";
    let dracut = "#!/bin/sh\n[ \"$1\" = add ] || exit 0\nexec dracut -f --no-hostonly \"/boot/initramfs-$2.img\" \"$2\"\n";
    Own::new("kernel-install-plugins", "9")
        .tag("Requires: systemd")
        .file(0o755, "usr/lib/kernel/install.d/10-copy-boot.install", copy)
        .file(0o755, "usr/lib/kernel/install.d/50-dracut.install", dracut)
}

/// Two streams of the module greeter, and a newer package of the same name in no module, which they hide.
fn greeters() -> Vec<Own> {
    let greeter = |version: &'static str, release: &str, stream: &str| {
        let mut own = Own::new("greeter", version).tag("Requires: bash").file(
            0o755,
            "usr/bin/greeter",
            &format!("#!/bin/bash\necho \"greeter {version}\"\n"),
        );
        // What `--excludedocs` and `--inst-langs` decide about: rpmbuild takes what is in the first two directories for documentation.
        own = own
            .directory(0o755, "usr/share/doc/greeter")
            .file(0o644, "usr/share/doc/greeter/README", "Say hello.\n")
            .file(0o644, "usr/share/man/man1/greeter.1", ".TH greeter 1\n");
        for language in ["cs", "de", "de_AT", "fr"] {
            let path = format!("usr/share/locale/{language}/LC_MESSAGES/greeter.mo");
            own = own.file(0o644, &path, language);
        }
        own.release = format!("{release}{DIST}");
        match stream {
            "" => own,
            stream => own.tag(&format!(
                "ModularityLabel: greeter:{stream}:20260101:0badcafe:x86_64"
            )),
        }
    };
    let mut more = Own::new("greeter-polite", "1.0")
        .tag("Requires: greeter")
        .file(0o644, "usr/share/greeter/polite", "please\n");
    more.release = format!("1.module_el9{DIST}");
    vec![
        greeter("1.0", "1.module_el9", "1.0"),
        greeter("2.0", "1.module_el9", "2.0"),
        greeter("3.0", "1", ""),
        more.tag("ModularityLabel: greeter:1.0:20260101:0badcafe:x86_64"),
    ]
}

/// `modules.yaml` of the streams; 1.0 is the default one.
pub(super) fn modules() -> String {
    let stream = |stream: &str, artifacts: &[&str], profiles: &str| {
        let artifacts: String = artifacts
            .iter()
            .map(|nevra| format!("      - {nevra}.noarch\n"))
            .collect();
        format!(
            "---\ndocument: modulemd\nversion: 2\ndata:\n  name: greeter\n  stream: \"{stream}\"\n  version: 20260101\n  context: 0badcafe\n  \
             arch: x86_64\n  summary: Says hello\n  description: >-\n    Says hello.\n  license:\n    module:\n      - MIT\n  dependencies:\n    - \
             requires:\n        platform: [el9]\n  profiles:\n{profiles}  api:\n    rpms:\n      - greeter\n  artifacts:\n    rpms:\n{artifacts}...\n"
        )
    };
    let plain = "    common:\n      rpms:\n        - greeter\n";
    let polite =
        format!("{plain}    polite:\n      rpms:\n        - greeter\n        - greeter-polite\n");
    let one = [
        format!("greeter-0:1.0-1.module_el9{DIST}"),
        format!("greeter-polite-0:1.0-1.module_el9{DIST}"),
    ];
    let two = format!("greeter-0:2.0-1.module_el9{DIST}");
    let defaults = "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: greeter\n  stream: \"1.0\"\n  profiles:\n    \
        \"1.0\": [common]\n    \"2.0\": [common]\n...\n";
    [
        stream("1.0", &[&one[0], &one[1]], &polite),
        stream("2.0", &[&two], plain),
        defaults.to_owned(),
    ]
    .concat()
}
