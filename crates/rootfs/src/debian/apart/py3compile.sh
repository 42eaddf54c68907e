#!/bin/sh
# In place of `py3compile` while dpkg configures packages.
real=/usr/bin/py3compile
seen=/run/kiln/py3compile.seen

# Every start of the compiler leaves what Python made of the modules that the compiler imports, and those that *.pth files name.
start() {
    paths=$(stat -c '%n %Z' /usr/lib/python3/dist-packages/*.pth 2> /dev/null)
    [ -e "$seen" ] && [ "$paths" = "$(cat "$seen")" ] && return
    "$real" --version > /dev/null 2>&1 && echo "$paths" > "$seen"
}

# Scripts ask whether there is one.
[ -x "$real" ] || exit 0
case $#$1 in
2-p) case $2 in */*) ;; *) start && kiln-answer py3compile "$2" && exit 0 ;; esac ;;
esac
exec "$real" "$@"
