//! Which packages there are, what is left out of them, and what they are called where RPM packages are at home.

/// What runs the package manager, and a shell: a root without a kernel.
pub(super) const SMALL: &[&str] = &[
    "bash",
    "bsdutils",
    "coreutils",
    "cpio",
    "debianutils",
    "diffutils",
    "dnf",
    "dosfstools",
    "e2fsprogs",
    "file",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "kmod",
    "less",
    "libc-bin",
    "libpam-modules",
    "libpam-runtime",
    "login",
    "mawk",
    "mount",
    "nano",
    "ncurses-base",
    "ncurses-bin",
    "netbase",
    "passwd",
    "procps",
    "rpm",
    "sed",
    "sudo",
    "tar",
    "tzdata",
    "util-linux",
    "xz-utils",
    "zstd",
];

/// What boots, beside that.
pub(super) const BASE: &[&str] = &[
    "dbus",
    "dmsetup",
    "dracut",
    "dracut-core",
    "dracut-live",
    "fdisk",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "grub2-common",
    "iputils-ping",
    "kbd",
    "libnss-systemd",
    "libpam-systemd",
    "linux-image-amd64",
    "network-manager",
    "polkitd",
    "shim-signed",
    "squashfs-tools",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux-extra",
];

/// A desktop, beside that.
pub(super) const DESKTOP: &[&str] = &[
    "adwaita-icon-theme",
    "dbus-x11",
    "fonts-dejavu-core",
    "hicolor-icon-theme",
    "lightdm",
    "lightdm-gtk-greeter",
    "thunar",
    "x11-xserver-utils",
    "xfce4-panel",
    "xfce4-session",
    "xfce4-settings",
    "xfce4-terminal",
    "xfdesktop4",
    "xfwm4",
    "xinit",
    "xserver-xorg-core",
    "xserver-xorg-input-libinput",
    "xserver-xorg-video-fbdev",
];

/// Directories that the package filesystem owns.
pub(super) const FILESYSTEM: &[&str] = &[
    "boot",
    "boot/efi",
    "boot/efi/EFI",
    "dev",
    "etc",
    "etc/default",
    "etc/pam.d",
    "etc/profile.d",
    "etc/skel",
    "etc/systemd",
    "etc/xdg",
    "home",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/include",
    "usr/lib",
    "usr/lib/systemd",
    "usr/lib/systemd/system",
    "usr/lib/udev",
    "usr/lib/udev/rules.d",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib32",
    "usr/lib64",
    "usr/libexec",
    "usr/libx32",
    "usr/local",
    "usr/local/bin",
    "usr/local/lib",
    "usr/local/sbin",
    "usr/local/share",
    "usr/sbin",
    "usr/share",
    "usr/src",
    "var",
    "var/cache",
    "var/lib",
    "var/local",
    "var/log",
    "var/mail",
    "var/spool",
    "var/tmp",
];

/// Packages that are not carried over: Debian's own machinery, and what a desktop in a test can do without. A pattern ends in `*`.
const DROPPED: &[&str] = &[
    "adduser",
    "apt",
    "base-files",
    "base-passwd",
    "cpp*",
    "crda",
    "debconf*",
    "debian-archive-keyring",
    "dnsmasq*",
    "dpkg",
    "gcc-12-base",
    "gettext-base",
    "gpgv",
    "gstreamer*",
    "init-system-helpers",
    "initramfs-tools*",
    "install-info",
    "iso-codes",
    "libapt*",
    "libdb5*",
    "libdebconf*",
    "libgdbm*",
    "libgl1-mesa-dri",
    "libgstreamer*",
    "libisl*",
    "libllvm*",
    "libmpc3",
    "libmpfr6",
    "libperl*",
    "libpulse*",
    "libz3*",
    "linux-base",
    "linux-image-amd64",
    "linux-initramfs-tool",
    "lsb-base",
    "mailcap",
    "mime-support",
    "modemmanager",
    "mokutil",
    "perl*",
    "pinentry*",
    "policykit-1-gnome",
    "ppp*",
    "python3-distutils",
    "readline-common",
    "libfile-find-rule-perl",
    "libnumber-compare-perl",
    "libtext-glob-perl",
    "sensible-utils",
    "usrmerge",
    "shim-signed-common",
    "ucf",
    "update-inetd",
    "wireless-regdb",
    "xserver-xorg-legacy",
];

pub(super) fn is_dropped(name: &str) -> bool {
    DROPPED
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
}

