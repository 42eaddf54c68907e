#!/bin/sh
# Run inside the booted system. Prints what is wrong, if anything.
bad=0
check() {
    what="$1"
    shift
    "$@" || { echo "not so: $what"; bad=1; }
}
. /etc/os-release
check "this is Ubuntu" [ "$ID $VERSION_CODENAME" = "ubuntu noble" ]
check "dpkg is content" [ -z "$(dpkg --audit)" ]
version() { dpkg-query --show --showformat '${Version}' "$1"; }
check "the security pocket has the newest" [ "$(version lab-hello)" = 1.2 ]
check "the kernel is Ubuntu's by name" dpkg-query --show linux-image-generic
check "members of the task are there" dpkg-query --show nano
check "NetworkManager has the wired devices" [ -f /etc/NetworkManager/conf.d/10-globally-managed-devices.conf ]
check "the root is a live overlay" grep -q '^overlay / ' /proc/mounts
check "the language is set" grep -q '^LANG="\?en_US.UTF-8' /etc/default/locale
check "the time zone is set" [ "$(readlink /etc/localtime)" = /usr/share/zoneinfo/Europe/Prague ]
check "apt knows all components" grep -q '^Components: main restricted universe multiverse' /etc/apt/sources.list.d/kiln.sources
failed="$(systemctl list-units --failed --plain --no-legend)"
check "no unit failed: $failed" [ -z "$failed" ]
[ "$bad" = 0 ] && echo "judged: $(dpkg-query --show | wc -l) packages"
exit "$bad"
