//! Kickstart commands applied to a real Debian root, judged by that root's own tools.
//!
//! Needs root (for chroot), the network (a Debian mirror) and the Debian package mmdebstrap; without them the tests
//! fail and say so. The root is made once and kept in cargo's directory for tests.

#[path = "../../plan/tests/configure/mod.rs"]
mod configure;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use configure::lowered;
use kiln_plan::configure::{Change, Level};
use kiln_rootfs::changes::{Error, ErrorKind, Settings, apply};

/// What a lab's root has of the packages that the commands need.
const LAB: &str = "locales,keyboard-configuration,console-setup,tzdata,sudo,systemd-sysv,systemd-timesyncd,\
                   network-manager,nftables,firewalld,netbase,openssh-server,openssh-client,cron,passwd";

/// A root with the other time service: the two exclude each other.
const CHRONY: &str = "chrony,openssh-server,openssh-client,passwd,systemd-sysv";

/// A Debian root made by mmdebstrap. A failure is kept: trying again would fail again.
fn template(packages: &'static str) -> Result<PathBuf, String> {
    static MADE: Mutex<BTreeMap<&str, Result<PathBuf, String>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    made.entry(packages)
        .or_insert_with(|| make(packages))
        .clone()
}

fn make(packages: &str) -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("this test needs root, for chroot(2)".to_owned());
    }
    // A changed list makes a new root.
    let mut hasher = std::hash::DefaultHasher::new();
    packages.hash(&mut hasher);
    let wanted =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("configure-{:x}", hasher.finish()));
    if wanted.exists() {
        return Ok(wanted);
    }
    let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let root = fresh.path().join("root");
    // In a mount namespace of its own: nothing that mmdebstrap mounts can stay behind.
    let made = Command::new("unshare")
        .args([
            "--mount",
            "mmdebstrap",
            "--quiet",
            "--variant=essential",
            "--mode=root",
            "--dpkgopt=force-unsafe-io",
        ])
        .arg(format!("--include={packages}"))
        // Without recommended packages the root is half as large.
        .args(["--aptopt=APT::Install-Recommends false", "bookworm"])
        .arg(&root)
        .output()
        .map_err(|e| format!("unshare (util-linux) could not be run: {e}"))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        return Err(format!(
            "mmdebstrap failed; this test needs that Debian package and the network (a Debian mirror): {said}"
        ));
    }
    fs::rename(&root, &wanted).map_err(|e| e.to_string())?;
    Ok(wanted)
}

/// A copy of the template that a test may change. All tests take turns: chroot(2) is the whole process's.
struct Root {
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Root {
    fn new() -> Self {
        Root::with(LAB)
    }

    fn with(packages: &'static str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
        let template = template(packages).unwrap_or_else(|e| panic!("{e}"));
        let dir =
            tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the copy");
        let copied = Command::new("cp")
            .args(["-a", "--one-file-system"])
            .arg(template.join("."))
            .arg(dir.path())
            .status();
        assert!(copied.expect("cp").success());
        Root { dir, _turn: turn }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside.trim_start_matches('/'))
    }

    fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|e| panic!("{inside}: {e}"))
    }

    /// Applies changes with the root as `/`, then comes back.
    fn apply(&self, changes: &[Change]) -> (Result<(), Box<Error>>, Vec<String>) {
        let host = fs::File::open("/").expect("the host's root");
        rustix::process::chroot(self.dir.path()).expect("chroot into the root");
        std::env::set_current_dir("/").expect("the root's root");
        let settings = Settings {
            epoch: Some(1_700_000_000),
        };
        let mut lines = Vec::new();
        let result = changes
            .iter()
            .try_for_each(|c| apply(c, &settings, &mut |l| lines.push(l.to_owned())));
        rustix::process::fchdir(&host).expect("back to the host");
        rustix::process::chroot(".").expect("back to the host");
        (result, lines)
    }

    /// Applies a kickstart that must be fine.
    fn kickstart(&self, text: &str, packages: &[&str]) -> Vec<String> {
        let lowered = lowered(text, packages);
        let errors: Vec<_> = lowered
            .notices
            .iter()
            .filter(|n| n.level == Level::Error)
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
        let (result, lines) = self.apply(&lowered.changes);
        if let Err(error) = result {
            panic!("{error:#?}\n{}", lines.join("\n"));
        }
        lines
    }

    /// What goes wrong.
    fn refusal(&self, text: &str) -> Box<Error> {
        self.apply(&lowered(text, &[]).changes)
            .0
            .expect_err("this cannot be applied")
    }

    /// Runs a program of the root; its standard output.
    fn ask(&self, command: &str) -> String {
        let output = Command::new("chroot")
            .arg(self.dir.path())
            .args([
                "/usr/bin/env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "SYSTEMD_OFFLINE=1",
                "/bin/sh",
                "-c",
            ])
            .arg(command)
            .output()
            .expect("chroot");
        let text = String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned();
        assert!(
            output.status.success(),
            "{command}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINLBpYi3UOiSmtRw/qDw4X9zuWYSsCP7JUd3bl7GlAJH anna@desk";

#[test]
fn language_keyboard_and_time_needs_root_and_network() {
    let root = Root::new();
    root.kickstart(
        "lang de_DE.UTF-8 --addsupport=cs_CZ\n\
         keyboard --xlayouts='cz (qwerty)','us' --switch=grp:alt_shift_toggle\n\
         timezone Europe/Prague\n\
         timesource --ntp-server=ntp.example.org\n",
        &[],
    );
    let locales = root.ask("locale -a");
    assert!(
        locales.contains("de_DE.utf8") && locales.contains("cs_CZ.utf8"),
        "{locales}"
    );
    assert_eq!(
        root.ask(". /etc/default/locale; LANG=$LANG locale charmap 2>&1; echo $LANG"),
        "UTF-8\nde_DE.UTF-8"
    );
    let keyboard =
        root.ask(". /etc/default/keyboard; echo $XKBMODEL $XKBLAYOUT $XKBVARIANT $XKBOPTIONS");
    assert_eq!(keyboard, "pc105 cz,us qwerty, grp:alt_shift_toggle");
    // Scan code 3 is the key of the digit 2: ě on a Czech keyboard.
    let keymap =
        root.ask("zcat /etc/console-setup/cached_UTF-8_del.kmap.gz | grep -m1 '^keycode 3 ='");
    assert!(
        keymap.contains("U+011b") || keymap.contains("ecaron"),
        "{keymap}"
    );
    assert_eq!(
        root.ask(
            "TZ= date -d '2026-07-01 12:00 UTC' +%H; readlink -f /etc/localtime; cat /etc/timezone"
        ),
        "12\n/usr/share/zoneinfo/Europe/Prague\nEurope/Prague"
    );
    assert_eq!(root.ask("date -d '2026-07-01 12:00 UTC' +%H%Z"), "14CEST");
    assert_eq!(root.read("/etc/adjtime").lines().nth(2), Some("LOCAL"));
    assert_eq!(
        root.ask("systemctl is-enabled systemd-timesyncd"),
        "enabled"
    );
    assert!(
        root.ask("systemd-analyze cat-config systemd/timesyncd.conf")
            .contains("NTP=ntp.example.org")
    );
}

#[test]
fn accounts_need_root_and_network() {
    let root = Root::new();
    let lines = root.kickstart(
        &format!(
            "rootpw --plaintext kiln\n\
             group --name=lab --gid=5000\n\
             user --name=anna --uid=1500 --gid=1600 --groups=wheel,lab,made(5001) --gecos=\"Anna Example\" --password=s3cret --plaintext\n\
             user --name=ben --homedir=/srv/ben --shell=/bin/sh --lock --password=x\n\
             user --name=cecil\n\
             sshkey --username=anna \"{KEY}\"\n"
        ),
        &["openssh-server"],
    );
    assert!(
        lines
            .iter()
            .any(|l| l == "group made does not exist yet and is made"),
        "{lines:?}"
    );
    assert_eq!(
        root.ask("getent passwd anna"),
        "anna:x:1500:1600:Anna Example:/home/anna:/bin/bash"
    );
    assert_eq!(
        root.ask("getent passwd ben"),
        "ben:x:1501:1501::/srv/ben:/bin/sh"
    );
    assert_eq!(
        root.ask("id -nG anna | tr ' ' '\\n' | sort | tr '\\n' ' '"),
        "anna lab made sudo"
    );
    assert_eq!(
        root.ask("getent group lab made"),
        "lab:x:5000:anna\nmade:x:5001:anna"
    );
    let states = root.ask("for u in root anna ben cecil; do passwd -S $u; done");
    let states: Vec<&str> = states
        .lines()
        .map(|l| l.split(' ').nth(1).unwrap_or(""))
        .collect();
    assert_eq!(states, ["P", "P", "L", "L"]);
    // The password's age counts from the build's clock, not from today.
    assert_eq!(root.ask("getent shadow anna | cut -d: -f3"), "19675");
    // perl's crypt is the C library's: the reference for the hash.
    let check = |user: &str, password: &str| {
        root.ask(&format!(
            "getent shadow {user} | perl -ne '@f = split /:/; print crypt(\"{password}\", $f[1]) eq $f[1] ? \"good\" : \"bad\"'"
        ))
    };
    assert_eq!(
        [
            check("root", "kiln"),
            check("anna", "s3cret"),
            check("anna", "kiln")
        ],
        ["good", "good", "bad"]
    );
    let home = fs::metadata(root.path("/home/anna")).expect("a home");
    assert_eq!((home.uid(), home.gid()), (1500, 1600));
    assert!(
        root.path("/home/anna/.bashrc").exists(),
        "the skeleton is copied"
    );
    assert!(
        root.ask("ssh-keygen -l -f /home/anna/.ssh/authorized_keys")
            .ends_with("anna@desk (ED25519)")
    );
    let modes = |p: &str| {
        fs::metadata(root.path(p))
            .map(|m| (m.permissions().mode() & 0o777, m.uid()))
            .expect(p)
    };
    assert_eq!(modes("/home/anna/.ssh"), (0o700, 1500));
    assert_eq!(modes("/home/anna/.ssh/authorized_keys"), (0o600, 1500));
    assert_eq!(root.ask("pwck -qr; grpck -qr; echo fine"), "fine");
}

#[test]
fn applying_twice_changes_nothing_needs_root_and_network() {
    let root = Root::new();
    let text = format!(
        "lang en_GB\nkeyboard gb\ntimezone Etc/UTC --utc\ngroup --name=lab\nuser --name=anna --groups=lab --password=x\n\
         rootpw --lock\nsshkey --username=anna \"{KEY}\"\nnetwork --hostname=lab\nfirewall --ssh\nservices --disabled=cron\n"
    );
    let state = || {
        root.ask("cat /etc/passwd /etc/group /etc/shadow /etc/locale.gen /etc/hosts /etc/default/keyboard /home/anna/.ssh/authorized_keys; find /etc/systemd | sort")
    };
    root.kickstart(&text, &["openssh-server"]);
    let first = state();
    root.kickstart(&text, &["openssh-server"]);
    assert_eq!(state(), first);
}

#[test]
fn services_and_targets_need_root_and_network() {
    let root = Root::new();
    let lines = root.kickstart(
        "services --disabled=cron,no-such-thing --enabled=sshd,getty@tty7\nskipx\nfirstboot --disable\n",
        &[],
    );
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("no-such-thing.service is not in the root")),
        "{lines:?}"
    );
    assert_eq!(
        root.ask("systemctl is-enabled ssh getty@tty7; systemctl is-enabled cron || true"),
        "enabled\nenabled\ndisabled"
    );
    // A first boot without a machine id applies presets; what was disabled must stay so.
    root.ask("systemctl preset cron.service ssh.service");
    assert_eq!(
        root.ask("systemctl is-enabled ssh; systemctl is-enabled cron || true"),
        "enabled\ndisabled"
    );
    assert_eq!(root.ask("systemctl get-default"), "multi-user.target");
    assert_eq!(
        root.ask("systemctl is-enabled systemd-firstboot || true"),
        "masked"
    );
    root.kickstart("xconfig --startxonboot\nservices --enabled=cron\n", &[]);
    assert_eq!(
        root.ask("systemctl get-default; systemctl is-enabled cron"),
        "graphical.target\nenabled"
    );
}

