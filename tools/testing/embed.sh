#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# embed.sh header NAME ELF	a C++ header: the image of guest NAME, and its global labels
# embed.sh images NAME...	assembly which holds the images
set -e
kind=$1
shift
case $kind in
header)
	echo "// Generated from guest/$1.S"
	echo "#pragma once"
	echo "#include <cstddef>"
	echo "#include <cstdint>"
	echo "#include <span>"
	echo "extern \"C\" const std::byte guest_$1_begin[], guest_$1_end[];"
	echo "namespace guest::$1 {"
	echo "inline std::span<const std::byte> image() { return { guest_$1_begin, guest_$1_end }; }"
	# ld's own symbols begin with an underscore.
	${NM:-nm} "$2" | awk '$2 == "T" && $3 !~ /^_/ {
		print "constexpr uint64_t " $3 " = 0x" $1 ";" }'
	echo "}"
	;;
images)
	echo '.section .note.GNU-stack, "", @progbits'
	echo '.section .rodata'
	for name; do
		echo ".globl guest_${name}_begin, guest_${name}_end"
		echo ".balign 16"
		echo "guest_${name}_begin: .incbin \"$name.bin\""
		echo "guest_${name}_end:"
	done
	;;
esac
