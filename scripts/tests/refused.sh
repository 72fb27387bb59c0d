# SPDX-License-Identifier: GPL-2.0
# Inside the host: the module must refuse to be inserted, with the error $1, one line in the log that
# matches $2, and nothing left behind. "kvmpp check" must say in the line of $3 what matches $4.
echo "1..5"
if said=$(modprobe kvmpp 2>&1); then
	echo "not ok 1 - insertion is refused"
else
	echo "ok 1 - insertion is refused"
fi
case $said in
*"$1"*) echo "ok 2 - with: $1" ;;
*) echo "not ok 2 - with: $1"; echo "# $said" ;;
esac
lines=$(dmesg | grep 'kvmpp: ' | grep -v -e 'taint' -e 'verification failed')
if [ "$(echo "$lines" | wc -l)" = 1 ] && echo "$lines" | grep -q "$2"; then
	echo "ok 3 - one line says why: $lines"
else
	echo "not ok 3 - one line says why"
	echo "$lines" | sed 's/^/# /'
fi
if [ -e /sys/module/kvmpp ] || [ -e /dev/kvmpp ] || [ -e /sys/kernel/debug/kvmpp ]; then
	echo "not ok 4 - nothing is left"
else
	echo "ok 4 - nothing is left"
fi
# it finds out more with Linux's msr module
modprobe msr
said=$(/overlay/kvmpp check)
if [ $? = 1 ] && echo "$said" | grep -q "^no  *$3 .*$4" &&
	echo "$said" | grep -q '^kvmpp cannot run on this machine'; then
	echo "ok 5 - kvmpp check says so"
else
	echo "not ok 5 - kvmpp check says so"
	echo "$said" | sed 's/^/# /'
fi
