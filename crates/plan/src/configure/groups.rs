//! `@group` and `@^environment` of `%packages` in Debian's terms: tasks, priorities and packages.

use serde::{Deserialize, Serialize};

use super::nearest::nearest;

/// A Debian priority (Policy section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Without them dpkg itself may not work.
    Required,
    /// What one expects of any Unix.
    Important,
    /// A small but useful text-mode system.
    Standard,
}

/// What a group stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMeaning {
    /// Packages by name. A task is its metapackage (`task-xfce-desktop`).
    pub packages: Vec<String>,
    /// Every package of these priorities.
    pub priorities: Vec<Priority>,
}

/// A group that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("@{name}: no such group")]
pub struct UnknownGroup {
    /// As it was written.
    pub name: String,
    /// The nearest known names.
    pub nearest: Vec<String>,
}

impl UnknownGroup {
    /// What to do.
    pub fn hint(&self) -> String {
        let names = "groups are Debian's tasks (@xfce-desktop, @german-desktop, @ssh-server), @core, @standard and \
                     the common names of other distributions";
        match self.nearest.as_slice() {
            [] => names.to_owned(),
            near => {
                let near: Vec<String> = near.iter().map(|n| format!("@{n}")).collect();
                format!("did you mean {}? {names}", near.join(" or "))
            }
        }
    }
}

/// What `@name` or `@^name` means.
///
/// Names are those of Debian's tasks with or without `task-`, those of the usual Fedora and RHEL groups, or their
/// titles (`Xfce Desktop`); letters' case, blanks and underscores make no difference.
///
/// # Errors
/// [`UnknownGroup`] with the nearest names.
pub fn resolve(name: &str) -> Result<GroupMeaning, UnknownGroup> {
    let wanted = normal(name);
    let wanted = wanted.strip_prefix("task-").unwrap_or(&wanted);
    let priorities = match wanted {
        "core" | "minimal-environment" => Some(vec![Priority::Required, Priority::Important]),
        "standard" => Some(vec![
            Priority::Required,
            Priority::Important,
            Priority::Standard,
        ]),
        _ => None,
    };
    if let Some(priorities) = priorities {
        return Ok(GroupMeaning {
            packages: Vec::new(),
            priorities,
        });
    }
    if let Some((_, packages)) = ALIASES.iter().find(|(alias, _)| *alias == wanted) {
        return Ok(of(packages.split_whitespace().map(str::to_owned)));
    }
    if TASKS.split_whitespace().any(|t| t == wanted) {
        return Ok(of([format!("task-{wanted}")]));
    }
    let near = nearest(wanted, names())
        .into_iter()
        .map(str::to_owned)
        .collect();
    Err(UnknownGroup {
        name: name.to_owned(),
        nearest: near,
    })
}

fn of(packages: impl IntoIterator<Item = String>) -> GroupMeaning {
    GroupMeaning {
        packages: packages.into_iter().collect(),
        priorities: Vec::new(),
    }
}

/// Every name that [`resolve`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    let aliases = ALIASES.iter().map(|(alias, _)| *alias);
    ["core", "standard"]
        .into_iter()
        .chain(aliases)
        .chain(TASKS.split_whitespace())
}

fn normal(name: &str) -> String {
    let lower = name.trim().to_lowercase();
    let words: Vec<&str> = lower.split([' ', '_']).filter(|w| !w.is_empty()).collect();
    words.join("-")
}

