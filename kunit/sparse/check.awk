# SPDX-License-Identifier: GPL-2.0
# awk -f check.awk SOURCE LOG: whether sparse said in LOG what the comments of SOURCE want. TAP.
FNR == NR {
	if (match($0, /\/\* sparse: .* \*\//)) {
		wanted[FNR + 1] = substr($0, RSTART + 11, RLENGTH - 14)
		order[++count] = FNR + 1
		next
	}
	if (match($0, /[a-z_]+\(/) && /^static/)
		name = substr($0, RSTART, RLENGTH - 1)
	names[FNR] = name
	next
}
match($0, /rules_broken\.c:[0-9]+:[0-9]+: (warning|error): /) {
	split(substr($0, RSTART, RLENGTH), where, ":")
	said[where[2]] = said[where[2]] substr($0, RSTART + RLENGTH) "\n"
	if (!(where[2] in wanted))
		other = other "# " $0 "\n"
}
END {
	for (i = 1; i <= count; i++) {
		line = order[i]
		good = said[line] ~ wanted[line]
		failed += !good
		if (!good)
			printf "# %d: wanted: %s\n# said: %s\n", line, wanted[line], said[line]
		print (good ? "ok " : "not ok ") i " - sparse: " names[line]
	}
	good = other == ""
	failed += !good
	printf "%s", other
	print (good ? "ok " : "not ok ") i " - sparse: says nothing else"
	print "1.." i
	exit failed != 0
}
