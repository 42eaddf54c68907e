//! Partitions, RAID devices, volume groups, logical volumes and mounts.

use super::Rules;
use crate::Version;
use crate::report::quote;

impl Rules<'_> {
    /// Red Hat's installers cannot make Btrfs file systems.
    fn no_btrfs(&mut self) {
        let red_hat = matches!(
            self.version,
            Version::Rhel8 | Version::Rhel9 | Version::Rhel10
        );
        if red_hat && self.command.text("--fstype") == Some("btrfs") {
            let message = format!("Btrfs is not supported in {}", self.version);
            self.error("unsupported", "--fstype", message, "use `xfs` or `ext4`");
        }
    }

    fn encryption(&mut self) {
        self.exclusive(&["--pbkdf-time", "--pbkdf-iterations"]);
        let opal = self.command.text("--luks-version") == Some("luks2-hw-opal");
        if self.given("--hw-passphrase") && !opal {
            let message = "`--hw-passphrase` is for OPAL hardware encryption".to_owned();
            let help = "add `--luks-version=luks2-hw-opal`";
            self.error("missing-option", "--hw-passphrase", message, help);
        }
    }

    fn mkfs_options(&mut self) {
        self.exclusive(&["--mkfsoptions", "--fsprofile"]);
        if self.given("--mkfsoptions") && self.given("--noformat") {
            let message = "`--mkfsoptions` has no effect with `--noformat`".to_owned();
            self.error(
                "conflicting-options",
                "--mkfsoptions",
                message,
                "keep one of them",
            );
        }
    }

    pub(super) fn autopart(&mut self) {
        let scheme = self.command.options.iter().rev();
        let mut scheme = scheme.filter(|o| matches!(o.name.as_str(), "--type" | "--nolvm"));
        let btrfs = scheme
            .next()
            .map(|o| o.value == crate::Value::Text("btrfs".to_owned()));
        match btrfs {
            Some(true) => self.memory.kept.insert(("autopart", "btrfs")),
            Some(false) => self.memory.kept.remove(&("autopart", "btrfs")),
            None => false,
        };
        let btrfs = self.memory.kept.contains(&("autopart", "btrfs"));
        let fstype = self.in_force("autopart", "--fstype");
        if self.command.text("--fstype") == Some("btrfs") {
            let message = "`--fstype=btrfs` is not possible here".to_owned();
            self.error("bad-value", "--fstype", message, "write `--type=btrfs`");
        } else if fstype && btrfs {
            let message = "`--fstype` and `--type=btrfs` exclude each other".to_owned();
            self.error(
                "conflicting-options",
                "--fstype",
                message,
                "remove `--fstype`",
            );
        }
        let red_hat = self.version.name().starts_with("RHEL");
        if red_hat && self.command.text("--type") == Some("btrfs") {
            let message = format!("Btrfs is not supported in {}", self.version);
            self.error(
                "unsupported",
                "--type",
                message,
                "use `--type=plain` or `--type=lvm`",
            );
        }
        self.exclusive(&["--noswap", "--hibernation"]);
        self.encryption();
    }

    pub(super) fn part(&mut self) {
        self.no_btrfs();
        self.encryption();
        self.mkfs_options();
        let mount = self.arg(0);
        if self.version.name().starts_with("RHEL") && mount.starts_with("btrfs.") {
            let message = format!("Btrfs is not supported in {}", self.version);
            self.error("unsupported", "", message, "use `xfs` or `ext4`");
        }
        let tmpfs = self.command.text("--fstype") == Some("tmpfs");
        if tmpfs && (self.given("--grow") || self.given("--maxsize")) {
            let message = "a tmpfs can neither grow nor have a `--maxsize`".to_owned();
            self.error(
                "conflicting-options",
                "--fstype",
                message,
                "give its `--size`",
            );
        }
        self.needs("--resize", "--onpart");
        self.needs("--resize", "--size");
        let mount = self.arg(0).to_owned();
        if !mount.is_empty() && mount != "swap" {
            self.defined("mount point", mount, "");
        }
    }

    pub(super) fn raid(&mut self) {
        if self.version != Version::Rhel10 {
            self.no_btrfs();
        }
        self.encryption();
        self.mkfs_options();
        let existing = self.given("--useexisting") || self.given("--noformat");
        let members = self.command.args.len() > 1;
        let message = match (existing, members, self.given("--level")) {
            (true, true, _) => "a RAID device that exists takes no members",
            (false, false, _) if !self.command.args.is_empty() => "`raid` needs its members",
            (false, true, false) => "`raid` needs `--level`",
            (true, false, _) if !self.given("--device") => {
                "a RAID device that exists needs `--device`"
            }
            _ => "",
        };
        if !message.is_empty() {
            let help = "write for example `raid / --device=md0 --level=1 raid.01 raid.02`";
            self.error("missing-option", "", message.to_owned(), help);
        }
        self.once("RAID device", "--device");
    }

    pub(super) fn volgroup(&mut self) {
        let name = self.arg(0).to_owned();
        let members = self.command.args.len() > 1;
        let existing = self.given("--useexisting") || self.given("--noformat");
        let message = match (self.command.args.is_empty(), existing, members) {
            (true, _, _) => "`volgroup` needs a name",
            (_, true, true) => "a volume group that exists takes no members",
            (_, false, false) => "`volgroup` needs its physical volumes",
            _ => "",
        };
        if !message.is_empty() {
            let help = "write for example `volgroup vg pv.01 pv.02`";
            self.error("missing-option", "", message.to_owned(), help);
        }
        if self.command.int("--reserved-space").is_some_and(|n| n < 0) {
            let message = "`--reserved-space` must not be negative".to_owned();
            self.error("bad-value", "--reserved-space", message, "give it in MiB");
        }
        let percent = self.command.int("--reserved-percent");
        if percent.is_some_and(|n| !(1..=99).contains(&n)) {
            let message = "`--reserved-percent` must be between 1 and 99".to_owned();
            self.error(
                "bad-value",
                "--reserved-percent",
                message,
                "write a number from 1 to 99",
            );
        }
        self.defined("volume group", name, "");
    }

    pub(super) fn logvol(&mut self) {
        self.no_btrfs();
        self.encryption();
        self.mkfs_options();
        self.logvol_size();
        self.thin();
        self.cache();
        if !self.given("--noformat") {
            self.needs("--resize", "--useexisting");
        }
        self.needs("--resize", "--size");
        let name = self.command.text("--name").unwrap_or("");
        let group = self.command.text("--vgname").unwrap_or("");
        let name = format!("{group}/{name}");
        self.defined("logical volume", name, "--name");
    }

    fn logvol_size(&mut self) {
        self.exclusive(&["--size", "--percent"]);
        if self
            .command
            .int("--percent")
            .is_some_and(|n| !(0..=100).contains(&n))
        {
            let message = "`--percent` must be between 0 and 100".to_owned();
            let help = "write a number from 0 to 100";
            self.error("bad-value", "--percent", message, help);
        }
        let enough = [
            "--size",
            "--percent",
            "--useexisting",
            "--noformat",
            "--hibernation",
            "--recommended",
        ];
        self.one_of(&enough);
    }

    fn thin(&mut self) {
        self.exclusive(&["--thin", "--thinpool"]);
        self.needs("--thin", "--poolname");
        for name in ["--chunksize", "--metadatasize"] {
            self.needs(name, "--thinpool");
        }
    }

    fn cache(&mut self) {
        let names = ["--cachesize", "--cachemode", "--cachepvs"];
        if !names.iter().any(|n| self.given(n)) {
            return;
        }
        if self.given("--useexisting") || self.given("--noformat") {
            let message = "a logical volume that exists cannot get a cache".to_owned();
            return self.error(
                "conflicting-options",
                "",
                message,
                "remove the cache options",
            );
        }
        if self.given("--thin") {
            let message = "a thin volume cannot have a cache".to_owned();
            return self.error(
                "conflicting-options",
                "--thin",
                message,
                "remove the cache options",
            );
        }
        for (name, help) in [
            ("--cachepvs", "its physical volumes"),
            ("--cachesize", "its size"),
        ] {
            if !self.given(name) {
                let message = format!("a cache needs `{name}`");
                self.error("missing-option", "", message, &format!("add {help}"));
            }
        }
        let mode = self.command.text("--cachemode").unwrap_or("");
        if !matches!(mode, "" | "writeback" | "writethrough") {
            let message = format!("{} is no cache mode", quote(mode));
            let help = "write `writeback` or `writethrough`";
            self.error("bad-value", "--cachemode", message, help);
        }
    }

    pub(super) fn mount(&mut self) {
        let at = self.arg(1);
        if self.command.args.len() > 1 && !at.eq_ignore_ascii_case("none") && !at.starts_with('/') {
            let message = format!("{} is no mount point", quote(at));
            self.error("bad-value", "", message, "write an absolute path or `none`");
        }
        if self.given("--mkfsoptions") && !self.command.has("--reformat") {
            self.needs("--mkfsoptions", "--reformat");
        }
    }

    pub(super) fn btrfs(&mut self) {
        let mount = self.arg(0).to_owned();
        let members = self.command.args.len() > 1;
        let message = match () {
            () if mount.is_empty() => "`btrfs` needs a mount point",
            () if self.given("--subvol") && !members => "a subvolume needs its parent volume",
            () if self.given("--subvol") && !self.given("--name") => "a subvolume needs `--name`",
            () if !members => "`btrfs` needs its partitions",
            () => "",
        };
        if !message.is_empty() {
            let help = "write for example `btrfs / --subvol --name=root LABEL=system`";
            self.error("missing-option", "", message.to_owned(), help);
        }
        let existing = self.given("--useexisting") || self.given("--noformat");
        if self.given("--mkfsoptions") && existing {
            let message = "`--mkfsoptions` has no effect on a volume that exists".to_owned();
            self.error(
                "conflicting-options",
                "--mkfsoptions",
                message,
                "remove the option",
            );
        }
        self.defined("Btrfs mount point", mount, "");
    }
}