/// Groups and environments of Fedora and RHEL as Debian packages: the same purpose, not the same list.
const ALIASES: &[(&str, &str)] = &[
    ("3d-printing", "cura prusa-slicer openscad"),
    ("admin-tools", "system-config-printer gparted synaptic"),
    (
        "base",
        "less man-db bash-completion file lsof psmisc rsync wget curl bzip2 xz-utils unzip vim-tiny",
    ),
    ("base-graphical", "xserver-xorg xinit xauth"),
    (
        "base-x",
        "xserver-xorg xserver-xorg-video-all xserver-xorg-input-all xinit xauth x11-xserver-utils",
    ),
    (
        "buildsys-build",
        "build-essential fakeroot devscripts debhelper",
    ),
    (
        "c-development",
        "build-essential gdb autoconf automake libtool pkg-config valgrind",
    ),
    ("cinnamon-desktop-environment", "task-cinnamon-desktop"),
    ("console-internet", "curl wget lftp w3m openssh-client"),
    ("container-management", "podman buildah skopeo"),
    ("custom-environment", ""),
    ("desktop-accessibility", "at-spi2-core orca"),
    ("development", "build-essential gdb git pkg-config"),
    (
        "development-libs",
        "libc6-dev zlib1g-dev libssl-dev libncurses-dev libreadline-dev",
    ),
    (
        "development-tools",
        "build-essential gdb git subversion patch autoconf automake libtool pkg-config",
    ),
    ("dial-up", "ppp wvdial"),
    ("directory-client", "sssd libnss-sss libpam-sss krb5-user"),
    ("dns-server", "bind9 bind9-utils"),
    ("editors", "vim emacs-nox nano"),
    ("editors-and-ides", "vim emacs-nox nano geany"),
    ("eclipse", "default-jdk"),
    ("file-server", "samba nfs-kernel-server"),
    ("firefox", "firefox-esr"),
    (
        "fonts",
        "fonts-dejavu fonts-liberation fonts-noto-core fonts-noto-cjk fonts-noto-color-emoji",
    ),
    ("ftp-server", "vsftpd"),
    ("games", "gnome-games"),
    ("gnome", "task-gnome-desktop"),
    ("gnome-desktop-environment", "task-gnome-desktop"),
    (
        "graphical-admin-tools",
        "system-config-printer gparted synaptic",
    ),
    ("graphical-internet", "firefox-esr thunderbird"),
    (
        "graphical-server-environment",
        "task-gnome-desktop openssh-server",
    ),
    ("graphics", "gimp inkscape"),
    ("guest-agents", "qemu-guest-agent open-vm-tools"),
    (
        "guest-desktop-agents",
        "qemu-guest-agent spice-vdagent open-vm-tools-desktop",
    ),
    ("hardware-support", "firmware-linux-free usbutils pciutils"),
    ("headless-management", "openssh-server"),
    ("i3-desktop", "i3 lightdm"),
    ("infrastructure-server-environment", "openssh-server"),
    ("input-methods", "ibus ibus-gtk3 im-config"),
    ("internet-browser", "firefox-esr"),
    ("java", "default-jdk"),
    ("java-development", "default-jdk ant maven"),
    ("java-platform", "default-jre"),
    ("kde", "task-kde-desktop"),
    ("kde-desktop-environment", "task-kde-desktop"),
    ("kde-plasma-workspaces", "task-kde-desktop"),
    ("legacy-fonts", "xfonts-base xfonts-75dpi xfonts-100dpi"),
    ("libreoffice", "libreoffice"),
    ("load-balancer", "haproxy keepalived"),
    ("lxde-desktop-environment", "task-lxde-desktop"),
    ("lxqt-desktop-environment", "task-lxqt-desktop"),
    ("mail-server", "postfix dovecot-imapd"),
    ("mariadb-database", "mariadb-server"),
    ("mate-desktop-environment", "task-mate-desktop"),
    (
        "minimal-x",
        "xserver-xorg-core xserver-xorg-input-libinput xinit",
    ),
    (
        "multimedia",
        "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-libav vlc",
    ),
    ("network-file-system-client", "nfs-common cifs-utils"),
    ("network-server", "isc-dhcp-server bind9"),
    ("network-tools", "nmap tcpdump iperf3 ethtool traceroute"),
    (
        "networkmanager-submodules",
        "network-manager wpasupplicant modemmanager ppp",
    ),
    ("office", "libreoffice evince"),
    ("office-suite-and-productivity", "libreoffice evince"),
    ("php", "php"),
    ("platform-vmware", "open-vm-tools"),
    ("print-client", "cups-client cups-bsd system-config-printer"),
    (
        "print-server",
        "cups cups-bsd cups-client printer-driver-all foomatic-db-compressed-ppds",
    ),
    (
        "printing",
        "cups cups-client printer-driver-all system-config-printer",
    ),
    ("python", "python3"),
    ("python-development", "python3-dev python3-venv python3-pip"),
    (
        "python-science",
        "python3-numpy python3-scipy python3-matplotlib python3-pandas",
    ),
    (
        "rpm-development-tools",
        "build-essential devscripts debhelper",
    ),
    ("scientific", "gnuplot octave python3-numpy python3-scipy"),
    ("security-tools", "lynis nmap clamav"),
    ("server", "openssh-server"),
    ("server-platform", "openssh-server"),
    ("server-product", "openssh-server"),
    ("server-product-environment", "openssh-server"),
    ("smb-server", "samba"),
    ("sound-and-video", "vlc pavucontrol"),
    ("sql-server", "postgresql"),
    ("sugar-desktop", "sucrose"),
    ("sugar-desktop-environment", "sucrose"),
    ("sway-desktop", "sway"),
    ("sway-desktop-environment", "sway"),
    ("system-tools", "htop lsof strace sysstat"),
    ("text-internet", "w3m lynx mutt"),
    ("tex", "texlive-latex-recommended texlive-fonts-recommended"),
    (
        "virtualization",
        "qemu-system-x86 libvirt-daemon-system virt-manager virtinst",
    ),
    ("virtualization-client", "virt-manager virtinst"),
    (
        "virtualization-host-environment",
        "qemu-system-x86 libvirt-daemon-system virtinst",
    ),
    (
        "virtualization-hypervisor",
        "qemu-system-x86 libvirt-daemon-system",
    ),
    ("web-server", "task-web-server"),
    ("workstation-product", "task-gnome-desktop"),
    ("workstation-product-environment", "task-gnome-desktop"),
    ("x-window-system", "xserver-xorg xinit xauth"),
    ("xfce", "task-xfce-desktop"),
    ("xfce-desktop-environment", "task-xfce-desktop"),
];

