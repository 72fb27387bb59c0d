# SPDX-License-Identifier: GPL-2.0
# objdump -t -r kvmpp.o | awk -f bare.awk: bare code (.kprobes.text, see Kbuild) names nothing but itself,
# data, and what is listed here of the kernel's text; and Linux patches nothing in it but by alternatives,
# once, at load. Prints what does not keep to that, and fails.

function section_of(value)
{
	sub(/[-+]0x[0-9a-f]+$/, "", value)
	symbol = value
	return value in section ? section[value] : value ~ /^\./ ? value : "*UND*"
}

BEGIN {
	bare = ".kprobes.text"
	split("__x86_return_thunk clear_bhb_loop x86_verw_sel mds_verw_sel pcpu_hot", names)
	for (i in names)
		allowed[names[i]]
	# where Linux is told of places that it patches while CPUs run
	split("__jump_table __mcount_loc .static_call_sites", names)
	for (i in names)
		patched[names[i]]
}

/^RELOCATION RECORDS FOR/ {
	records = $4
	gsub(/\[|\]|:/, "", records)
	next
}

!records && /\t/ {
	split($0, half, "\t")
	n = split(half[1], left, " ")
	m = split(half[2], right, " ")
	section[right[m]] = left[n]
}

records == bare && $2 ~ /^R_X86_64_/ {
	seen++
	where = section_of($3)
	if (where == bare || symbol in allowed || symbol ~ /^__x86_indirect_thunk_/)
		next
	if (where == "*UND*" || where ~ /text/) {
		print "bare code (" bare ") names " symbol (where == "*UND*" ? "" : ", in " where)
		bad = 1
	}
}

records in patched && $2 ~ /^R_X86_64_/ && section_of($3) == bare {
	print "bare code (" bare ") has a place that Linux patches, in " records
	bad = 1
}

END {
	if (!seen) {
		print "there is no bare code"
		bad = 1
	}
	exit bad
}
