//! Commands that the plan takes up: `part`, `url`, `repo`, `bootloader`. Here stands which of their options have no
//! effect, so that nothing is dropped silently.

use super::draft::Draft;

const LAYOUT: &str = "Kiln lays out the disk itself";
const IMAGE: &str = "an image is written for no particular disk";

pub(super) fn part(draft: &mut Draft<'_>) {
    if draft.command.flag("--encrypted") {
        return draft.error(
            "--encrypted: encrypted partitions are not supported yet",
            "drop the option",
        );
    }
    draft.without_effect(&[
        ("--asprimary", LAYOUT),
        ("--ondisk", IMAGE),
        ("--onbiosdisk", IMAGE),
        ("--onpart", IMAGE),
        ("--noformat", "every partition is new"),
        ("--resize", "every partition is new"),
        (
            "--maxsize",
            "the partition has the size given, or grows to the medium's end",
        ),
        ("--recommended", "give --size"),
        ("--hibernation", "a live system does not hibernate"),
        ("--fsprofile", LAYOUT),
        ("--mkfsoptions", LAYOUT),
        ("--fsoptions", LAYOUT),
    ]);
    if draft.command.args.first().is_some_and(|m| m == "/") {
        draft.note("is the root: a SquashFS as large as its files, under a RAM overlay");
    }
}

pub(super) fn repository(draft: &mut Draft<'_>) {
    if draft.command.flag("--noverifyssl") {
        let message = "--noverifyssl has no effect: certificates are always checked";
        draft.warn(message, "use http:// if the server has no good certificate: packages are verified by signature anyway");
    }
    draft.without_effect(&[
        ("--sslcacert", "the host's certificates are used"),
        ("--sslclientcert", "client certificates are not supported"),
        ("--sslclientkey", "client certificates are not supported"),
    ]);
    if draft.is_rpm() {
        // The other options are in the plan's list of repositories.
        return;
    }
    draft.without_effect(&[
        (
            "--proxy",
            "the proxy comes from the environment (http_proxy, https_proxy, no_proxy)",
        ),
        ("--cost", "the newest version wins"),
        ("--excludepkgs", "exclude packages in %packages"),
        ("--includepkgs", "packages are taken from all repositories"),
        (
            "--install",
            "write the source to /etc/apt/sources.list.d in %post",
        ),
    ]);
}

pub(super) fn bootloader(draft: &mut Draft<'_>) {
    for option in ["--password", "--md5pass"] {
        if draft.command.has(option) {
            draft.warn(
                format!("{option} has no effect: the boot menu has no password"),
                "drop the option",
            );
        }
    }
    // Live kickstarts say so because the program that makes their image brings its own.
    if draft.command.flag("--disabled") || draft.command.text("--location") == Some("none") {
        draft.note("leaves the boot loader to Kiln, which an image needs: GRUB");
    }
    draft.without_effect(&[
        ("--driveorder", IMAGE),
        ("--boot-drive", IMAGE),
        ("--extlinux", "the boot loader is GRUB"),
        ("--sdboot", "the boot loader is GRUB"),
        ("--nombr", "images boot under BIOS as well"),
        (
            "--leavebootorder",
            "an image does not change the machine's boot order",
        ),
    ]);
}

pub(super) fn autopart(draft: &mut Draft<'_>) {
    if draft.command.flag("--encrypted") {
        return draft.error(
            "--encrypted: encrypted partitions are not supported yet",
            "drop the option",
        );
    }
    draft.note("is how it is: Kiln lays out the disk itself");
}
