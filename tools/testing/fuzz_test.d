fuzz_test: fuzz_test.cpp lib/cgroup.hpp lib/expect.hpp fuzz/player.hpp \
 fuzz/abi.hpp fuzz/random.hpp fuzz/tally.hpp fuzz/coverage.hpp \
 fuzz/world.hpp lib/host.hpp lib/ktap.hpp lib/option.hpp lib/steady.hpp \
 lib/guests.hpp /tmp/ov-fz/guest/longmode.hpp /tmp/ov-fz/guest/real.hpp \
 lib/vm.hpp lib/layout.h
lib/cgroup.hpp:
lib/expect.hpp:
fuzz/player.hpp:
fuzz/abi.hpp:
fuzz/random.hpp:
fuzz/tally.hpp:
fuzz/coverage.hpp:
fuzz/world.hpp:
lib/host.hpp:
lib/ktap.hpp:
lib/option.hpp:
lib/steady.hpp:
lib/guests.hpp:
/tmp/ov-fz/guest/longmode.hpp:
/tmp/ov-fz/guest/real.hpp:
lib/vm.hpp:
lib/layout.h:
