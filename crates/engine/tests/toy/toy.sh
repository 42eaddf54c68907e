#!/bin/busybox sh
# The toy's package manager: `toy NAME VERSION FILE …` installs. What a package has as /lib/toy/NAME.sh runs when all are unpacked.
set -e
box=${BOX:-/bin/busybox}
names=
"$box" mkdir -p /lib/toy
while [ $# -gt 0 ]; do
    echo "installing $1 $2"
    "$box" tar -x -f "$3" -C /
    echo "$1 $2" >> /lib/toy/installed
    names="$names $1"
    shift 3
done
for name in $names; do
    [ ! -e "/lib/toy/$name.sh" ] || "$box" sh "/lib/toy/$name.sh"
done
