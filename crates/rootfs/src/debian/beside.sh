#!/bin/sh
# Runs a program, and beside it what `compile.sh` puts into the queue. Ends when both are done.
queue=/run/kiln/compile

# What goes before the program, as in `compile.sh`.
pypy() {
    read -r how < /usr/bin/pypy3compile
    [ "$how" != '#!/usr/bin/pypy3' ] || echo /usr/bin/pypy3 --jit off
}

compile() {
    failed=0
    while read -r how first rest; do
        case $how in
        # Scripts of packages let that fail.
        package) $(pypy) /usr/bin/pypy3compile $first $rest ;;
        modules)
            xargs -0 -a "$first" $(pypy) /usr/bin/pypy3compile || {
                echo "kiln: pypy3compile failed for modules in $rest" >&2
                failed=1
            }
            rm "$first"
            ;;
        end) return "$failed" ;;
        esac < /dev/null
    done <&9
}

mkfifo -m 600 "$queue" || exec "$@"
exec 9<> "$queue"
compile &
"$@" 9>&-
status=$?
echo end >&9
wait $! || [ "$status" -ne 0 ] || status=1
rm "$queue"
exit "$status"