/// What kickstarts of RPM distributions, and Kiln, call packages.
const PROVIDES: &[(&str, &[&str])] = &[
    ("bash", &["/bin/bash", "/bin/sh", "/usr/bin/sh"]),
    ("fonts-dejavu-core", &["dejavu-sans-fonts"]),
    ("grub-efi-amd64-bin", &["grub2-efi-x64-modules"]),
    ("grub-efi-amd64-signed", &["grub2-efi-x64"]),
    ("grub-pc-bin", &["grub2-pc", "grub2-pc-modules"]),
    ("grub2-common", &["grub2-tools"]),
    ("iproute2", &["iproute"]),
    ("iputils-ping", &["iputils"]),
    ("libc6", &["glibc", "libc.so.6()(64bit)"]),
    ("libpam-modules", &["pam"]),
    ("lightdm-gtk-greeter", &["lightdm-gtk"]),
    ("mawk", &["gawk"]),
    ("network-manager", &["NetworkManager"]),
    ("passwd", &["shadow-utils"]),
    ("polkitd", &["polkit"]),
    ("procps", &["procps-ng"]),
    ("shim-signed", &["shim-x64"]),
    ("udev", &["systemd-udev"]),
    ("xserver-xorg-core", &["xorg-x11-server-Xorg"]),
    ("xserver-xorg-input-libinput", &["xorg-x11-drv-libinput"]),
    ("xz-utils", &["xz"]),
];

/// What packages need beside what Debian's say.
const REQUIRES: &[(&str, &[&str])] = &[
    ("bash", &["setup"]),
    ("coreutils", &["filesystem"]),
    (
        "dracut",
        &["cpio", "dracut-core", "gzip", "kmod", "udev", "zstd"],
    ),
    ("dracut-live", &["dmsetup", "squashfs-tools"]),
    ("libc6", &["filesystem"]),
    ("rpm", &["kindling-rpm-config"]),
    ("systemd", &["kindling-release", "pam-config"]),
];

/// Links that Debian's alternatives make: path and target.
const LINKS: &[(&str, &[(&str, &str)])] = &[
    ("bash", &[("usr/bin/sh", "bash")]),
    ("debianutils", &[("usr/bin/which", "which.debianutils")]),
    (
        "lightdm-gtk-greeter",
        &[(
            "usr/share/xgreeters/lightdm-greeter.desktop",
            "lightdm-gtk-greeter.desktop",
        )],
    ),
    ("mawk", &[("usr/bin/awk", "mawk")]),
    ("nano", &[("usr/bin/editor", "nano")]),
    (
        "xfce4-session",
        &[("usr/bin/x-session-manager", "startxfce4")],
    ),
    (
        "xfce4-terminal",
        &[("usr/bin/x-terminal-emulator", "xfce4-terminal")],
    ),
    ("xfwm4", &[("usr/bin/x-window-manager", "xfwm4")]),
];

/// Where RPM distributions have boot loaders: copies of files. GRUB for UEFI is made by `loader`.
const COPIES: &[(&str, &[(&str, &str)])] = &[
    (
        "shim-helpers-amd64-signed",
        &[(
            "usr/lib/shim/mmx64.efi.signed",
            "boot/efi/EFI/centos/mmx64.efi",
        )],
    ),
    (
        "shim-signed",
        &[
            (
                "usr/lib/shim/shimx64.efi.signed",
                "boot/efi/EFI/centos/shimx64.efi",
            ),
            (
                "usr/lib/shim/shimx64.efi.signed",
                "boot/efi/EFI/BOOT/BOOTX64.EFI",
            ),
        ],
    ),
];

/// Files that are no part of a package here.
const WITHOUT: &[(&str, &[&str])] = &[("dash", &["usr/bin/sh"])];

/// Owners and modes that Debian's packages set when they are installed.
pub(super) const OWNERS: &[(&str, (u32, &str, &str))] = &[
    ("etc/polkit-1/localauthority", (0o700, "root", "root")),
    ("usr/bin/pkexec", (0o4755, "root", "root")),
    (
        "usr/lib/dbus-1.0/dbus-daemon-launch-helper",
        (0o4750, "root", "messagebus"),
    ),
    (
        "usr/lib/polkit-1/polkit-agent-helper-1",
        (0o4755, "root", "root"),
    ),
    ("var/lib/polkit-1", (0o700, "polkitd", "polkitd")),
];

/// File capabilities.
pub(super) const CAPABILITIES: &[(&str, &str)] = &[("usr/bin/ping", "cap_net_raw=ep")];

const ALL_FINE: &str = " >/dev/null 2>&1 || :\n";

