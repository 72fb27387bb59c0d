# SPDX-License-Identifier: GPL-2.0
# make                  kvmpp.ko for the running kernel
# make KDIR=...         for the kernel whose build directory that is
# make install          into /lib/modules/.../updates, as kernel people expect, and a rule of udev's for
#                       /dev/kvmpp (needs root)
# make install-tools    the command kvmpp, into $(DESTDIR)/usr/local/bin; TOOLS_O= is where it is built
# make demo             the main job, seen on an emulated Intel host
# make demo-qemu       QEMU with a Linux guest on kvmpp, on that host
# make bench            side by side with KVM, measured on that host; JSON=FILE writes the tables there, too
# make check            what proves the project; check-host is its part of seconds; with ALL=1 also
#                       what is left out as others show it too
# make storm MINUTES=60 CPUs, VMs and vCPUs come, go and are killed at random while guests keep accounts
# make fuzz MINUTES=10  any call of the ABI with any argument, and any instruction of a guest, on debug-6.1
KDIR ?= /lib/modules/$(shell uname -r)/build
# BTF describes C types only; pahole fails on those of C++.
KBUILD := $(MAKE) -C $(KDIR) M=$(CURDIR) CONFIG_DEBUG_INFO_BTF_MODULES=

all: modules

modules:
	+$(KBUILD) modules

install: modules_install
	install -D -m 644 scripts/udev/60-kvmpp.rules \
		$(DESTDIR)/usr/local/lib/udev/rules.d/60-kvmpp.rules

modules_install: modules
	+$(KBUILD) modules_install

TOOLS_O ?= $(CURDIR)/build
install-tools:
	+$(MAKE) -C tools/kvmpp O=$(TOOLS_O)
	install -D -m 755 $(TOOLS_O)/kvmpp $(DESTDIR)/usr/local/bin/kvmpp

clean:
	+$(KBUILD) clean
	rm -rf build/kvmpp build/kvmpp-build

# What the sources say of locks and contexts, checked: clang for the C++, sparse for the C; and what
# breaks the rules, which they have to refuse.
analyze:
	scripts/analyze
	scripts/analyze --selftest

sparse:
	scripts/sparse

# The life cycle over all schedules, and a mutant for each guard; in check for 45 seconds of them.
explore:
	scripts/explore

demo:
	scripts/demo

demo-qemu:
	scripts/demo-qemu

bench:
	scripts/bench $(if $(JSON),--json $(JSON))

MINUTES ?= 10
storm:
	scripts/storm --minutes $(MINUTES)

fuzz:
	scripts/fuzz --minutes $(MINUTES)

check:
	scripts/check $(if $(ALL),all)

check-host:
	scripts/check host

.PHONY: all modules install modules_install install-tools clean analyze sparse explore demo demo-qemu bench storm fuzz check check-host