#[test]
fn firewall_with_nftables_needs_root_and_network() {
    let root = Root::new();
    let text =
        "firewall --enabled --ssh --service=samba --port=8080:tcp,8000-8100:tcp --trust=eth1\n";
    root.kickstart(text, &[]);
    assert_eq!(root.ask("systemctl is-enabled nftables"), "enabled");
    // A network namespace of its own lets nft load the rules for real without touching the host's.
    let rules = Command::new("unshare")
        .arg("--net")
        .arg("chroot")
        .arg(root.dir.path())
        .args([
            "/usr/bin/env",
            "-i",
            "PATH=/usr/sbin:/usr/bin",
            "sh",
            "-c",
            "nft -f /etc/nftables.conf && nft list ruleset",
        ])
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&rules.stdout).into_owned();
    assert!(
        rules.status.success(),
        "{}",
        String::from_utf8_lossy(&rules.stderr)
    );
    assert!(
        text.contains("tcp dport { 22, 139, 445, 8000-8100 } accept"),
        "{text}"
    );
    assert!(
        text.contains("udp dport { 137-138 } accept")
            || text.contains("udp dport { 137, 138 } accept"),
        "{text}"
    );
    assert!(
        text.contains("iifname \"eth1\" accept") || text.contains("iifname { \"eth1\" } accept"),
        "{text}"
    );
    assert!(text.contains("policy drop"), "{text}");
    root.kickstart("firewall --disabled\n", &[]);
    assert_eq!(
        root.ask("systemctl is-enabled nftables || true"),
        "disabled"
    );
}