/// Tasks of bookworm's tasksel, without `task-`.
const TASKS: &str = "
    albanian-desktop amharic amharic-desktop amharic-gnome-desktop amharic-kde-desktop arabic arabic-desktop arabic-
    kde-desktop asturian asturian-desktop basque basque-desktop basque-kde-desktop belarusian belarusian-desktop
    belarusian-kde-desktop bengali bengali-desktop bengali-kde-desktop bosnian bosnian-desktop bosnian-kde-desktop
    brazilian-portuguese brazilian-portuguese-desktop brazilian-portuguese-kde-desktop british-desktop british-kde-
    desktop bulgarian bulgarian-desktop bulgarian-kde-desktop catalan catalan-desktop catalan-kde-desktop chinese-s
    chinese-s-desktop chinese-s-gnome-desktop chinese-s-kde-desktop chinese-t chinese-t-desktop chinese-t-gnome-
    desktop chinese-t-kde-desktop cinnamon-desktop croatian croatian-desktop croatian-kde-desktop cyrillic cyrillic-
    desktop cyrillic-kde-desktop czech czech-desktop czech-kde-desktop danish danish-desktop danish-kde-desktop
    desktop dutch dutch-desktop dutch-kde-desktop dzongkha-desktop dzongkha-kde-desktop english esperanto esperanto-
    desktop esperanto-kde-desktop estonian estonian-desktop estonian-kde-desktop finnish finnish-desktop finnish-
    kde-desktop french french-desktop french-kde-desktop galician galician-desktop galician-kde-desktop georgian-
    desktop german german-desktop german-kde-desktop gnome-desktop gnome-flashback-desktop greek greek-desktop
    greek-kde-desktop gujarati gujarati-desktop gujarati-kde-desktop hebrew hebrew-desktop hebrew-gnome-desktop
    hebrew-kde-desktop hindi hindi-desktop hindi-kde-desktop hungarian hungarian-desktop hungarian-kde-desktop
    icelandic icelandic-desktop icelandic-kde-desktop indonesian-desktop indonesian-kde-desktop irish irish-desktop
    irish-kde-desktop italian italian-desktop italian-kde-desktop japanese japanese-desktop japanese-gnome-desktop
    japanese-gnome-flashback-desktop japanese-kde-desktop kannada-desktop kannada-gnome-desktop kannada-kde-desktop
    kazakh kazakh-desktop kazakh-kde-desktop kde-desktop khmer khmer-desktop khmer-kde-desktop korean korean-desktop
    korean-gnome-desktop korean-kde-desktop kurdish kurdish-desktop kurdish-kde-desktop laptop latvian latvian-
    desktop latvian-kde-desktop lithuanian lithuanian-desktop lithuanian-kde-desktop lxde-desktop lxqt-desktop
    macedonian macedonian-desktop macedonian-kde-desktop malayalam malayalam-desktop malayalam-gnome-desktop
    malayalam-kde-desktop marathi marathi-desktop mate-desktop nepali-desktop nepali-kde-desktop northern-sami
    northern-sami-desktop norwegian norwegian-desktop norwegian-kde-desktop persian persian-desktop persian-kde-
    desktop polish polish-desktop polish-kde-desktop portuguese portuguese-desktop portuguese-kde-desktop punjabi
    punjabi-desktop punjabi-kde-desktop romanian romanian-desktop romanian-kde-desktop russian russian-desktop
    russian-kde-desktop serbian serbian-desktop serbian-kde-desktop sinhala-desktop sinhala-kde-desktop slovak
    slovak-desktop slovak-kde-desktop slovenian slovenian-desktop slovenian-kde-desktop south-african-english-
    desktop spanish spanish-desktop spanish-kde-desktop ssh-server swedish swedish-desktop swedish-kde-desktop
    tagalog tamil tamil-desktop tamil-gnome-desktop telugu telugu-desktop telugu-gnome-desktop telugu-kde-desktop
    thai thai-desktop thai-gnome-desktop thai-kde-desktop turkish turkish-desktop turkish-kde-desktop ukrainian
    ukrainian-desktop ukrainian-kde-desktop uyghur-desktop uyghur-kde-desktop vietnamese-desktop vietnamese-kde-
    desktop web-server welsh welsh-desktop xfce-desktop xhosa-desktop xhosa-kde-desktop
";
