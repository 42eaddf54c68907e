//! What live images have beside a system, in the style of Fedora's and Enterprise Linux' packages: the account that a live session is of,
//! as scripts that run at boot (livesys-scripts) or as what kickstarts with such a script of their own need (chkconfig, initscripts).

use super::own::Own;

/// Runs before the desktop, on live media only.
const UNIT: &str = "[Unit]\nDescription=Prepare the live session\nConditionKernelCommandLine=rd.live.image\n\
    After=systemd-sysusers.service local-fs.target\nBefore=display-manager.service getty.target\n\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/libexec/livesys/livesys-main\n\n\
    [Install]\nWantedBy=multi-user.target\n";
const LATE: &str = "[Unit]\nDescription=Finish the live session's preparation\nConditionKernelCommandLine=rd.live.image\nAfter=livesys.service\n\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/libexec/livesys/livesys-late\n\n\
    [Install]\nWantedBy=multi-user.target\n";
const MAIN: &str = "#!/bin/bash\n# Makes the account of the live session, and lets the desktop log it in.\n\
    [ ! -e /.liveimg-configured ] || exit 0\n\
    livesys_session=\n[ ! -r /etc/sysconfig/livesys ] || . /etc/sysconfig/livesys\n\
    getent passwd liveuser >/dev/null || useradd -m -c \"Live session\" -s /bin/bash liveuser\n\
    passwd -d liveuser >/dev/null\nusermod -aG wheel liveuser\n\
    session=/usr/libexec/livesys/sessions.d/livesys-$livesys_session\n\
    [ -z \"$livesys_session\" ] || [ ! -r \"$session\" ] || . \"$session\"\n\
    touch /.liveimg-configured\n";
const AFTER: &str =
    "#!/bin/bash\n# What can wait until the session starts.\ntouch /.liveimg-late-configured\n";
const XFCE: &str = "mkdir -p /etc/lightdm/lightdm.conf.d\n\
    printf '[Seat:*]\\nautologin-user=liveuser\\nautologin-user-timeout=0\\nuser-session=xfce\\n' > /etc/lightdm/lightdm.conf.d/50-livesys.conf\n";

/// Links for the run levels that the script's head names.
const CHKCONFIG: &str = "#!/bin/bash\n# chkconfig --add|--del NAME; NAME on|off\nshopt -s nullglob\n\
    case $1 in\n--add) name=$2 what=on ;;\n--del) name=$2 what=off ;;\n--*) echo \"chkconfig: $1 is not known here\" >&2; exit 1 ;;\n*) name=$1 what=$2 ;;\nesac\n\
    script=/etc/rc.d/init.d/$name\n\
    [ -r \"$script\" ] || { echo \"error reading information on service $name: No such file or directory\" >&2; exit 1; }\n\
    rm -f /etc/rc.d/rc?.d/[SK][0-9][0-9]\"$name\"\n[ \"$what\" = on ] || exit 0\n\
    read -r levels start _ < <(sed -n 's/^# *chkconfig: *//p' \"$script\")\n[ \"$levels\" != - ] || exit 0\n\
    for ((i = 0; i < ${#levels}; i++)); do ln -s \"../init.d/$name\" \"/etc/rc.d/rc${levels:i:1}.d/S$start$name\"; done\n";
const FUNCTIONS: &str = "# What scripts of init.d take from here.\nstrstr() { case $1 in *\"$2\"*) return 0 ;; esac; return 1; }\n\
    success() { return 0; }\nfailure() { return 1; }\naction() { echo \"$1\"; shift; \"$@\"; }\n";

const THEME: &str = "#!/bin/bash\n# plymouth-set-default-theme [-R] [THEME]\n\
    rebuild=\n[ \"$1\" != -R ] && [ \"$1\" != --rebuild-initrd ] || { rebuild=yes; shift; }\n\
    file=/etc/plymouth/plymouthd.conf\n[ $# -gt 0 ] || exec sed -n 's/^Theme=//p' \"$file\"\n\
    [ -d \"/usr/share/plymouth/themes/$1\" ] || { echo \"$1 is not a theme\" >&2; exit 1; }\n\
    printf '[Daemon]\\nTheme=%s\\n' \"$1\" > \"$file\"\n[ -z \"$rebuild\" ] || exec dracut --force\n";

