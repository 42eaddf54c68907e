//! Programs of the image that a build starts: what a planted one can do.

use crate::harness::{Turn, text};

/// Replaces `useradd` by a program that tries what it must not be able to do. Its parent is a function of Kiln's, process 1 is the
/// sandbox's own. It says what it managed, and fails, so that a build shows its last lines.
const PLANT: &str = r#"
%post --erroronfail
cat > /usr/sbin/useradd <<'EOF'
#!/bin/sh
try() { if "$@" > /dev/null 2>&1; then echo "managed: $*"; else echo "refused: $*"; fi; }
try mount -o remount,rw,bind /proc/sys
try mount -t tmpfs none /mnt
try sh -c 'echo planted > /proc/sys/kernel/hostname'
try unshare -r -m mount -o remount,rw,bind /proc/sys
for pid in $PPID 1; do
    try dd if=/proc/$pid/mem of=/dev/null bs=1 count=0
    try cat /proc/$pid/environ
    try readlink /proc/$pid/exe
    try readlink /proc/$pid/fd/3
    # PTRACE_SEIZE (0x4206) of ptrace(2), number 101 on amd64.
    try perl -e "exit(syscall(101, 0x4206, $pid, 0, 0) == 0 ? 0 : 1)"
done
try grep -q '^NoNewPrivs:.0' /proc/self/status
# SYS_ADMIN, SYS_PTRACE and NET_ADMIN of capabilities(7), effective or to be had.
for number in 21 19 12; do
    try perl -ne "exit 0 if /^Cap(Bnd|Eff|Prm):\s*\S*?(\S{8})$/ && hex(\$2) >> $number & 1; END { \$? = 1 if eof }" /proc/self/status
done
echo descriptors: $(ls /proc/self/fd)
exit 3
EOF
chmod 755 /usr/sbin/useradd
%end
"#;

#[test]
fn a_planted_program_cannot_reach_its_parent() {
    let turn = Turn::warm();
    turn.write("plant.ks", PLANT);
    turn.write("more.ks", "user --name=eve\n");
    let layers = [&text(&turn.path("minimal.ks")), "plant.ks", "more.ks"];
    turn.write(
        "kiln.toml",
        &format!("name = \"planted\"\nlayers = {layers:?}\n"),
    );
    let ran = turn.kiln(&["build", "kiln.toml"]);
    ran.assert(4).says(&[
        "more.ks:1",
        "refused: mount -o remount,rw,bind /proc/sys",
        "descriptors: 0 1 2 3",
    ]);
    assert!(!ran.stderr.contains("managed:"), "{}", ran.whole());
    let refused = ran.stderr.matches("refused: ").count();
    assert!(refused >= 18, "{refused}\n{}", ran.whole());
    turn.assert_clean(&ran);
}

#[test]
fn a_script_cannot_take_more_than_the_definition_lets_it() {
    let turn = Turn::warm();
    // `tail` keeps all of it until the first process ends, which is later than anybody looks.
    let script = "{ head -c 200M /dev/zero; sleep 60; } | tail -c 190M > /dev/null\necho never\n";
    turn.write(
        "more.ks",
        &format!("%post --erroronfail\nhead -c 3M /dev/zero > /tmp/file; stat -c 'held %s' /tmp/file\n{script}%end\n"),
    );
    let layers = [&text(&turn.path("minimal.ks")), "more.ks"];
    let limits = "[limits]\nmemory-mib = 100\ntmp-mib = 2\n";
    let definition = format!("name = \"limited\"\nlayers = {layers:?}\n{limits}");
    turn.write("kiln.toml", &definition);
    let ran = turn.kiln(&["build", "kiln.toml"]);
    ran.assert(4).says(&[
        "more.ks:1",
        "No space left on device",
        "held 2097152",
        "`tmp-mib`",
        "`memory-mib` below `[limits]` in kiln.toml",
    ]);
    assert!(!ran.stderr.contains("| never"), "{}", ran.whole());
    turn.assert_clean(&ran);
}

/// What Kiln itself reads and writes in a root may be anything by then.
#[test]
fn a_planted_pipe_or_device_is_named_and_not_waited_for() {
    let turn = Turn::warm();
    let minimal = text(&turn.path("minimal.ks"));
    for (path, plant, commands, is) in [
        ("/etc/hostname", "mkfifo", "", "a pipe"),
        ("/etc/fstab", "ln -s /dev/zero", "", "a device"),
        ("/etc/hosts", "mkfifo", "network --hostname=lab\n", "a pipe"),
        ("/etc/machine-id", "ln -s /dev/full", "", "a device"),
    ] {
        turn.write(
            "plant.ks",
            &format!("%post --erroronfail\nrm -f {path}; {plant} {path}\n%end\n"),
        );
        turn.write("more.ks", commands);
        let layers = [minimal.as_str(), "plant.ks", "more.ks"];
        // Without this a build that waits would do so for two hours.
        let limits = "[limits]\nstep-minutes = 2\n";
        let definition = format!("name = \"planted\"\nlayers = {layers:?}\n{limits}");
        turn.write("kiln.toml", &definition);
        let ran = turn.kiln(&["build", "kiln.toml"]);
        ran.assert(4)
            .says(&[&format!("{path} should be a regular file, and is {is}")]);
        turn.assert_clean(&ran);
    }
}
