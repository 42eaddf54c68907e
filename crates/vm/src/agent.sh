# Kiln's observer inside a test boot. It runs as root on the second serial port, in place of systemd's debug shell,
# and writes one report per line: "KILN <uptime> <verb> <fields>". Nothing of it is in the image.
stty raw -echo 2>/dev/null
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C SYSTEMD_PAGER= SYSTEMD_COLORS=0
export PATH LC_ALL SYSTEMD_PAGER SYSTEMD_COLORS
tables=/sys/firmware/acpi/tables

say() {
	read -r uptime _ </proc/uptime
	printf '\nKILN %s %s\n' "$uptime" "$*"
}

# Reads the environment file $1 into class, user, kind, id, display and authority.
read_session() {
	class= user= kind=x11 id= display= authority= home=
	while IFS= read -r entry; do
		case $entry in
		XDG_SESSION_CLASS=*) class=${entry#*=} ;;
		XDG_SESSION_ID=*) id=${entry#*=} ;;
		USER=*) user=${entry#*=} ;;
		HOME=*) home=${entry#*=} ;;
		DISPLAY=*) display=${entry#*=} ;;
		WAYLAND_DISPLAY=*) kind=wayland ;;
		XAUTHORITY=*) authority=${entry#*=} ;;
		esac
	done <<-END
		$(tr '\0' '\n' <"$1" 2>/dev/null)
	END
	authority=${authority:-$home/.Xauthority}
}

# Finds a logged-in user's graphical session, by the environment of its processes; a greeter's is none.
find_session() {
	for file in $(grep -lzsE '^(DISPLAY=:|WAYLAND_DISPLAY=)' /proc/[0-9]*/environ); do
		read_session "$file"
		case $class in
		user) return 0 ;;
		'')
			# Without pam_systemd: an ordinary user's.
			uid=$(stat -c %u "${file%/environ}" 2>/dev/null)
			[ "${uid:-0}" -ge 1000 ] && [ "$uid" -lt 60000 ] && return 0
			;;
		esac
	done
	find_compositor
}

# Finds a user's active session whose Wayland compositor listens: it may have no program of its own yet.
find_compositor() {
	for id in $(loginctl list-sessions --no-legend 2>/dev/null | sed 's/^ *//; s/ .*//'); do
		class= active= uid= user= leader=
		while IFS= read -r entry; do
			case $entry in
			Class=*) class=${entry#*=} ;;
			Active=*) active=${entry#*=} ;;
			User=*) uid=${entry#*=} ;;
			Name=*) user=${entry#*=} ;;
			Leader=*) leader=${entry#*=} ;;
			esac
		done <<-END
			$(loginctl show-session "$id" -p Class -p Active -p User -p Name -p Leader 2>/dev/null)
		END
		[ "$class $active" = 'user yes' ] || continue
		grep -qE " 00010000 .* /run/user/$uid/wayland-[0-9]+$" /proc/net/unix || continue
		kind=wayland display= file=/proc/$leader/environ
		return 0
	done
	return 1
}

# Counts the windows of type DESKTOP and DOCK: "desktop dock".
count_windows() {
	if command -v perl >/dev/null; then
		perl /run/kiln-windows.pl "$display" "$authority" 2>/dev/null
	elif command -v xprop >/dev/null; then
		export DISPLAY="$display" XAUTHORITY="$authority"
		types=$(for id in $(xprop -root _NET_CLIENT_LIST_STACKING | sed 's/.*#//; s/,/ /g'); do
			xprop -id "$id" _NET_WM_WINDOW_TYPE
		done 2>/dev/null)
		echo "$(echo "$types" | grep -c _TYPE_DESKTOP)" "$(echo "$types" | grep -c _TYPE_DOCK)"
	else
		echo 'unknown unknown'
	fi
}

# Tells what the system is made for: a desktop, if it starts a display manager by itself.
report_goal() {
	goal=login
	case $(systemctl get-default 2>/dev/null) in
	graphical.target)
		[ "$(systemctl show -p LoadState --value display-manager.service 2>/dev/null)" != loaded ] || goal=desktop
		;;
	esac
	say goal $goal
}

report_state() {
	state=$(systemctl is-system-running 2>/dev/null)
	units=$(systemctl is-active multi-user.target graphical.target getty.target display-manager.service 2>/dev/null | tr '\n' ' ')
	[ "$state $units" = "$old_state" ] && return
	old_state="$state $units"
	say state "${state:-unknown}" $units
}

report_desktop() {
	if [ -z "$file" ] || [ ! -e "$file" ]; then
		find_session || { file=; return; }
		[ "$user $kind $id" = "$old_session" ] || say session "${user:-?}" $kind $id
		old_session="$user $kind $id"
	fi
	[ -n "$display" ] || return
	windows=$(count_windows)
	[ -z "$windows" ] || [ "$windows" = "$old_windows" ] || say windows $windows
	old_windows=$windows
}

# Watching must not slow down what is watched: on a slow machine it sleeps the longer.
watch() {
	old_state= old_session= old_windows= file=
	while :; do
		read -r before _ </proc/uptime
		report_state
		report_desktop
		read -r after _ </proc/uptime
		sleep $((2 + 6 * (${after%.*} - ${before%.*})))
	done
}