#[test]
fn firewall_with_firewalld_needs_root_and_network() {
    let root = Root::new();
    root.kickstart(
        "firewall --enabled --http --port=8080:tcp --trust=eth1 --remove-service=ssh\n",
        &["firewalld"],
    );
    let zone = root.ask("firewall-offline-cmd --list-all");
    let line = |name: &str| {
        zone.lines()
            .find(|l| l.trim().starts_with(name))
            .unwrap_or("")
            .trim()
            .to_owned()
    };
    assert_eq!(line("services:"), "services: dhcpv6-client http");
    assert_eq!(line("ports:"), "ports: 8080/tcp");
    assert!(
        root.ask("firewall-offline-cmd --zone=trusted --list-interfaces")
            .contains("eth1")
    );
    assert_eq!(root.ask("systemctl is-enabled firewalld"), "enabled");
    let error = root
        .apply(&lowered("firewall --service=smaba\n", &["firewalld"]).changes)
        .0
        .expect_err("no such service");
    let program = error.program.expect("the program that failed");
    assert_eq!(
        program.argv.first().map(String::as_str),
        Some("firewall-offline-cmd")
    );
    assert!(!program.tail.is_empty(), "{program:?}");
}

#[test]
fn network_profiles_need_root_and_network() {
    let root = Root::new();
    root.kickstart(
        "network --hostname=lab.example.org\n\
         network --bootproto=dhcp --device=link --activate\n\
         network --device=eth0 --bootproto=static --ip=192.168.7.5 --netmask=255.255.252.0 --gateway=192.168.4.1 --nameserver=1.1.1.1\n\
         network --device=bond0 --bondslaves=ens4,ens5 --bondopts=mode=active-backup,miimon=100 --vlanid=222\n\
         network --device=br0 --bridgeslaves=ens6 --bridgeopts=stp=yes\n\
         network --device=wlan0 --essid='lab net; 2' --wpakey='pass word'\n",
        &[],
    );
    assert_eq!(
        root.ask("cat /etc/hostname; getent hosts lab"),
        "lab.example.org\n127.0.1.1       lab.example.org lab"
    );
    let dir = "/etc/NetworkManager/system-connections";
    for entry in fs::read_dir(root.path(dir)).expect("profiles") {
        let mode = entry
            .and_then(|e| e.metadata())
            .expect("a profile")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // nmcli reads a profile and prints it as NetworkManager understands it; one that it cannot read is an error.
    let profile = |name: &str| {
        root.ask(&format!(
            "nmcli --offline connection modify connection.zone '' < '{dir}/{name}.nmconnection'"
        ))
    };
    let wired = profile("eth0");
    for part in [
        "id=eth0",
        "interface-name=eth0",
        "address1=192.168.7.5/22,192.168.4.1",
        "dns=1.1.1.1;",
        "method=manual",
    ] {
        assert!(wired.lines().any(|l| l == part), "{part}: {wired}");
    }
    let vlan = profile("bond0.222");
    assert!(
        vlan.contains("parent=bond0") && vlan.contains("id=222"),
        "{vlan}"
    );
    assert!(profile("bond0").contains("miimon=100"));
    assert!(profile("bond0_slave_2").contains("interface-name=ens5"));
    assert!(profile("br0").contains("type=bridge"));
    let wireless = profile("lab_net__2");
    assert!(wireless.contains("psk=pass word"), "{wireless}");
    assert!(
        wireless.contains(r"ssid=lab net\\; 2")
            || wireless.contains("ssid=108;97;98;32;110;101;116;59;32;50;"),
        "{wireless}"
    );
    assert!(profile("link").contains("multi-connect=3"));
}

#[test]
fn chrony_and_ssh_for_root_need_root_and_network() {
    let root = Root::with(CHRONY);
    root.kickstart(
        "timesource --ntp-pool=pool.example.org --nts\nrootpw --plaintext x --allow-ssh\n",
        &["openssh-server"],
    );
    assert!(root.ask("systemctl is-enabled chrony").contains("enabled"));
    let sources = root.ask("chronyd -p -f /etc/chrony/chrony.conf; cat /etc/chrony/sources.d/*");
    assert!(
        sources.contains("pool pool.example.org iburst nts"),
        "{sources}"
    );
    assert!(!sources.contains("debian.pool.ntp.org"), "{sources}");
    root.ask("mkdir -p /run/sshd; ssh-keygen -A >/dev/null");
    assert!(root.ask("sshd -T").contains("permitrootlogin yes"));
}

#[test]
fn mistakes_are_answered_with_the_nearest_needs_root_and_network() {
    let root = Root::new();
    for (text, message, hint) in [
        (
            "timezone Europe/Pargue\n",
            "there is no time zone Europe/Pargue",
            "did you mean Europe/Prague, ",
        ),
        (
            "lang de_DD\n",
            "there is no locale de_DD.UTF-8",
            "de_DE.UTF-8",
        ),
        (
            "keyboard --xlayouts='cz (qwrty)'\n",
            "the keyboard layout cz has no variant qwrty",
            "did you mean qwerty?",
        ),
        (
            "services --enabled=sssh\n",
            "there is no unit sssh.service to enable",
            "ssh.service",
        ),
        (
            "user --name=anna --shell=/bin/zsh\n",
            "the root has no login shell /bin/zsh",
            "add the shell's package",
        ),
        (
            "group --name=lab --gid=0\n",
            "gid 0 belongs to the group root already",
            "choose another --gid",
        ),
    ] {
        let error = root.refusal(text);
        assert_eq!(
            (error.message.as_str(), error.kind),
            (message, ErrorKind::Definition),
            "{text}"
        );
        assert!(
            error.hint.as_deref().unwrap_or("").contains(hint),
            "{text}: {:?}",
            error.hint
        );
        assert_eq!(error.origin, "test.ks:1");
    }
    let text = format!("sshkey --username=nobodyhere \"{KEY}\"\n");
    assert_eq!(
        root.refusal(&text).message,
        "there is no user nobodyhere to give the key to"
    );
}
