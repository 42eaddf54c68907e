#!/bin/sh
# Run inside the booted system. Prints what is wrong, if anything.
bad=0
check() {
    what="$1"
    shift
    "$@" || { echo "not so: $what"; bad=1; }
}
. /etc/os-release
check "this is the generated distribution" [ "$ID" = kindling ]
check "the stream of the module was chosen" [ "$(greeter)" = "greeter 2.0" ]
check "the module is as it was installed" rpm -V greeter
check "the glob matched" rpm -q --quiet file
check "the script ran" [ "$(cat /etc/kiln-post)" = "made by %post" ]
check "the root is a live overlay" grep -q ' / overlay ' /proc/mounts
check "the time zone is set" [ "$(readlink /etc/localtime | sed 's|.*zoneinfo/||')" = Europe/Prague ]
check "ping has its capability" [ "$(rpm -q --qf '[%{FILENAMES} %{FILECAPS}\n]' iputils-ping | grep -c '^/usr/bin/ping .*cap_net_raw')" = 1 ]
failed="$(systemctl list-units --failed --plain --no-legend)"
check "no unit failed: $failed" [ -z "$failed" ]
secure=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ ! -e "$secure" ] || echo "Secure Boot: $(od -An -tu1 -j4 -N1 "$secure" | tr -d ' ')"
echo "home: $(findmnt -n -o FSTYPE /home || echo none)"
echo "in memory: $([ -e /run/initramfs/squashed.img ] && echo yes || echo no)"
[ "$bad" = 0 ] && echo "judged: $(rpm -qa | wc -l) packages"
exit "$bad"
