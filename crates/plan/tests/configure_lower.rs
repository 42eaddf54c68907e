//! Kickstart commands as changes: the pure half.

mod configure;

use configure::{lowered, lowered_for};
use kiln_plan::Conventions;
use kiln_plan::configure::{Action, Change, Handling, Level, Meaning, TABLE, groups};

/// What the changes do, one line each.
fn actions(lowered: &Meaning) -> Vec<String> {
    lowered
        .changes
        .iter()
        .flat_map(|c| &c.actions)
        .map(Action::describe)
        .collect()
}

fn needs(lowered: &Meaning) -> Vec<String> {
    kiln_plan::configure::needs(&lowered.changes)
        .into_iter()
        .map(|n| n.package)
        .collect()
}

/// Notices as `line level message`.
fn notices(lowered: &Meaning) -> Vec<String> {
    let line = |origin: &str| origin.rsplit(':').next().unwrap_or("").to_owned();
    lowered
        .notices
        .iter()
        .map(|n| format!("{} {:?} {}", line(&n.origin), n.level, n.message))
        .collect()
}

fn errors(text: &str) -> Vec<String> {
    let found = lowered(text, &[]);
    found
        .notices
        .into_iter()
        .filter(|n| n.level == Level::Error)
        .map(|n| n.message)
        .collect()
}

/// The content of a file that the changes write.
fn written(lowered: &Meaning, wanted: &str) -> String {
    let mut all = lowered.changes.iter().flat_map(|c| &c.actions);
    all.find_map(|a| match a {
        Action::WriteFile { path, content, .. } if path == wanted => Some(content.clone()),
        Action::WriteSecretFile { path, content } if path == wanted => {
            Some(content.reveal().to_owned())
        }
        _ => None,
    })
    .unwrap_or_else(|| panic!("nothing writes {wanted}: {lowered:#?}"))
}

#[test]
fn language_keyboard_and_time_are_set_with_the_packages_they_need() {
    let found = lowered(
        "lang de_DE --addsupport=cs_CZ.UTF-8,C\n\
         keyboard --vckeymap=cz-lat2 --xlayouts='cz (qwerty)','us' --switch=grp:alt_shift_toggle\n\
         timezone Europe/Prague --utc\n\
         timesource --ntp-server=ntp.example.org\n",
        &[],
    );
    assert_eq!(
        actions(&found),
        [
            "generate locales de_DE.UTF-8, cs_CZ.UTF-8",
            "set LANG=de_DE.UTF-8 in /etc/default/locale",
            "set the keyboard to cz (qwerty), us, options grp:alt_shift_toggle",
            "set the time zone to Europe/Prague",
            "write /etc/adjtime (16 bytes, mode 644)",
            "write /etc/systemd/timesyncd.conf.d/ntp.example.org.conf (27 bytes, mode 644)",
            "enable systemd-timesyncd.service",
        ]
    );
    assert_eq!(
        needs(&found),
        [
            "locales",
            "keyboard-configuration",
            "console-setup",
            "tzdata",
            "systemd-timesyncd"
        ]
    );
    assert_eq!(notices(&found), [""; 0]);
    assert_eq!(written(&found, "/etc/adjtime"), "0.0 0 0.0\n0\nUTC\n");
}

#[test]
fn the_c_locale_needs_no_package() {
    let found = lowered("lang C.UTF-8\n", &[]);
    assert_eq!(actions(&found), ["set LANG=C.UTF-8 in /etc/default/locale"]);
    assert_eq!(needs(&found), [""; 0]);
}

#[test]
fn nts_needs_chrony_for_all_sources() {
    let found = lowered(
        "timesource --ntp-pool=pool.example.org\ntimesource --ntp-server=a.example.org --nts\n",
        &[],
    );
    assert_eq!(needs(&found), ["chrony"]);
    assert_eq!(
        written(&found, "/etc/chrony/sources.d/pool.example.org.sources"),
        "pool pool.example.org iburst\n"
    );
    assert_eq!(
        written(&found, "/etc/chrony/sources.d/a.example.org.sources"),
        "server a.example.org iburst nts\n"
    );
}