/// Sections that stand in for Debian's maintainer scripts.
pub(super) fn sections(name: &str) -> String {
    let library = "/usr/lib/x86_64-linux-gnu";
    let trigger = |on: &str, run: &str| format!("%transfiletriggerin -- {on}\n{run}{ALL_FINE}");
    match name {
        "libc-bin" => "%transfiletriggerin -P 2000000 -- /usr/lib\n/usr/sbin/ldconfig\n".to_owned(),
        "systemd" => format!(
            "%post\nsystemd-sysusers{ALL_FINE}systemd-machine-id-setup{ALL_FINE}systemctl --no-reload preset-all{ALL_FINE}\
             %transfiletriggerin -P 1000700 -- /usr/lib/sysusers.d\nsystemd-sysusers{ALL_FINE}\
             %transfiletriggerin -P 1000600 -- /usr/lib/tmpfiles.d\n\
             systemd-tmpfiles --create --exclude-prefix=/dev --exclude-prefix=/proc --exclude-prefix=/sys{ALL_FINE}"
        ),
        "udev" => trigger("/usr/lib/udev/hwdb.d", "systemd-hwdb update"),
        "libglib2.0-0" => trigger(
            "/usr/share/glib-2.0/schemas",
            &format!("{library}/glib-2.0/glib-compile-schemas /usr/share/glib-2.0/schemas"),
        ),
        "libgdk-pixbuf-2.0-0" => trigger(
            &format!("{library}/gdk-pixbuf-2.0"),
            &format!("{library}/gdk-pixbuf-2.0/gdk-pixbuf-query-loaders --update-cache"),
        ),
        "shared-mime-info" => trigger(
            "/usr/share/mime/packages",
            "update-mime-database /usr/share/mime",
        ),
        "libgtk-3-0" => trigger(
            "/usr/share/icons/hicolor",
            "gtk-update-icon-cache -q -t -f /usr/share/icons/hicolor",
        ),
        "fontconfig" => trigger("/usr/share/fonts", "fc-cache -s"),
        "dbus" | "dbus-daemon" => user("messagebus", "/run/dbus"),
        "polkitd" => user("polkitd", "/"),
        "lightdm" => format!(
            "{}%post\nmkdir -p /var/lib/lightdm/data /var/log/lightdm /var/cache/lightdm\nchown -R lightdm:lightdm /var/lib/lightdm\n\
             ln -sf /usr/lib/systemd/system/lightdm.service /etc/systemd/system/display-manager.service\n",
            user("lightdm", "/var/lib/lightdm")
        ),
        _ => String::new(),
    }
}

/// A `%pre` that makes an account.
fn user(name: &str, home: &str) -> String {
    format!(
        "%pre\ngetent group {name} >/dev/null || groupadd -r {name}\n\
         getent passwd {name} >/dev/null || useradd -r -g {name} -d {home} -M -s /usr/sbin/nologin {name}\nexit 0\n"
    )
}

fn of<T: Copy>(table: &'static [(&str, &'static [T])], name: &str) -> &'static [T] {
    let found = table.iter().find(|(known, _)| *known == name);
    found.map_or(&[], |(_, values)| values)
}

pub(super) fn provides(name: &str) -> &'static [&'static str] {
    of(PROVIDES, name)
}

pub(super) fn requires(name: &str) -> &'static [&'static str] {
    of(REQUIRES, name)
}

pub(super) fn links(name: &str) -> &'static [(&'static str, &'static str)] {
    of(LINKS, name)
}

pub(super) fn copies(name: &str) -> &'static [(&'static str, &'static str)] {
    of(COPIES, name)
}

pub(super) fn without(name: &str) -> &'static [&'static str] {
    of(WITHOUT, name)
}

/// Modules that stay with the kernel's image; a machine's disks, file systems and consoles.
const CORE: &[&str] = &[
    "arch/",
    "block/",
    "crypto/",
    "drivers/acpi/",
    "drivers/ata/",
    "drivers/block/",
    "drivers/cdrom/",
    "drivers/char/hw_random/",
    "drivers/dax/",
    "drivers/firmware/",
    "drivers/gpu/drm/bochs",
    "drivers/gpu/drm/cirrus",
    "drivers/gpu/drm/drm",
    "drivers/gpu/drm/tiny/",
    "drivers/gpu/drm/ttm/",
    "drivers/gpu/drm/virtio/",
    "drivers/hid/hid",
    "drivers/hid/usbhid/",
    "drivers/i2c/",
    "drivers/input/evdev",
    "drivers/input/keyboard/",
    "drivers/input/mouse/",
    "drivers/input/mousedev",
    "drivers/input/serio/",
    "drivers/md/",
    "drivers/mmc/",
    "drivers/net/dummy",
    "drivers/net/ethernet/intel/e1000",
    "drivers/net/ethernet/realtek/8139",
    "drivers/net/net_failover",
    "drivers/net/tun",
    "drivers/net/virtio_net",
    "drivers/nvme/",
    "drivers/pci/",
    "drivers/scsi/scsi",
    "drivers/scsi/sd_mod",
    "drivers/scsi/sr_mod",
    "drivers/scsi/virtio_scsi",
    "drivers/usb/common/",
    "drivers/usb/core/",
    "drivers/usb/host/",
    "drivers/usb/storage/",
    "drivers/video/",
    "drivers/virtio/",
    "fs/",
    "lib/",
    "mm/",
    "net/core/",
    "net/ipv6/",
    "net/netfilter/",
    "net/packet/",
    "net/unix/",
];

/// Whether a module, by its path below `kernel/`, comes with the image.
pub(super) fn is_core_module(path: &str) -> bool {
    CORE.iter().any(|start| path.starts_with(start))
}