pub(super) fn packages() -> Vec<Own> {
    vec![
        livesys(),
        chkconfig(),
        initscripts(),
        plymouth(),
        firewalld(),
        selinux(),
    ]
}

fn livesys() -> Own {
    Own::new("livesys-scripts", "0.9")
        .tag("Requires: bash passwd systemd")
        .file(0o644, "usr/lib/systemd/system/livesys.service", UNIT)
        .file(0o644, "usr/lib/systemd/system/livesys-late.service", LATE)
        .file(0o755, "usr/libexec/livesys/livesys-main", MAIN)
        .file(0o755, "usr/libexec/livesys/livesys-late", AFTER)
        .file(0o644, "usr/libexec/livesys/sessions.d/livesys-xfce", XFCE)
        .file(0o644, "etc/sysconfig/livesys", "livesys_session=\"\"\n")
}

/// Its directories of run levels are where Debian's systemd looks, too.
fn chkconfig() -> Own {
    let mut own = Own::new("chkconfig", "1.24")
        .tag("Requires: bash sed filesystem")
        .file(0o755, "usr/sbin/chkconfig", CHKCONFIG)
        .link("etc/init.d", "rc.d/init.d")
        .directory(0o755, "etc/rc.d")
        .directory(0o755, "etc/rc.d/init.d");
    for (level, link, target) in [
        ("etc/rc.d/rc0.d", "etc/rc0.d", "rc.d/rc0.d"),
        ("etc/rc.d/rc1.d", "etc/rc1.d", "rc.d/rc1.d"),
        ("etc/rc.d/rc2.d", "etc/rc2.d", "rc.d/rc2.d"),
        ("etc/rc.d/rc3.d", "etc/rc3.d", "rc.d/rc3.d"),
        ("etc/rc.d/rc4.d", "etc/rc4.d", "rc.d/rc4.d"),
        ("etc/rc.d/rc5.d", "etc/rc5.d", "rc.d/rc5.d"),
        ("etc/rc.d/rc6.d", "etc/rc6.d", "rc.d/rc6.d"),
    ] {
        own = own.directory(0o755, level).link(link, target);
    }
    own
}

fn initscripts() -> Own {
    Own::new("initscripts", "10.11")
        .tag("Requires: chkconfig")
        .file(0o644, "etc/rc.d/init.d/functions", FUNCTIONS)
}

fn plymouth() -> Own {
    Own::new("plymouth-scripts", "22.02")
        .tag("Requires: bash sed")
        .file(0o755, "usr/sbin/plymouth-set-default-theme", THEME)
        .file(
            0o644,
            "etc/plymouth/plymouthd.conf",
            "[Daemon]\nTheme=text\n",
        )
        .directory(0o755, "usr/share/plymouth/themes/text")
        .directory(0o755, "usr/share/plymouth/themes/details")
}

/// Notes what it was told, in the order of its options.
fn firewalld() -> Own {
    let program = "#!/bin/bash\n# Takes what firewalld's program takes, and keeps it.\n[ $# -gt 0 ] || exit 2\nmkdir -p /etc/firewalld\n\
        printf '%s\\n' \"$@\" >> /etc/firewalld/told\necho success\n";
    let unit = "[Unit]\nDescription=Firewall\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/true\n\n\
        [Install]\nWantedBy=multi-user.target\n";
    Own::new("firewalld", "1.3")
        .tag("Requires: bash systemd")
        .file(0o755, "usr/bin/firewall-offline-cmd", program)
        .file(0o644, "usr/lib/systemd/system/firewalld.service", unit)
}

/// Labels, and no policy: what boots with it must not enforce any.
fn selinux() -> Own {
    let contexts = "/.*\tsystem_u:object_r:default_t:s0\n/etc(/.*)?\tsystem_u:object_r:etc_t:s0\n\
        /usr/bin(/.*)?\tsystem_u:object_r:bin_t:s0\n/home/[^/]+(/.*)?\tuser_u:object_r:user_home_t:s0\n";
    Own::new("selinux-policy-targeted", "38")
        .tag("Requires: filesystem")
        .file(
            0o644,
            "etc/selinux/config",
            "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
        )
        .file(
            0o644,
            "etc/selinux/targeted/contexts/files/file_contexts",
            contexts,
        )
}