#[test]
fn plain_passwords_are_hashed_and_shown_nowhere() {
    let text =
        "rootpw --plaintext kiln\nuser --name=anna --password=secret2 --plaintext --groups=wheel\n";
    let found = lowered(text, &[]);
    let json = serde_json::to_string(&found).expect("plain values");
    assert!(json.contains("$6$rounds="), "{json}");
    assert!(
        !json.contains("\"kiln\"") && !json.contains("secret2"),
        "{json}"
    );
    let shown = format!("{:?} {:?}", found, actions(&found));
    assert!(
        !shown.contains("$6$") && !shown.contains("secret2"),
        "{shown}"
    );
    assert_eq!(
        found,
        lowered(text, &[]),
        "the same definition gives the same salt"
    );
    assert_eq!(
        actions(&found),
        [
            "make user anna in groups sudo",
            "set the password of anna",
            "set the password of root"
        ]
    );
    assert_eq!(needs(&found), ["passwd", "sudo"]);
}

#[test]
fn a_password_that_is_no_hash_is_told() {
    let found = lowered("rootpw --iscrypted thereisnopasswordanditslocked\n", &[]);
    assert_eq!(
        notices(&found),
        [
            "1 Warning rootpw has a --iscrypted password that is no hash, so that nobody can log in with it"
        ]
    );
    // Who says --lock knows it, and two thirds of the published live kickstarts write this.
    let found = lowered(
        "rootpw --lock --iscrypted locked\nbootloader --location=none\n",
        &[],
    );
    let warnings = found
        .notices
        .iter()
        .filter(|n| n.level > kiln_plan::configure::Level::Note);
    assert_eq!(warnings.count(), 0, "{:?}", found.notices);
}

#[test]
fn commands_of_a_layer_run_in_a_fixed_order() {
    let found = lowered(
        "services --enabled=ssh\nsshkey --username=anna \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINLBpYi3UOiSmtRw/qDw4X9zuWYSsCP7JUd3bl7GlAJH anna@desk\"\n\
         user --name=anna\ngroup --name=lab\n",
        &["openssh-server"],
    );
    let order: Vec<&str> = found
        .changes
        .iter()
        .map(|c: &Change| c.command.as_str())
        .collect();
    assert_eq!(order, ["group", "user", "sshkey", "services"]);
}

#[test]
fn a_cut_key_is_refused() {
    let found = errors(
        "sshkey --username=root \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFZ0aGlzIGlzIGEgdGVz\"\n",
    );
    assert_eq!(
        found,
        [
            "sshkey has no usable key: the text after ssh-ed25519 is not a key of that type; is it cut?"
        ]
    );
}

#[test]
fn of_two_lines_the_later_wins_and_the_earlier_is_told() {
    let found = lowered(
        "services --enabled=ssh --disabled=cups\nservices --enabled=cron\n",
        &[],
    );
    assert_eq!(
        actions(&found),
        ["disable cups.service; enable cron.service"]
    );
    assert_eq!(
        notices(&found),
        ["1 Note services: given again at test.ks:2; what both lines set is taken from there"]
    );
}

#[test]
fn the_firewall_is_nftables_unless_firewalld_is_asked_for() {
    let text =
        "firewall --enabled --ssh --service=samba --port=8080:tcp,6000-6010:udp --trust=eth1\n";
    let found = lowered(text, &[]);
    assert_eq!(needs(&found), ["nftables"]);
    let rules = written(&found, "/etc/nftables.conf");
    assert!(rules.contains("iifname { \"eth1\" } accept"), "{rules}");
    assert!(
        rules.contains("tcp dport { 22, 139, 445, 8080 } accept"),
        "{rules}"
    );
    assert!(
        rules.contains("udp dport { 137, 138, 6000-6010 } accept"),
        "{rules}"
    );
    let found = lowered(text, &["firewalld"]);
    assert_eq!(needs(&found), ["firewalld", "netbase"]);
    assert_eq!(
        actions(&found)[0],
        "run firewall-offline-cmd --enabled --trust=eth1 --port=8080:tcp --port=6000-6010:udp --service=samba \
         --service=ssh (setting the firewall's rules)"
    );
}

