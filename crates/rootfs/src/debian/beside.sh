#!/bin/sh
# Runs a program, and beside it what `compile.sh` puts into the queue. Ends when both are done.
queue=/run/kiln/compile
# One file for each package whose modules are asked for.
asked=/run/kiln/asked
# Paths of modules that are compiled, sorted, each with a NUL after it, and a file that is older than what PyPy read of them.
compiled=/run/kiln/compiled
since=/run/kiln/since
# What will be made of packages apart from the root.
answers=/run/kiln/apart/pypy3compile

# Runs the compiler. It is no Python program: PyPy would only lose time with the search for what is worth a translation.
pypy3compile() {
    $(pypy) /usr/bin/pypy3compile "$@"
}

pypy() {
    read -r how < /usr/bin/pypy3compile
    [ "$how" != '#!/usr/bin/pypy3' ] || echo /usr/bin/pypy3 --jit off
}

# Compiles modules in as few runs as possible: each costs as much as a dozen modules.
modules() {
    [ -e "$since" ] || : > "$since"
    xargs -0 -r -s 1000000 -a "$1" $(pypy) /usr/bin/pypy3compile || return
    sort -z -u "$1" "$compiled" > "$compiled.new"
    mv "$compiled.new" "$compiled"
}

# Puts what was made of packages apart into the root, and lists their modules. The others are in $rest.
answered() {
    rest=
    : > "$asked.answered"
    for name; do
        if [ -e "$answers/$name" ] && kiln-answer pypy3compile "$name"; then
            cut -c 67- "$answers/$name.sums" | tr '\n' '\0' >> "$asked.answered"
        else
            rest="$rest $name"
        fi
    done
    sort -z -u "$asked.answered" > "$asked.new"
    mv "$asked.new" "$asked.answered"
}

# Compiles the modules of a directory, which a file names.
directory() {
    # Not those of PyPy itself, which are elsewhere.
    answered $(ls "$answers" 2> /dev/null | grep -v ',\|\.\(sums\|tar\)$')
    sort -z -u "$1" | comm -z -23 - "$asked.answered" > "$asked.left"
    modules "$asked.left"
}

# Compiles the modules of packages, but for those that are compiled already and have not changed since: with PyPy, whole directories
# are compiled, and then the packages in them one by one.
packages() {
    names=$(ls "$asked")
    [ -n "$names" ] || return 0
    (cd "$asked" && rm $names)
    answered $names
    [ -n "$rest" ] || return 0
    dpkg-query -L $rest > "$asked.lists"
    # As PyPy chooses them.
    grep -a '^/.*\.py$' "$asked.lists" | grep -av '^/usr/share/doc/' | tr '\n' '\0' | sort -z -u > "$asked.all"
    comm -z -12 "$asked.all" "$compiled" | xargs -0 -r sh -c 'find "$@" -maxdepth 0 -cnewer "$0" -print0' "$since" > "$asked.left"
    comm -z -23 "$asked.all" "$compiled" >> "$asked.left"
    modules "$asked.left"
}

compile() {
    failed=0
    while read -r how first rest; do
        case $how in
        # Scripts of packages let that fail.
        packages) packages ;;
        package) pypy3compile $first $rest ;;
        # Those of PyPy do not.
        own)
            set -- $first $rest
            { [ -e "$answers/$2,$4" ] && kiln-answer pypy3compile "$2,$4"; } || pypy3compile "$@" || {
                echo "kiln: pypy3compile $* failed" >&2
                failed=1
            }
            ;;
        modules)
            directory "$first" || {
                echo "kiln: pypy3compile failed for modules in $rest" >&2
                failed=1
            }
            rm "$first"
            ;;
        end) return "$failed" ;;
        esac < /dev/null
    done <&9
}

mkdir -m 700 "$asked" && : > "$compiled" && mkfifo -m 600 "$queue" || exec "$@"
exec 9<> "$queue"
compile &
"$@" 9>&-
status=$?
echo end >&9
wait $! || [ "$status" -ne 0 ] || status=1
rm -r "$queue" "$asked" "$compiled"
exit "$status"
