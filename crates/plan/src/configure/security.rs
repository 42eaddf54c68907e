//! `authselect` and `selinux`.

use super::{Action, draft::Draft};

/// Features of authselect's profiles: the name of pam-auth-update's profile, the packages that bring it.
const FEATURES: &[(&str, &str, &[&str])] = &[
    ("with-mkhomedir", "mkhomedir", &["libpam-modules"]),
    ("with-fingerprint", "fprintd", &["libpam-fprintd"]),
    ("with-pam-u2f", "u2f", &["libpam-u2f"]),
];

/// `authselect select PROFILE FEATURE…`; the command's words are authselect's own.
pub(super) fn authselect(draft: &mut Draft<'_>) {
    let text = draft.command.args.join(" ");
    if draft.is_rpm() {
        draft.need("authselect", "writes the PAM configuration");
        let mut argv = vec!["authselect".to_owned()];
        argv.extend(text.split_whitespace().map(str::to_owned));
        if !argv.iter().any(|word| word == "--force") {
            argv.push("--force".to_owned());
        }
        return draft.act(Action::Run {
            argv,
            purpose: "choosing how people log in".to_owned(),
            only_if_present: false,
        });
    }
    let mut words = text
        .split_whitespace()
        .filter(|w| !w.starts_with('-'))
        .skip_while(|w| *w == "select");
    match words.next() {
        Some("local" | "minimal" | "nis" | "custom") | None => {}
        Some("sssd") => {
            for package in ["sssd", "libpam-sss", "libnss-sss"] {
                draft.need(package, "looks accounts up over the network");
            }
        }
        Some("winbind") => {
            for package in ["winbind", "libpam-winbind", "libnss-winbind"] {
                draft.need(package, "looks accounts up in a Windows domain");
            }
        }
        Some(other) => {
            let message = format!("{other}: not a profile that has a counterpart here");
            draft.warn(
                message,
                "the profiles are local, sssd and winbind; see pam-auth-update(8)",
            );
        }
    }
    let features: Vec<&str> = words.collect();
    for feature in features {
        match FEATURES.iter().find(|(name, ..)| *name == feature) {
            Some((_, profile, packages)) => {
                for package in *packages {
                    draft.need(package, "is a way to log in");
                }
                let argv = ["pam-auth-update", "--enable", profile]
                    .map(str::to_owned)
                    .to_vec();
                let purpose = format!("enabling the PAM profile {profile}");
                draft.act(Action::Run {
                    argv,
                    purpose,
                    only_if_present: false,
                });
            }
            None => {
                let message = format!("{feature} has no effect: Debian has no such PAM profile");
                draft.warn(message, "configure PAM with pam-auth-update in %post");
            }
        }
    }
    draft.note("is translated to Debian's pam-auth-update");
}

/// Packages that bring a policy.
const POLICIES: &[&str] = &[
    "selinux-policy-default",
    "selinux-policy-mls",
    "selinux-basics",
];

pub(super) fn selinux(draft: &mut Draft<'_>) {
    let mode = [
        ("--disabled", "disabled"),
        ("--permissive", "permissive"),
        ("--enforcing", "enforcing"),
    ]
    .into_iter()
    .find(|(option, _)| draft.command.flag(option))
    .map_or("enforcing", |(_, mode)| mode);
    if draft.is_rpm() {
        return rpm_selinux(draft, mode);
    }
    let has_policy = POLICIES.iter().any(|p| draft.asked_for(p));
    match (mode, has_policy) {
        ("disabled", false) => {
            draft.note("--disabled is how it is: the image has no SELinux policy")
        }
        (_, false) => {
            let message = format!("--{mode} has no effect: the image has no SELinux policy");
            draft.warn(message, "add selinux-basics, selinux-policy-default and auditd to %packages, or say --disabled");
        }
        (_, true) => {
            let variables = vec![("SELINUX".to_owned(), mode.to_owned())];
            // selinux(8) reads plain words here, which SetVariables leaves unquoted.
            draft.act(Action::SetVariables {
                path: "/etc/selinux/config".to_owned(),
                variables,
            });
            if mode != "disabled" {
                let message = "takes effect only with security=selinux selinux=1 among the kernel's arguments";
                draft.warn(message, "add them to bootloader --append");
            }
        }
    }
}

/// RPM distributions have SELinux in the kernel's command line, and a policy in `@core`.
fn rpm_selinux(draft: &mut Draft<'_>, mode: &str) {
    if mode != "disabled" {
        draft.need("selinux-policy-targeted", "is the policy");
    }
    draft.act(Action::SetVariables {
        path: "/etc/selinux/config".to_owned(),
        variables: vec![("SELINUX".to_owned(), mode.to_owned())],
    });
}