#[test]
fn firewall_lines_add_up() {
    let found = lowered(
        "firewall --ssh\nfirewall --http --port=1:tcp --remove-service=ssh\n",
        &[],
    );
    let rules = written(&found, "/etc/nftables.conf");
    assert!(rules.contains("tcp dport { 1, 80 } accept"), "{rules}");
}

#[test]
fn an_unknown_firewall_service_is_refused_with_the_nearest() {
    assert_eq!(
        errors("firewall --service=smaba\n"),
        ["firewall --service=smaba: not a service that Kiln knows the ports of"]
    );
}

#[test]
fn a_host_name_alone_needs_no_network_manager() {
    let found = lowered("network --hostname=lab.example.org\n", &[]);
    assert_eq!(actions(&found), ["set the host name to lab.example.org"]);
    assert_eq!(needs(&found), [""; 0]);
}

const CONNECTIONS: &str = "/etc/NetworkManager/system-connections";

#[test]
fn a_static_address_becomes_a_keyfile() {
    let found = lowered(
        "network --device=eth0 --bootproto=static --ip=192.168.7.5 --netmask=255.255.252.0 --gateway=192.168.4.1 \
         --nameserver=1.1.1.1,2606:4700:4700::1111 --noipv6 --onboot=no --mtu=1400\n",
        &[],
    );
    assert_eq!(
        written(&found, &format!("{CONNECTIONS}/eth0.nmconnection")),
        "[connection]\nid=eth0\nuuid=eb032190-4510-8bea-9d41-d962c8c4083c\ntype=ethernet\ninterface-name=eth0\n\
         autoconnect=false\n\n[ethernet]\nmtu=1400\n\n[ipv4]\nmethod=manual\naddress1=192.168.7.5/22,192.168.4.1\n\
         dns=1.1.1.1;\n\n[ipv6]\nmethod=disabled\n"
    );
    assert_eq!(needs(&found), ["network-manager"]);
}

#[test]
fn a_vlan_on_a_bond_becomes_four_profiles() {
    let found = lowered(
        "network --device=bond0 --bondslaves=ens4,ens5 --bondopts=mode=active-backup,primary=ens4 --vlanid=222\n",
        &[],
    );
    let paths: Vec<String> = actions(&found)
        .into_iter()
        .filter(|a| a.starts_with("write"))
        .collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    let vlan = written(&found, &format!("{CONNECTIONS}/bond0.222.nmconnection"));
    assert!(vlan.contains("[vlan]\nid=222\nparent=bond0\n"), "{vlan}");
    assert!(vlan.contains("[ipv4]\nmethod=auto\n"), "{vlan}");
    let bond = written(&found, &format!("{CONNECTIONS}/bond0.nmconnection"));
    assert!(
        bond.contains("[bond]\nmode=active-backup\nprimary=ens4\n"),
        "{bond}"
    );
    assert!(bond.contains("[ipv4]\nmethod=disabled\n"), "{bond}");
}

#[test]
fn wireless_keys_are_secrets() {
    let found = lowered(
        "network --device=wlan0 --essid='lab net' --wpakey='pass word \\ 1'\n",
        &[],
    );
    let text = written(&found, &format!("{CONNECTIONS}/lab_net.nmconnection"));
    assert!(text.contains("ssid=108;97;98;32;110;101;116;\n"), "{text}");
    assert!(text.contains("psk=pass word \\\\ 1\n"), "{text}");
    assert!(!format!("{found:?}").contains("pass word"));
    assert_eq!(needs(&found), ["network-manager", "wpasupplicant"]);
}

