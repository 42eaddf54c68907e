//! The repository of the packages that were built: groups, module streams, signatures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{own, run};
use crate::rpm::{Gpg, createrepo};

/// The file with the public key, beside `repodata`.
pub(super) const KEY: &str = "RPM-GPG-KEY-kindling";

const CORE: &[&str] = &[
    "bash",
    "coreutils",
    "dbus",
    "debianutils",
    "diffutils",
    "e2fsprogs",
    "filesystem",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "iputils-ping",
    "kbd",
    "kindling-release",
    "kmod",
    "less",
    "libc-bin",
    "libnss-systemd",
    "libpam-systemd",
    "login",
    "mawk",
    "mount",
    "ncurses-base",
    "netbase",
    "network-manager",
    "pam-config",
    "passwd",
    "procps",
    "sed",
    "setup",
    "systemd",
    "systemd-sysv",
    "tar",
    "tzdata",
    "udev",
    "util-linux",
    "util-linux-extra",
    "xz-utils",
];
const BASE_X: &[&str] = &[
    "dbus-x11",
    "x11-xserver-utils",
    "xinit",
    "xserver-xorg-core",
    "xserver-xorg-input-libinput",
    "xserver-xorg-video-fbdev",
];
const XFCE: &[&str] = &[
    "adwaita-icon-theme",
    "lightdm",
    "lightdm-gtk-greeter",
    "thunar",
    "xfce4-panel",
    "xfce4-session",
    "xfce4-settings",
    "xfdesktop4",
    "xfwm4",
];
const IMAGE: &[&str] = &[
    "dosfstools",
    "dracut",
    "dracut-live",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "grub2-common",
    "kernel",
    "shim-signed",
    "squashfs-tools",
];

/// Writes what makes a directory with `Packages` a repository.
pub(super) fn describe(directory: &Path, work: &Path, key: &Gpg) {
    let groups = work.join("comps.xml");
    fs::write(&groups, comps(&names(&directory.join("Packages")))).expect("groups");
    createrepo(directory, &["--groupfile", &groups.display().to_string()]);
    let modules = work.join("modules.yaml");
    fs::write(&modules, own::modules()).expect("modules");
    let mut modifyrepo = Command::new("modifyrepo_c");
    modifyrepo.args(["--mdtype", "modules"]).arg(&modules);
    run(modifyrepo.arg(directory.join("repodata")));
    fs::write(directory.join(KEY), key.public()).expect("the key");
    key.sign_file(&directory.join("repodata/repomd.xml"));
}

/// The names of the packages in a directory: groups match no other ones.
fn names(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).expect("packages").flatten();
    let names = files.filter_map(|file| {
        let file = file.file_name().to_string_lossy().into_owned();
        let mut parts = file.rsplitn(3, '-');
        parts.nth(2).map(str::to_owned)
    });
    names.collect()
}

fn comps(there: &[String]) -> String {
    let members = |kind: &str, names: &[&str]| -> String {
        let there = names.iter().filter(|name| there.iter().any(|t| t == *name));
        there
            .map(|name| format!("<packagereq type=\"{kind}\">{name}</packagereq>"))
            .collect()
    };
    let group = |id: &str, name: &str, members: &[String]| {
        format!(
            "<group><id>{id}</id><name>{name}</name><description>{name}</description><default>false</default><uservisible>true</uservisible>\
             <packagelist>{}</packagelist></group>\n",
            members.concat()
        )
    };
    let groups = [
        group("core", "Core", &[members("mandatory", CORE), members("default", &["sudo"]), members("optional", &["nano"])]),
        group("base-x", "base-x", &[members("mandatory", BASE_X)]),
        group("fonts", "Fonts", &[members("mandatory", &["fonts-dejavu-core"])]),
        group(
            "xfce-desktop",
            "Xfce",
            &[
                members("mandatory", XFCE),
                members("default", &["xfce4-terminal"]),
                "<packagereq type=\"conditional\" requires=\"lightdm\">hicolor-icon-theme</packagereq>".to_owned(),
            ],
        ),
        group("anaconda-tools", "Image tools", &[members("mandatory", IMAGE)]),
    ];
    let environment = |id: &str, name: &str, groups: &[&str], options: &str| {
        let groups: String = groups
            .iter()
            .map(|id| format!("<groupid>{id}</groupid>"))
            .collect();
        format!(
            "<environment><id>{id}</id><name>{name}</name><description>{name}</description><display_order>1</display_order>\
             <grouplist>{groups}</grouplist><optionlist>{options}</optionlist></environment>\n"
        )
    };
    let desktop = ["core", "base-x", "fonts", "xfce-desktop"];
    let option = "<groupid default=\"true\">anaconda-tools</groupid>";
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE comps PUBLIC \"-//Red Hat, Inc.//DTD Comps info//EN\" \"comps.dtd\">\n\
         <comps>\n{}{}{}</comps>\n",
        groups.concat(),
        environment("minimal-environment", "Minimal Install", &["core"], ""),
        environment("xfce-desktop-environment", "Xfce Desktop", &desktop, option),
    )
}

/// Signs packages, as many at once as there are threads.
pub(super) fn sign(key: &Gpg, packages: &[PathBuf], threads: usize) {
    let share = packages.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        for part in packages.chunks(share) {
            scope.spawn(move || key.sign_packages(part));
        }
    });
}
