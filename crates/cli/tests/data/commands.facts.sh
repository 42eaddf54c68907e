#!/bin/sh
# Runs in the booted image of commands.ks and prints what the system says, one section for each group of commands.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
# Everything that was started must have come up, /home included.
systemctl is-system-running --wait >/dev/null
ask() {
	echo "== $1"
	sh -c "$2" 2>&1
}
ask bootloader 'cat /proc/cmdline'
ask firewall 'systemctl is-active nftables; nft list ruleset'
ask lang '. /etc/default/locale; echo LANG=$LANG; locale -a; for l in cs_CZ de_DE; do LC_ALL=$l.UTF-8 locale abday; done'
ask keyboard 'localectl status; dumpkeys | grep -m1 "^keycode *3 ="'
ask timezone 'timedatectl show; date -d "2026-07-01 12:00 UTC" +%H%Z; tail -n 1 /etc/adjtime'
ask timesource 'timedatectl show-timesync --property=SystemNTPServers; systemctl is-enabled systemd-timesyncd'
ask user 'getent passwd anna ben; getent group lab; id -nG anna; for u in root anna ben; do passwd -S $u; done'
ask rootpw 'getent shadow root anna | perl -ne '\''@f = split /:/; print "$f[0] ", (crypt($f[0] eq "root" ? "kiln" : "s3cret", $f[1]) eq $f[1] ? "good" : "bad"), "\n"'\'
ask sshkey 'ssh-keygen -l -f /home/anna/.ssh/authorized_keys; stat -c "%a %U %n" /home/anna/.ssh /home/anna/.ssh/authorized_keys'
ask network 'hostname; getent hosts $(hostname); nmcli -t -f NAME,TYPE,AUTOCONNECT,FILENAME connection show; nmcli -t -f ipv4.method,ipv4.addresses,ipv4.gateway,ipv4.dns connection show lab0; nmcli -t -f ipv4.method connection show link; NetworkManager --print-config >/dev/null && echo config is fine'
ask services 'for u in cron getty@tty7 ssh; do echo $u $(systemctl is-enabled $u) $(systemctl is-active $u); done'
ask part 'lsblk -no LABEL,FSTYPE,SIZE,MOUNTPOINT; findmnt -no FSTYPE,OPTIONS /home'
ask xconfig 'systemctl get-default; systemctl is-active graphical.target'
ask firstboot 'systemctl is-enabled systemd-firstboot'
ask selinux 'echo enforce $(cat /sys/fs/selinux/enforce); for f in /etc/hostname /usr/lib/systemd/systemd /usr/bin/env /bin; do stat -c "%C %n" $f; done'
ask packages 'ls /usr/share/doc/nano; find /usr/share/man -name "nano*"; find /usr/share/man -xtype l ! -name sh.1.gz; ls -d /usr/share/man/man1; find /usr/share/locale -name "*.mo" | cut -d/ -f5 | sort -u; dpkg -s man-db 2>&1 | grep -c "ok installed"'
ask certificate 'ls -l /etc/ssl/certs | grep lab-ca; grep -c "$(sed -n 2p /usr/local/share/ca-certificates/lab-ca.crt)" /etc/ssl/certs/ca-certificates.crt; cat /etc/ssl/lab/extra.pem | head -n 1'
ask authselect 'grep -h pam_mkhomedir /etc/pam.d/common-session'
ask scripts 'cat /srv/early /srv/perl.log /srv/outside /srv/from-afar; ls /mnt /run/kiln 2>&1; cat /etc/resolv.conf 2>/dev/null | grep -c nameserver'
ask failed 'systemctl --failed --no-legend; echo nothing else'
echo "== end"
