#!/bin/sh
# In place of `pypy3compile` while dpkg configures packages: what can be done later goes into the queue of `beside.sh`. Modules of
# a package are those of its list, so it does not matter when they are compiled; of a directory they are those there are now.
# PyPy's own modules, for which the package is named together with another, are compiled at once: PyPy is quick with them only.
real=/usr/bin/pypy3compile
queue=/run/kiln/compile

[ -x "$real" ] || { echo "pypy3compile: not found" >&2; exit 127; }
[ -p "$queue" ] || exec "$real" "$@"
case $* in *[!A-Za-z0-9.+:~_/\ -]*) exec "$real" "$@" ;; esac
case $#$1 in
2-p | 3-p)
    echo "package $*" > "$queue"
    ;;
1/*)
    [ -d "$1" ] || exec "$real" "$@"
    modules=$(mktemp -p /run/kiln) || exec "$real" "$@"
    find "$1" -name '*.py' ! -type d -print0 > "$modules" || exec "$real" "$@"
    echo "modules $modules $1" > "$queue"
    ;;
*) exec "$real" "$@" ;;
esac
