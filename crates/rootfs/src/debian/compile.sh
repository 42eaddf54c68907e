#!/bin/sh
# In place of `pypy3compile` while dpkg configures packages: what can be done later goes into the queue of `beside.sh`. Modules of
# a package are those of its list, so it does not matter when they are compiled; of a directory they are those there are now.
# PyPy's own modules, for which the package is named together with another, are compiled at once: PyPy is quick with them only.
real=/usr/bin/pypy3compile
queue=/run/kiln/compile

# The compiler is no Python program: PyPy would only lose time with the search for what is worth a translation.
now() {
    read -r how < "$real"
    [ "$how" = '#!/usr/bin/pypy3' ] && exec /usr/bin/pypy3 --jit off "$real" "$@"
    exec "$real" "$@"
}

[ -x "$real" ] || { echo "pypy3compile: not found" >&2; exit 127; }
[ -p "$queue" ] || now "$@"
case $* in *[!A-Za-z0-9.+:~_/\ -]*) now "$@" ;; esac
case $#$1 in
2-p | 3-p)
    echo "package $*" > "$queue"
    ;;
1/*)
    [ -d "$1" ] || now "$@"
    modules=$(mktemp -p /run/kiln) || now "$@"
    find "$1" -name '*.py' ! -type d -print0 > "$modules" || now "$@"
    echo "modules $modules $1" > "$queue"
    ;;
*) now "$@" ;;
esac
