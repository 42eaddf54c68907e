#!/bin/sh
# In place of `pypy3compile` while dpkg configures packages: what can be done later goes into the queue of `beside.sh`. Modules of
# a package are those of its list, so it does not matter when they are compiled; of a directory they are those there are now.
real=/usr/bin/pypy3compile
queue=/run/kiln/compile

now() {
    exec "$real" "$@"
}

[ -x "$real" ] || { echo "pypy3compile: not found" >&2; exit 127; }
[ -p "$queue" ] || now "$@"
case $* in *[!A-Za-z0-9.+:~_/\ -]*) now "$@" ;; esac
case $#$1$3 in
2-p)
    : > "/run/kiln/asked/$2" || now "$@"
    echo packages > "$queue"
    ;;
3-p/*) echo "package $*" > "$queue" ;;
# PyPy's own modules, for which its package is named together with another. PyPy is quick with them only, so they are first in the queue.
4-p-p) echo "own $*" > "$queue" ;;
1/*)
    [ -d "$1" ] || now "$@"
    modules=$(mktemp -p /run/kiln) || now "$@"
    find "$1" -name '*.py' ! -type d -print0 > "$modules" || now "$@"
    echo "modules $modules $1" > "$queue"
    ;;
*) now "$@" ;;
esac