#[test]
fn bad_values_are_refused_one_by_one() {
    for (text, wanted) in [
        ("lang de_DE..\n", "lang de_DE..: not a locale name"),
        (
            "keyboard --xlayouts='cz (qwerty'\n",
            "keyboard --xlayouts=cz (qwerty: not a layout",
        ),
        (
            "timezone ../../etc/passwd\n",
            "timezone ../../etc/passwd: not the name of a time zone",
        ),
        (
            "network --hostname=-lab\n",
            "network --hostname=-lab: is not a host name: labels of letters, digits and dashes, joined by dots",
        ),
        (
            "network --device=eth0 --bootproto=static\n",
            "network --bootproto=static without an address",
        ),
        (
            "network --device=eth0 --nameserver=ns.example.org\n",
            "network --nameserver=ns.example.org: not an IP address",
        ),
        ("user --name=0day\n", "user --name=0day: not a user name"),
        (
            "user --name=anna --shell=bash\n",
            "user --shell=bash: not an absolute path",
        ),
        (
            "services --enabled=--now\n",
            "services --enabled=--now: not the name of a service",
        ),
        (
            "raid / --device=0 --level=RAID1 raid.1 raid.2\n",
            "raid is not supported: the image has a read-only root and, if asked for, a plain /home",
        ),
        (
            "autopart --encrypted\n",
            "autopart --encrypted: encrypted partitions are not supported yet",
        ),
        (
            "xconfig --startxonboot\nskipx\n",
            "xconfig --startxonboot contradicts skipx",
        ),
    ] {
        assert_eq!(errors(text), [wanted], "{text}");
    }
}

#[test]
fn an_excluded_package_that_a_command_needs_is_an_error() {
    let found = lowered("firewall --enabled\n", &["-nftables"]);
    assert_eq!(
        notices(&found),
        [
            "1 Error firewall needs the package nftables (holds and loads the firewall's rules), but %packages excludes it"
        ]
    );
    assert_eq!(found.changes, []);
}

/// Published files exclude such packages on purpose.
#[test]
fn an_excluded_package_that_makes_a_command_complete_is_a_warning() {
    let found = lowered(
        "keyboard us\nnetwork --device=eth0 --essid=lab\n",
        &["-console-setup", "-network-manager", "-wpasupplicant"],
    );
    assert_eq!(
        notices(&found),
        [
            "1 Warning keyboard is incomplete: %packages excludes console-setup, which loads the layout on the console",
            "2 Warning network is incomplete: %packages excludes network-manager, which loads the connection's profile",
            "2 Warning network is incomplete: %packages excludes wpasupplicant, which joins wireless networks",
        ]
    );
    let said = actions(&found);
    assert!(
        said.iter().any(|a| a == "set the keyboard to us"),
        "{said:?}"
    );
    assert!(
        said.iter().all(|a| !a.contains("NetworkManager.service")),
        "{said:?}"
    );
    assert_eq!(needs(&found), ["keyboard-configuration"]);
    let found = lowered_for(
        Conventions::Rpm,
        "firstboot --enable\n",
        &["-initial-setup"],
    );
    assert_eq!(
        notices(&found),
        [
            "1 Warning firstboot is incomplete: %packages excludes initial-setup, which asks for accounts at the first boot"
        ]
    );
    assert_eq!(actions(&found), [""; 0]);
}