collect() {
	systemctl list-units --state=failed --no-legend --plain --no-pager 2>/dev/null | while read -r unit _; do
		result=$(systemctl show -p Result --value "$unit" 2>/dev/null)
		log=$(journalctl -b -u "$unit" -n 20 -o cat --no-pager 2>/dev/null | tail -c 2000 | base64 | tr -d '\n')
		say failed "$unit" "${result:-unknown}" "$log"
	done
	say collected
}

# The ends of the logs that tell why a system or its desktop did not come up.
diagnose() {
	find_session || home=
	attach jobs "$(systemctl list-jobs --no-legend --no-pager 2>&1)"
	attach journal "$(journalctl -b -p err -n 25 -o short-monotonic --no-pager 2>&1)"
	attach crashes "$(journalctl -b -k -o short-monotonic --no-pager 2>/dev/null | grep -E 'segfault at|trap invalid|general protection|Out of memory' | tail -n 10)"
	attach xorg "$(grep -hF '(EE)' /var/log/Xorg.0.log* "$home"/.local/share/xorg/Xorg.0.log* 2>/dev/null | tail -n 30)"
	attach session "$(tail -n 25 "$home/.xsession-errors" 2>/dev/null)"
	say diagnosed
}

attach() {
	[ -z "$2" ] || say log "$1" "$(printf '%s' "$2" | tail -c 3000 | base64 | tr -d '\n')"
}

run_script() {
	tail -c +37 "$tables/KILS" >/run/kiln-script
	read -r first </run/kiln-script
	case $first in
	'#!'*) set -- ${first#??} /run/kiln-script ;;
	*) set -- /bin/sh /run/kiln-script ;;
	esac
	{
		(cd / && "$@") </dev/null 2>&1
		echo $? >/run/kiln-status
	} | sed -u 's/^/KILN - out /'
	read -r status </run/kiln-status
	say exit "$status"
}

cat >/run/kiln-windows.pl <<'PERL'
# Counts windows by type over the X11 protocol itself, since a lean system has perl but no xprop.
use strict; use Socket;
my ($display, $authority) = @ARGV;
my ($number) = $display =~ /:(\d+)/ or exit 1;
socket(my $x, PF_UNIX, SOCK_STREAM, 0) or exit 1;
connect($x, sockaddr_un("/tmp/.X11-unix/X$number")) or exit 1;
alarm 20;

sub take { my $left = shift; my $all = ''; while ($left > 0) { my $got = sysread($x, my $part, $left); exit 1 unless $got; $all .= $part; $left -= $got } $all }
sub pad { my $text = shift; $text . "\0" x (-length($text) % 4) }

# Xauthority: family, then address, display, name and data, each counted; numbers are big endian.
my ($name, $data) = ('', '');
if (open(my $file, '<', $authority)) {
	local $/; my $rest = <$file>;
	while (length($rest) > 2) {
		my ($family, $address, $shown, $kind, $secret, $tail) = unpack('n n/a n/a n/a n/a a*', $rest);
		last unless defined $tail;
		if ($kind eq 'MIT-MAGIC-COOKIE-1' and $shown eq '' || $shown eq $number) { ($name, $data) = ($kind, $secret); last }
		$rest = $tail;
	}
}
syswrite($x, pack('a x v v v v x2', 'l', 11, 0, length $name, length $data) . pad($name) . pad($data));
my ($ok, $words) = unpack('C x5 v', take(8));
my $setup = take(4 * $words);
exit 1 unless $ok == 1;
my ($vendor, $formats) = (unpack('v', substr($setup, 16, 2)), unpack('C', substr($setup, 21, 1)));
my $root = unpack('V', substr($setup, 32 + length(pad('x' x $vendor)) + 8 * $formats, 4));

# A reply, or nothing for an error. Events were not asked for; those that come anyway are 32 bytes too.
sub reply { while (1) { my $head = take(32); my $kind = ord $head; return if $kind == 0; return $head . take(4 * unpack('x4 V', $head)) if $kind == 1 } }
sub atom { my $text = shift; syswrite($x, pack('C C v v x2', 16, 0, 2 + length(pad($text)) / 4, length $text) . pad($text)); my $got = reply(); $got ? unpack('x8 V', $got) : 0 }
sub property { my ($window, $which) = @_; syswrite($x, pack('C C v V V V V V', 20, 0, 6, $window, $which, 0, 0, 4096)); my $got = reply(); $got && unpack('x C', $got) == 32 ? unpack('V*', substr($got, 32)) : () }

my $type = atom('_NET_WM_WINDOW_TYPE');
my %count = map { atom("_NET_WM_WINDOW_TYPE_$_") => [$_, 0] } qw(DESKTOP DOCK);
for my $window (property($root, atom('_NET_CLIENT_LIST_STACKING'))) { for (property($window, $type)) { $count{$_}[1]++ if $count{$_} } }
my %by = map { @$_ } values %count;
print "$by{DESKTOP} $by{DOCK}\n";
PERL

. /etc/os-release
say hello "$(uname -r)" "$PRETTY_NAME"
report_goal
watch &
watcher=$!
while read -r order; do
	case $order in
	collect) collect ;;
	diagnose) diagnose ;;
	script)
		kill $watcher
		run_script
		;;
	esac
done
