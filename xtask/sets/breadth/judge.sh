#!/bin/sh
# Runs in the booted image: what dpkg and systemd themselves say of it. Fails if either complains.
bad=0
audit=$(dpkg --audit 2>&1)
[ -z "$audit" ] || { echo "dpkg --audit:"; echo "$audit"; bad=1; }
# A template has no instance to verify.
units=$(systemctl list-unit-files --state=enabled --no-legend --no-pager | while read -r unit _; do
	case $unit in
	*@.*) ;;
	# Debian's snapd enables it without the program that it starts.
	snapd.recovery-chooser-trigger.service) ;;
	*) echo "$unit" ;;
	esac
done)
# Since systemd 250; before, units that these need are judged with them.
alone=--recursive-errors=no
systemd-analyze --help | grep -q -- --recursive-errors || alone=
systemd-analyze verify --man=no $alone $units || bad=1
echo "verified: $(echo "$units" | wc -l) units"
exit $bad