#[test]
fn what_has_no_effect_says_so() {
    let found = lowered(
        "text\nreboot\nclearpart --all --initlabel\nzerombr\nbootloader --location=mbr --password=x\npart / --size=4000 --ondisk=sda\n\
         url --url=http://example.org/debian/dists/bookworm --noverifyssl\nselinux --enforcing\nauthselect select sssd with-mkhomedir with-smartcard\n",
        &[],
    );
    assert_eq!(
        notices(&found),
        [
            "1 Warning text has no effect: it tells the installer how to talk to people, and there is no installer",
            "2 Note reboot is recorded: a build never acts on the machine that it runs on",
            "3 Note clearpart is recorded: the image's disk is new, and Kiln lays it out itself",
            "4 Note zerombr is recorded: the image's disk is new, and Kiln lays it out itself",
            "5 Warning bootloader --password has no effect: the boot menu has no password",
            "6 Warning part --ondisk has no effect: an image is written for no particular disk",
            "6 Note part is the root: a SquashFS as large as its files, under a RAM overlay",
            "7 Warning url --noverifyssl has no effect: certificates are always checked",
            "8 Warning selinux --enforcing has no effect: the image has no SELinux policy",
            "9 Warning authselect with-smartcard has no effect: Debian has no such PAM profile",
            "9 Note authselect is translated to Debian's pam-auth-update",
        ]
    );
    assert_eq!(
        needs(&found),
        ["sssd", "libpam-sss", "libnss-sss", "libpam-modules"]
    );
}

#[test]
fn repositories_of_rpm_packages_have_more_options() {
    let found = lowered_for(
        Conventions::Rpm,
        "url --url=http://h --noverifyssl --proxy=http://p --sslcacert=c\nrepo --name=x --baseurl=http://h --cost=1 --includepkgs=a --excludepkgs=b --install\n",
        &[],
    );
    assert_eq!(
        notices(&found),
        [
            "1 Warning url --noverifyssl has no effect: certificates are always checked",
            "1 Warning url --sslcacert has no effect: the host's certificates are used",
        ]
    );
}

#[test]
fn the_table_is_sorted_and_has_every_command_of_the_language() {
    let names: Vec<&str> = TABLE.iter().map(|e| e.command).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    let silent = TABLE.iter().filter(|e| e.note.is_empty()).count();
    assert_eq!(silent, 0);
    let refused = TABLE.iter().filter(|e| e.handling == Handling::Refuse);
    assert!(refused.clone().count() > 5 && refused.clone().all(|e| !e.hint.is_empty()));
}

#[test]
fn groups_have_debian_meanings() {
    let packages = |name: &str| groups::resolve(name).expect("a known group").packages;
    assert_eq!(packages("xfce-desktop"), ["task-xfce-desktop"]);
    assert_eq!(packages("task-xfce-desktop"), ["task-xfce-desktop"]);
    assert_eq!(packages("xfce-desktop-environment"), ["task-xfce-desktop"]);
    assert_eq!(packages("Xfce Desktop"), ["task-xfce-desktop"]);
    assert_eq!(packages("german-desktop"), ["task-german-desktop"]);
    assert!(packages("development-tools").contains(&"build-essential".to_owned()));
    let core = groups::resolve("core").expect("a known group").priorities;
    assert_eq!(
        core,
        [groups::Priority::Required, groups::Priority::Important]
    );
    let unknown = groups::resolve("xcfe-desktop").expect_err("no such group");
    assert_eq!(
        unknown.nearest.first().map(String::as_str),
        Some("xfce-desktop")
    );
    assert!(
        unknown.hint().starts_with("did you mean @xfce-desktop"),
        "{}",
        unknown.hint()
    );
}

#[test]
fn the_examples_have_nothing_to_be_warned_of() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for name in [
        "minimal.ks",
        "lab/base.ks",
        "lab/desktop.ks",
        "lab/contest.ks",
    ] {
        let text = std::fs::read_to_string(examples.join(name)).expect(name);
        let found = lowered(&text, &["openssh-server"]);
        let warnings = found
            .notices
            .iter()
            .filter(|n| n.level > Level::Note)
            .count();
        assert_eq!(warnings, 0, "{name}: {:#?}", found.notices);
    }
}
