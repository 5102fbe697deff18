#!/bin/bash
# Boots an OpenWrt root file system with procd as process 1, in namespaces of its own, with no way out of the machine.
#
#   boot.sh ROOTFS FOLDER    copies ROOTFS (an unpacked rootfs.tar.gz for this machine's processor) to FOLDER and boots the
#                            copy; prints `router PID`, `lan PID` and `inet PID` and runs until its standard input ends
#
# The router has eth0 = lan (192.168.1.1), eth1 = wan0 (10.0.1.2) and eth2 = wan1 (10.0.2.2). In the network of `lan` is a
# client, 192.168.1.2; in that of `inet` the provider, 10.0.1.1 and 10.0.2.1, with the address 203.0.113.1.
#
# It runs in a user namespace whose root is nobody outside: what a router does when it boots (clock, kernel modules,
# sysctl) has no effect here.
set -euo pipefail

SHIFT=100000
SELF=$(readlink -f "$0")

copy() {
	local from=$1 root=$2/root
	mkdir -p "$root"
	cp -a "$from/." "$root"
	cd "$root"
	mkdir -p dev proc sys tmp mnt overlay
	# Services that need hardware, or the internet.
	local link name
	for link in etc/rc.d/S*; do
		name=${link##*/S??}
		case $name in
		boot | log | network | ubus | rpcd | uhttpd | system | sysctl | firewall | done) ;;
		*) rm -f "$link" ;;
		esac
	done
	[ ! -e sbin/ujail ] || mv sbin/ujail sbin/ujail.off
	printf '::sysinit:/etc/init.d/rcS S boot\n::shutdown:/etc/init.d/rcS K shutdown\n' >etc/inittab
	{
		printf "config interface 'loopback'\n\toption device 'lo'\n\toption proto 'static'\n\toption ipaddr '127.0.0.1'\n\toption netmask '255.0.0.0'\n"
		printf "config interface 'lan'\n\toption device 'eth0'\n\toption proto 'static'\n\toption ipaddr '192.168.1.1'\n\toption netmask '255.255.255.0'\n"
		for number in 0 1; do
			printf "config interface 'wan%d'\n\toption device 'eth%d'\n\toption proto 'static'\n\toption ipaddr '10.0.%d.2'\n\toption netmask '255.255.255.0'\n\toption gateway '10.0.%d.1'\n\toption metric '%d0'\n" \
				$number $((number + 1)) $((number + 1)) $((number + 1)) $((number + 1))
		done
	} >etc/config/network
	chown -hR $SHIFT:$SHIFT "$root"
}

devices() {
	mount -t tmpfs -o mode=0755,size=1m,uid=$SHIFT,gid=$SHIFT tmpfs dev
	mkdir dev/net dev/pts
	local device
	for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "net/tun 10 200"; do
		# shellcheck disable=SC2086
		set -- $device
		mknod -m 666 "dev/$1" c "$2" "$3"
	done
	ln -s pts/ptmx dev/ptmx
	ln -s /tmp/shm dev/shm
	ln -s /proc/self/fd dev/fd
	# Somebody reads what goes to the console, so that nobody waits there.
	mkfifo -m 666 dev/kmsg dev/console
	chown -hR $SHIFT:$SHIFT dev
}

case $1 in
--namespaces)
	# In a mount namespace: device nodes, and a user namespace to boot in.
	cd "$2/root"
	mount --bind . .
	cd "$2/root"
	devices
	setpriv --pdeathsig KILL unshare -U sleep infinity &
	holder=$!
	while [ "$(readlink /proc/$holder/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.02; done
	echo "0 $SHIFT 65536" >/proc/$holder/uid_map
	echo "0 $SHIFT 65536" >/proc/$holder/gid_map
	exec nsenter -t $holder -U -- unshare -n -m -u -i -C "$SELF" --provider "$2"
	;;
--provider)
	# Root of the user namespace; this network is the provider's. Its children die with it.
	folder=$2
	for pipe in kmsg console; do
		# shellcheck disable=SC2094
		(exec 3<>"$folder/root/dev/$pipe"; exec setpriv --pdeathsig KILL cat <&3 >>"$folder/$pipe.log") &
	done
	ip link set lo up
	setpriv --pdeathsig KILL unshare -n -p -m -f -u -i --kill-child "$SELF" --router "$folder" &
	child=$!
	setpriv --pdeathsig KILL unshare -n sleep infinity &
	lan=$!
	while ! router=$(pgrep -P $child); do sleep 0.02; done
	for process in $router $lan; do
		while [ "$(readlink "/proc/$process/ns/net")" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
	done
	ip link add lan0 type veth peer name eth0
	ip link set eth0 netns "$router"
	ip link set lan0 netns $lan
	for number in 1 2; do
		ip link add wan$number type veth peer name eth$number
		ip link set eth$number netns "$router"
		ip addr add 10.0.$number.1/24 dev wan$number
		ip link set wan$number up
	done
	ip addr add 203.0.113.1/32 dev lo
	sysctl -qw net.ipv4.ip_forward=1
	nsenter -t $lan -n sh -c 'ip link set lo up; ip link set lan0 up; ip addr add 192.168.1.2/24 dev lan0; ip route add default via 192.168.1.1'
	touch "$folder/go"
	printf 'router %d\nlan %d\ninet %d\n' "$router" $lan $$
	# Whoever has started this ends it by closing its input.
	cat >/dev/null
	;;
--router)
	cd "$2/root"
	while [ ! -e "$2/go" ]; do sleep 0.02; done
	mount --rbind . .
	cd "$2/root"
	mount -t proc -o nosuid,nodev,noexec proc proc
	mount -t sysfs -o nosuid,nodev,noexec sysfs sys
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
	mount -t tmpfs -o mode=1777 tmpfs tmp
	pivot_root . mnt
	exec /usr/bin/env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=linux \
		/bin/sh -c 'umount -l /mnt; exec /sbin/init' </dev/console >/dev/console 2>&1
	;;
*)
	[ -x "$1/sbin/procd" ] || { echo "boot.sh: $1 is no root file system of OpenWrt" >&2; exit 1; }
	copy "$(readlink -f "$1")" "$2"
	chown $SHIFT:$SHIFT "$2"
	# One process from here to the end; its children die with it, and with the router's first process all of the router.
	exec unshare -m --propagation private "$SELF" --namespaces "$2"
	;;
esac
