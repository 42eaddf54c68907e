#!/bin/busybox sh
# The toy's package manager: `toy NAME VERSION FILE …` installs. What a package has as /lib/toy/NAME.sh runs after that.
set -e
box=${BOX:-/bin/busybox}
"$box" mkdir -p /lib/toy
while [ $# -gt 0 ]; do
    echo "installing $1 $2"
    "$box" tar -x -f "$3" -C /
    echo "$1 $2" >> /lib/toy/installed
    [ ! -e "/lib/toy/$1.sh" ] || "$box" sh "/lib/toy/$1.sh"
    shift 3
done
