//! How each command is written: which options, in which order, with which quotes.

/// A piece of a written command line.
pub(super) enum Part {
    /// ` --name`, where the switch is on.
    On(&'static str),
    /// ` --name=value`, unless the value is empty or zero.
    Bare(&'static str),
    /// ` --name=number`, where the number is above zero.
    Positive(&'static str),
    /// ` --name="value"`, unless the value is empty.
    Quoted(&'static str),
    /// ` --name=value`, whenever the option was given.
    BareGiven(&'static str),
    /// ` --name="value"`, whenever the option was given.
    QuotedGiven(&'static str),
    /// ` --name="value"` with the quotes inside escaped.
    Escaped(&'static str),
    /// ` --name="value"` for the first of these that has a value.
    FirstQuoted(&'static [&'static str]),
    /// ` --name="value"` for each repetition.
    Each(&'static str),
    /// ` --name=value`, with the second text where the option was not given.
    BareOr(&'static str, &'static str),
    /// ` --name="value"`, with the second text where the option was not given.
    QuotedOr(&'static str, &'static str),
    /// ` --name="value"` with what the option stands for (see [`IMPLIED`]) where it was not given or is empty.
    QuotedImplied(&'static str),
    /// ` --name="value"` with the value of the second option, or its own where that was not given or is empty.
    QuotedAs(&'static str, &'static str),
    /// The parts that follow, where the switch is on.
    When(&'static str, &'static [Part]),
    /// ` --name` where any of these is on or has a value.
    OnAny(&'static str, &'static [&'static str]),
    /// ` word` for each positional word from this one on.
    Words(usize),
    /// ` word` for the first positional word.
    First,
    /// The parts that follow, where the first positional word is this one.
    IfFirst(&'static str, &'static [Part]),
    /// The parts that follow, where the option has a value.
    IfText(&'static str, &'static [Part]),
    /// The parts that follow, where the switch is off.
    Unless(&'static str, &'static [Part]),
    /// ` --name=off`, where the option was given and says no.
    Off(&'static str),
    /// ` --name=true`, where the option was given and says yes.
    True(&'static str),
    /// A text as it stands.
    Text(&'static str),
    /// A blank, unless one of these options has a value.
    BlankUnless(&'static [&'static str]),
}

/// How a command is written.
pub(super) struct Layout {
    /// The comment above it, without `# `.
    pub(super) comment: &'static str,
    pub(super) parts: &'static [Part],
}

use Part::{
    Bare, BareGiven, BareOr, BlankUnless, Each, Escaped, First, FirstQuoted, IfFirst, IfText, Off,
    On, OnAny, Positive, Quoted, QuotedAs, QuotedGiven, QuotedImplied, QuotedOr, Text, True,
    Unless, When, Words,
};

const LUKS: [Part; 5] = [
    Bare("--luks-version"),
    Bare("--pbkdf"),
    Bare("--pbkdf-memory"),
    Bare("--pbkdf-time"),
    Bare("--pbkdf-iterations"),
];
const ESCROW: [Part; 2] = [
    Quoted("--escrowcert"),
    IfText("--escrowcert", &[On("--backuppassphrase")]),
];

const fn plain(parts: &'static [Part]) -> Layout {
    Layout { comment: "", parts }
}

const fn commented(comment: &'static str, parts: &'static [Part]) -> Layout {
    Layout { comment, parts }
}

const END: [Part; 2] = [On("--eject"), On("--kexec")];
const SHOWN: [Part; 1] = [On("--non-interactive")];

/// The layout of a command; `None` for those that are written by code of their own.
pub(super) fn of(command: &str) -> Option<Layout> {
    Some(match command {
        "autopart" => plain(&AUTOPART),
        "autostep" => plain(&[On("--autoscreenshot")]),
        "bootc" => commented("Bootc setup", &BOOTC),
        "bootloader" => commented("System bootloader configuration", &BOOTLOADER),
        "btrfs" => plain(&BTRFS),
        "cdrom" => commented("Use CDROM installation media", &[]),
        "cmdline" => plain(&SHOWN),
        "driverdisk" => plain(&[Bare("--source"), Bare("--biospart"), Words(0)]),
        "eula" => commented("License agreement", &[On("--agreed")]),
        "fcoe" => plain(&[Bare("--nic"), On("--dcb"), On("--autovlan")]),
        "graphical" => commented("Use graphical install", &SHOWN),
        "group" => plain(&[Bare("--name"), Bare("--gid")]),
        "halt" => commented("Halt after installation", &END),
        "harddrive" => commented("Use hard drive installation media", &HARDDRIVE),
        "hmc" => commented("Use installation media via SE/HMC", &[]),
        "ignoredisk" => plain(&IGNOREDISK),
        "iscsi" => plain(&ISCSI),
        "iscsiname" => plain(&[Words(0)]),
        "liveimg" => commented("Use live disk image installation", &LIVEIMG),
        "logvol" => plain(&LOGVOL),
        "mediacheck" => plain(&[]),
        "module" => plain(&[BareGiven("--name"), Bare("--stream"), On("--disable")]),
        "mount" => commented("Mount points configuration", &MOUNT),
        "network" => commented("Network information", &NETWORK),
        "nfs" => commented("Use NFS installation media", &NFS),
        "nvdimm" => commented("NVDIMM devices setup", &NVDIMM),
        "ostreecontainer" => commented("OSTree container setup", &OSTREECONTAINER),
        "ostreesetup" => commented("OSTree setup", &OSTREESETUP),
        "part" => commented("Disk partitioning information", &PART),
        "poweroff" | "shutdown" => commented("Shutdown after installation", &END),
        "raid" => plain(&RAID),
        "rdp" => plain(&[Bare("--username"), Bare("--password")]),
        "reboot" => commented("Reboot after installation", &END),
        "repo" => plain(&REPO),
        "reqpart" => plain(&[On("--add-boot")]),
        "rescue" => commented("Start rescue mode", &[On("--nomount"), On("--romount")]),
        "rhsm" => commented("Red Hat Subscription Manager", &RHSM),
        "services" => commented(
            "System services",
            &[Quoted("--disabled"), Quoted("--enabled")],
        ),
        "skipx" => commented("Do not configure the X Window System", &[]),
        "snapshot" => plain(&[Words(0), BareGiven("--name"), BareGiven("--when")]),
        "syspurpose" => commented("Intended system purpose", &SYSPURPOSE),
        "text" => commented("Use text mode install", &SHOWN),
        "timesource" => plain(&TIMESOURCE),
        "updates" => plain(&[Words(0)]),
        "url" => commented("Use network installation", &URL),
        "vnc" => plain(&[
            Bare("--host"),
            IfText("--host", &[Bare("--port")]),
            Bare("--password"),
        ]),
        "volgroup" => plain(&VOLGROUP),
        "xconfig" => commented("X Window System configuration information", &XCONFIG),
        "zerombr" => commented("Clear the Master Boot Record", &[]),
        "zfcp" => plain(&[Bare("--devnum"), Bare("--wwpn"), Bare("--fcplun")]),
        _ => return None,
    })
}

static AUTOPART: [Part; 13] = [
    On("--encrypted"),
    When("--encrypted", &[Quoted("--passphrase")]),
    When("--encrypted", &ESCROW),
    Bare("--type"),
    When("--nolvm", &[Text(" --type=plain")]),
    When("--encrypted", &[Quoted("--cipher")]),
    Bare("--fstype"),
    On("--nohome"),
    On("--noboot"),
    On("--noswap"),
    When("--encrypted", &LUKS),
    On("--hibernation"),
    When("--encrypted", &[Quoted("--hw-passphrase")]),
];

static BOOTC: [Part; 5] = [
    QuotedOr("--stateroot", "default"),
    Quoted("--source-imgref"),
    QuotedImplied("--target-imgref"),
    Quoted("--bootloader"),
    On("--composefs"),
];

static BOOTLOADER: [Part; 13] = [
    Quoted("--append"),
    BareOr("--location", "mbr"),
    QuotedAs("--password", "--md5pass"),
    On("--upgrade"),
    Quoted("--driveorder"),
    BareGiven("--timeout"),
    Bare("--default"),
    OnAny("--iscrypted", &["--iscrypted", "--md5pass"]),
    Bare("--boot-drive"),
    On("--leavebootorder"),
    On("--extlinux"),
    On("--nombr"),
    On("--sdboot"),
];

static BTRFS: [Part; 10] = [
    First,
    OnAny("--noformat", &["--noformat", "--useexisting"]),
    OnAny("--useexisting", &["--useexisting", "--noformat"]),
    Quoted("--label"),
    Bare("--data"),
    Bare("--metadata"),
    On("--subvol"),
    When("--subvol", &[Bare("--name")]),
    Quoted("--mkfsoptions"),
    Words(1),
];

static HARDDRIVE: [Part; 3] = [
    QuotedGiven("--dir"),
    Bare("--biospart"),
    BareGiven("--partition"),
];

static IGNOREDISK: [Part; 2] = [
    Unless("--interactive", &[Bare("--drives"), Bare("--only-use")]),
    On("--interactive"),
];

static ISCSI: [Part; 8] = [
    Bare("--target"),
    Bare("--ipaddr"),
    BareGiven("--port"),
    Bare("--user"),
    Bare("--password"),
    Bare("--reverse-user"),
    Bare("--reverse-password"),
    Bare("--iface"),
];

static LIVEIMG: [Part; 4] = [
    QuotedGiven("--url"),
    Quoted("--proxy"),
    On("--noverifyssl"),
    Quoted("--checksum"),
];

static LOGVOL: [Part; 30] = [
    First,
    Quoted("--fstype"),
    On("--grow"),
    Bare("--maxsize"),
    On("--noformat"),
    Bare("--percent"),
    On("--recommended"),
    Bare("--size"),
    OnAny("--useexisting", &["--useexisting", "--noformat"]),
    Quoted("--fsoptions"),
    Quoted("--fsprofile"),
    On("--encrypted"),
    When("--encrypted", &[Quoted("--passphrase")]),
    When("--encrypted", &ESCROW),
    Quoted("--label"),
    On("--resize"),
    On("--hibernation"),
    When("--encrypted", &[Quoted("--cipher")]),
    On("--thinpool"),
    When("--thinpool", &[Bare("--metadatasize"), Bare("--chunksize")]),
    On("--thin"),
    When("--thin", &[Bare("--poolname")]),
    Bare("--profile"),
    Bare("--cachesize"),
    Bare("--cachepvs"),
    Bare("--cachemode"),
    Quoted("--mkfsoptions"),
    When("--encrypted", &LUKS),
    BareGiven("--name"),
    BareGiven("--vgname"),
];

static MOUNT: [Part; 5] = [
    Words(0),
    On("--reformat"),
    Bare("--reformat"),
    Quoted("--mkfsoptions"),
    Quoted("--mountoptions"),
];

static NETWORK: [Part; 37] = [
    Text(" "),
    Unless("--noipv4", &[BareOr("--bootproto", "dhcp")]),
    Bare("--dhcpclass"),
    Bare("--device"),
    Quoted("--essid"),
    Quoted("--ethtool"),
    Bare("--gateway"),
    Bare("--hostname"),
    Bare("--ip"),
    Bare("--mtu"),
    Bare("--nameserver"),
    Bare("--netmask"),
    On("--nodns"),
    Off("--onboot"),
    Bare("--wepkey"),
    On("--notksdevice"),
    On("--noipv4"),
    On("--noipv6"),
    Bare("--ipv6"),
    On("--activate"),
    On("--nodefroute"),
    Bare("--wpakey"),
    Bare("--bondslaves"),
    Bare("--bondopts"),
    Bare("--vlanid"),
    Bare("--ipv6gateway"),
    Escaped("--teamslaves"),
    Escaped("--teamconfig"),
    Bare("--interfacename"),
    Bare("--bridgeslaves"),
    Bare("--bridgeopts"),
    On("--no-activate"),
    Bare("--bindto"),
    Bare("--ipv4-dns-search"),
    Bare("--ipv6-dns-search"),
    On("--ipv4-ignore-auto-dns"),
    On("--ipv6-ignore-auto-dns"),
];

static NFS: [Part; 3] = [
    BareGiven("--server"),
    QuotedGiven("--dir"),
    Quoted("--opts"),
];

static NVDIMM: [Part; 4] = [
    Words(0),
    Bare("--namespace"),
    Bare("--blockdevs"),
    IfFirst(
        "reconfigure",
        &[BareOr("--mode", "sector"), Bare("--sectorsize")],
    ),
];

static OSTREECONTAINER: [Part; 5] = [
    Quoted("--stateroot"),
    QuotedImplied("--remote"),
    On("--no-signature-verification"),
    Quoted("--transport"),
    Quoted("--url"),
];

static OSTREESETUP: [Part; 5] = [
    Quoted("--osname"),
    QuotedImplied("--remote"),
    Quoted("--url"),
    Quoted("--ref"),
    On("--nogpg"),
];

static PART: [Part; 23] = [
    First,
    On("--active"),
    On("--asprimary"),
    Quoted("--fstype"),
    On("--grow"),
    Positive("--maxsize"),
    On("--noformat"),
    Bare("--onbiosdisk"),
    Bare("--ondisk"),
    Bare("--onpart"),
    On("--recommended"),
    Bare("--size"),
    Quoted("--fsoptions"),
    Quoted("--label"),
    Quoted("--fsprofile"),
    On("--encrypted"),
    When("--encrypted", &[Quoted("--passphrase")]),
    When("--encrypted", &ESCROW),
    On("--resize"),
    On("--hibernation"),
    When("--encrypted", &[Quoted("--cipher")]),
    Quoted("--mkfsoptions"),
    When("--encrypted", &PART_LUKS),
];

static PART_LUKS: [Part; 6] = [
    Bare("--luks-version"),
    Bare("--pbkdf"),
    Bare("--pbkdf-memory"),
    Bare("--pbkdf-time"),
    Bare("--pbkdf-iterations"),
    Quoted("--hw-passphrase"),
];

static RAID: [Part; 18] = [
    First,
    Bare("--device"),
    Quoted("--fstype"),
    Bare("--level"),
    On("--noformat"),
    Bare("--spares"),
    OnAny("--useexisting", &["--useexisting", "--noformat"]),
    Quoted("--fsoptions"),
    Quoted("--fsprofile"),
    On("--encrypted"),
    When("--encrypted", &[Quoted("--passphrase")]),
    When("--encrypted", &ESCROW),
    Quoted("--label"),
    When("--encrypted", &[Quoted("--cipher")]),
    Quoted("--mkfsoptions"),
    Bare("--chunksize"),
    When("--encrypted", &LUKS),
    Words(1),
];

static REPO: [Part; 15] = [
    QuotedGiven("--name"),
    BlankUnless(&["--baseurl", "--mirrorlist"]),
    Bare("--baseurl"),
    Bare("--mirrorlist"),
    Bare("--cost"),
    Quoted("--includepkgs"),
    Quoted("--excludepkgs"),
    True("--ignoregroups"),
    Quoted("--proxy"),
    On("--noverifyssl"),
    On("--install"),
    Bare("--metalink"),
    Quoted("--sslcacert"),
    Quoted("--sslclientcert"),
    Quoted("--sslclientkey"),
];

static RHSM: [Part; 7] = [
    Quoted("--organization"),
    Each("--activation-key"),
    On("--connect-to-insights"),
    Quoted("--proxy"),
    Quoted("--server-hostname"),
    Quoted("--rhsm-baseurl"),
    Quoted("--flatpak-registry-url"),
];

static SYSPURPOSE: [Part; 4] = [
    Quoted("--role"),
    Quoted("--sla"),
    Quoted("--usage"),
    Each("--addon"),
];

static TIMESOURCE: [Part; 4] = [
    Bare("--ntp-server"),
    Bare("--ntp-pool"),
    On("--nts"),
    On("--ntp-disable"),
];

static URL: [Part; 6] = [
    FirstQuoted(&["--url", "--mirrorlist", "--metalink"]),
    Quoted("--proxy"),
    On("--noverifyssl"),
    Quoted("--sslcacert"),
    Quoted("--sslclientcert"),
    Quoted("--sslclientkey"),
];

static VOLGROUP: [Part; 7] = [
    First,
    On("--noformat"),
    Bare("--pesize"),
    OnAny("--useexisting", &["--useexisting", "--noformat"]),
    Bare("--reserved-space"),
    Bare("--reserved-percent"),
    Words(1),
];

static XCONFIG: [Part; 3] = [Text(" "), Bare("--defaultdesktop"), On("--startxonboot")];

/// Options that stand for another one until they are given, and keep what they stood for first.
pub(super) const IMPLIED: [(&str, &str, &str); 3] = [
    ("bootc", "--target-imgref", "--source-imgref"),
    ("ostreecontainer", "--remote", "--stateroot"),
    ("ostreesetup", "--remote", "--osname"),
];
