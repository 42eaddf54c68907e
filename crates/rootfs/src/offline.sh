#!/bin/sh
# Stands in for the programs of systemd that need a running system, while scripts run in a root that is being made. Kiln
# mounts it for the time of the script; it is in no image. What such a program would have left in files, it leaves.
name=${0##*/}

say() {
    echo "kiln: $name: $*" >&2
}

fail() {
    say "$@"
    exit 1
}

needs_system() {
    fail "$* needs a running system, and there is none while an image is made"
}

# The program itself.
real=
for dir in /usr/sbin /usr/bin /sbin /bin; do
    [ -x "$dir/$name" ] && real=$dir/$name && break
done
if [ -z "$real" ]; then
    case $name in
    dracut) package=dracut ;;
    grub2-*) package=grub2-tools ;;
    *) package=systemd ;;
    esac
    say "not found: the package that brings it ($package) is not in the root"
    exit 127
fi

# put FILE KEY VALUE: the only line with KEY is KEY="VALUE".
put() {
    case $3 in *[\"\\\$\`]* | *'
'*) fail "$3 has a character that $1 can't hold" ;; esac
    rest=$(grep -v "^$2=" "$1" 2> /dev/null)
    { [ -z "$rest" ] || printf '%s\n' "$rest"; printf '%s="%s"\n' "$2" "$3"; } > "$1"
}

# Enabling works on files; starting is left out, and said.
systemctl_() {
    now=
    for word; do
        shift
        if [ "$word" = --now ]; then now=yes; else set -- "$@" "$word"; fi
    done
    [ -n "$now" ] || exec "$real" "$@"
    "$real" "$@" || exit
    say "--now is left out: no service manager runs while an image is made, so nothing was started or stopped"
}

hostnamectl_() {
    case $verb in
    '' | status | show)
        echo " Static hostname: $(cat /etc/hostname 2> /dev/null)"
        ;;
    set-hostname | hostname)
        [ $# -gt 0 ] || exec cat /etc/hostname
        case $options in
        *' --transient '*) say "the transient name is left out: it is the running system's" ;;
        *' --pretty '*) put /etc/machine-info PRETTY_HOSTNAME "$1" ;;
        *)
            case $1 in '' | *[!A-Za-z0-9.-]*) fail "\"$1\" is no host name" ;; esac
            echo "$1" > /etc/hostname
            ;;
        esac
        ;;
    set-icon-name | icon-name) put /etc/machine-info ICON_NAME "$1" ;;
    set-chassis | chassis) put /etc/machine-info CHASSIS "$1" ;;
    set-deployment | deployment) put /etc/machine-info DEPLOYMENT "$1" ;;
    set-location | location) put /etc/machine-info LOCATION "$1" ;;
    *) needs_system "$verb" ;;
    esac
}

timedatectl_() {
    zones=/usr/share/zoneinfo
    case $verb in
    set-timezone)
        case /$1/ in *//* | */../*) fail "\"$1\" is no time zone" ;; esac
        [ -f "$zones/$1" ] || fail "there is no time zone $1 in $zones (packages tzdata and tzdata-legacy bring them)"
        ln -sfn "$zones/$1" /etc/localtime
        echo "$1" > /etc/timezone
        ;;
    set-ntp)
        units=$(cat /usr/lib/systemd/ntp-units.d/*.list /lib/systemd/ntp-units.d/*.list 2> /dev/null | grep -v '^#')
        for unit in $units; do
            [ -f "/usr/lib/systemd/system/$unit" ] || [ -f "/lib/systemd/system/$unit" ] || continue
            case $1 in
            1 | yes | true | on) exec systemctl enable "$unit" ;;
            0 | no | false | off) systemctl disable "$unit" ;;
            *) fail "\"$1\" is neither yes nor no" ;;
            esac
        done
        case $1 in 1 | yes | true | on) fail "no program of the root sets the clock (systemd-timesyncd and chrony do)" ;; esac
        ;;
    set-local-rtc)
        case $1 in
        1 | yes | true | on) rtc=LOCAL ;;
        0 | no | false | off) rtc=UTC ;;
        *) fail "\"$1\" is neither yes nor no" ;;
        esac
        printf '0.0 0 0.0\n0\n%s\n' "$rtc" > /etc/adjtime
        ;;
    list-timezones)
        { echo UTC; grep -v '^#' "$zones/zone1970.tab" | cut -f 3; } | sort
        ;;
    set-time) say "left out: there is no clock to set while an image is made" ;;
    *) needs_system "${verb:-status}" ;;
    esac
}

localectl_() {
    case $verb in
    set-locale)
        file=/etc/locale.conf
        [ -e /etc/default/locale ] && file=/etc/default/locale
        lines=
        for word; do
            case $word in
            LANG=* | LANGUAGE=* | LC_*=*) ;;
            *=*) fail "\"$word\" is no setting of a locale" ;;
            *) word=LANG=$word ;;
            esac
            case $word in *[!A-Za-z0-9_.=@:-]*) fail "\"$word\" is no setting of a locale" ;; esac
            lines="$lines$word
"
        done
        [ -n "$lines" ] || fail "$verb wants a locale"
        printf %s "$lines" > "$file"
        ;;
    set-x11-keymap)
        [ -n "$1" ] || fail "$verb wants a layout"
        for key in XKBLAYOUT XKBMODEL XKBVARIANT XKBOPTIONS; do
            [ $# -gt 0 ] || break
            put /etc/default/keyboard "$key" "$1"
            shift
        done
        ;;
    set-keymap) fail "$verb has no effect here: say set-x11-keymap, or the kickstart command keyboard, for console and desktop" ;;
    list-locales) exec locale -a ;;
    *) needs_system "${verb:-status}" ;;
    esac
}

loginctl_() {
    case $verb in
    enable-linger | disable-linger)
        [ $# -gt 0 ] || fail "$verb wants a user: nobody is logged in while an image is made"
        for user; do
            id "$user" > /dev/null || exit
            case $verb in
            enable-linger) mkdir -p /var/lib/systemd/linger && : > "/var/lib/systemd/linger/$user" || exit ;;
            *) rm -f "/var/lib/systemd/linger/$user" || exit ;;
            esac
        done
        ;;
    *) needs_system "${verb:-list-sessions}" ;;
    esac
}

# The image's initramfs is made once, after all scripts. Others, for other places, are made as ever.
dracut_() {
    for word; do
        case $word in
        --help | -h | --version | --list-modules) exec "$real" "$@" ;;
        /boot/* | /lib/modules/* | /usr/lib/modules/*) ;;
        *.img | *.cpio) exec "$real" "$@" ;;
        esac
    done
    say "left out: Kiln generates the initramfs once, after all scripts, as the files in /etc/dracut.conf.d say; options of this call do not count"
}

case $name in
systemctl) systemctl_ "$@" && exit ;;
dracut) dracut_ "$@" && exit ;;
grub2-*)
    say "left out: Kiln writes the boot menu and the boot loaders; the kickstart command bootloader has --append, --timeout and --default"
    exit
    ;;
esac

# Options anywhere, then the verb and what it is about.
options=' ' verb=
for word; do
    shift
    case $word in
    --help | -h | --version) exec "$real" "$word" ;;
    -*) options="$options$word " ;;
    *) if [ -z "$verb" ]; then verb=$word; else set -- "$@" "$word"; fi ;;
    esac
done
"${name}_" "$@"
