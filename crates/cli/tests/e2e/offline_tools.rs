//! What scripts find where a running system would be: nothing runs, and programs that want one say so or do their part in files.

use std::fs;

use crate::harness::{Turn, cache, text};
use crate::residue::names;

/// Every command has to end as it says; what they left in files is shown at the end.
const SCRIPT: &str = r#"
%post
cat > /root/check <<'EOF'
want() {
    code=$1; shift
    printf '== %s\n' "$*"
    "$@" < /dev/null 2>&1
    got=$?
    [ "$got" = "$code" ] || echo "WRONG: $* ended with $got"
}
want 0 systemctl daemon-reload
want 0 systemctl restart getty@tty3.service
want 0 env -i PATH=/usr/bin:/bin systemctl restart getty@tty3.service
want 0 systemctl enable --now serial-getty@ttyS1.service
want 0 systemctl is-enabled serial-getty@ttyS1.service
want 0 systemctl disable --now serial-getty@ttyS1.service
want 1 systemctl enable --now no-such.service
want 0 udevadm control --reload
want 0 ischroot
want 0 systemd-detect-virt --quiet --chroot
want 0 hostnamectl set-hostname lab-1
want 0 hostnamectl --pretty set-hostname "Lab, first row"
want 1 timedatectl set-timezone Mars/Olympus
want 0 timedatectl set-local-rtc 1
want 0 localectl set-locale LANG=C.UTF-8 LC_TIME=C
want 0 localectl set-x11-keymap de pc105
want 1 localectl set-keymap de
want 0 loginctl enable-linger root
want 1 loginctl list-sessions
want 101 /usr/sbin/policy-rc.d
cat /etc/hostname /etc/machine-info /etc/adjtime /etc/default/locale /etc/default/keyboard
ls /var/lib/systemd/linger
EOF
sh /root/check > /root/seen 2>&1
rm -f /var/lib/systemd/linger/root /etc/machine-info
%end
%post --erroronfail
grep -v '^==' /root/seen | tail -n 18
grep WRONG /root/seen
exit 5
%end
"#;

/// A layer of its own, whose scripts end well.
const BEFORE: &str =
    "%post --erroronfail\ntest -x /usr/local/sbin/systemctl -a -x /usr/sbin/policy-rc.d\n%end\n";

#[test]
fn what_needs_a_running_system_says_so_or_has_its_offline_effect() {
    let turn = Turn::warm();
    turn.write("before.ks", BEFORE);
    turn.write("offline.ks", SCRIPT);
    let layers = [&text(&turn.path("minimal.ks")), "before.ks", "offline.ks"];
    turn.write(
        "kiln.toml",
        &format!("name = \"offline\"\nlayers = {layers:?}\n"),
    );
    let ran = turn.kiln(&["build", "kiln.toml"]);
    ran.assert(4).says(&[
        "getty.target.wants/serial-getty@ttyS1.service",
        "kiln: systemctl: --now is left out",
        "no-such.service does not exist",
        "there is no time zone Mars/Olympus",
        "set-keymap has no effect here",
        "list-sessions needs a running system",
        "| lab-1\n",
        "| PRETTY_HOSTNAME=\"Lab, first row\"\n",
        "| LOCAL\n    | LANG=C.UTF-8\n    | LC_TIME=C\n    | XKBLAYOUT=\"de\"\n    | XKBMODEL=\"pc105\"\n    | root\n",
    ]);
    assert!(!ran.stderr.contains("WRONG"), "{}", ran.whole());
    // What was lent to the scripts is in no layer.
    for layer in names(&cache().join("layers")) {
        let root = cache().join("layers").join(layer).join("fs");
        for path in ["usr/sbin/policy-rc.d", "usr/local/sbin/systemctl"] {
            assert!(fs::symlink_metadata(root.join(path)).is_err(), "{path}");
        }
    }
    turn.assert_clean(&ran);
}
