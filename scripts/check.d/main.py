# SPDX-License-Identifier: GPL-2.0
"""make check: the tests, the quick ones first; "host" runs only those, "all" (make check ALL=1) all there are.

Each job is one command; what it prints in TAP (or JUnit) is counted. Two emulators run
at a time. The last line is "N passed, N failed, N skipped".
"""

import concurrent.futures
import dataclasses
import os
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree

import build
from build import CHECKOUT, TESTHOST, cache, packages

import emulator
import jobs
import kernels

EMULATORS_AT_ONCE = 2
_LINES_SHOWN = 40

_printing = threading.Lock()


@dataclasses.dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Counts(self.passed + other.passed, self.failed + other.failed,
                      self.skipped + other.skipped)

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def say(text):
    with _printing:
        print(text, flush=True)


def count_tap(text):
    """Counts TAP lines, wherever they are; subtests of KUnit are indented and count, the
    line that sums them up does not."""
    counts = Counts()
    lines = [re.sub(r"^\[ *\d+\.\d+\] ?", "", line) for line in text.splitlines()]
    depth_below = 0
    for line in lines:
        found = re.match(r"( *)(not )?ok \d+", line)
        if not found:
            continue
        depth = len(found[1])
        if depth < depth_below:
            depth_below = depth
            continue
        depth_below = depth
        if re.search(r"# SKIP", line, re.I):
            counts.skipped += 1
        elif found[2]:
            counts.failed += 1
        else:
            counts.passed += 1
    return counts


def count_kunit(text):
    """Has the kernel's own parser read a log that KUnit has written to. In 6.1 suites that
    come in a module lack the header, and their plan."""
    lines = [re.sub(r"^\[ *\d+\.\d+\] ?", "", line) for line in text.splitlines()]
    suites = sum(line.startswith("    # Subtest: ") for line in lines)
    text = "\n".join(["KTAP version 1", f"1..{suites}", *lines, ""])
    done = subprocess.run([sys.executable, "-B", kernels.kunit_tool(), "parse"], input=text,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    ran = re.search(r"Ran \d+ tests: (.*)", done.stdout)
    number = {name: int(count) for name, count in re.findall(r"(\w+): (\d+)", ran[1])} if ran else {}
    bad = sum(number.get(name, 0) for name in ("failed", "crashed", "errors"))
    return Counts(number.get("passed", 0), max(bad, int(done.returncode != 0)), number.get("skipped", 0))


def run_job(job):
    started = time.monotonic()
    try:
        command = job.command()
    except cache.Failure as failure:
        say(f"FAIL {job.name}: {failure}")
        return Counts(failed=1)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, cwd=CHECKOUT)
    text = done.stdout.decode(errors="replace")
    if job.kunit:
        counts = count_kunit(text)
    else:
        counts = count_tap(text) if job.tap else Counts()
    wrong = None
    if done.returncode != job.status:
        wrong = f"exit status {done.returncode}, not {job.status}"
    elif job.must_print and not re.search(job.must_print, text):
        wrong = f"it does not print what matches {job.must_print!r}"
    elif job.must_not_print and re.search(job.must_not_print, text):
        wrong = f"it prints what matches {job.must_not_print!r}"
    elif job.tap and counts.passed + counts.skipped == 0:
        wrong = "no test ran"
    if wrong and not counts.failed:
        counts.failed += 1
    elif not job.tap:
        counts.passed += 1
    took = time.monotonic() - started
    say(f"{'FAIL' if counts.failed else '  ok'} {job.name}: {counts} ({took:.0f} s)")
    with _printing:
        for line in text.splitlines():
            if re.search(r"# SKIP", line, re.I):
                print(f"       {line.strip()}")
        if counts.failed:
            if wrong:
                print(f"       {wrong}")
            for line in text.splitlines()[-_LINES_SHOWN:]:
                print(f"     | {line}")
        sys.stdout.flush()
    return counts


def run_host_tests():
    """GoogleTest, counted case by case."""
    started = time.monotonic()
    packages.need("g++", "cmake", "make", "libgtest-dev", *jobs.HOST_PACKAGES)
    place = build.directory("host")
    report = place / "report.xml"
    report.unlink(missing_ok=True)
    try:
        build.run("cmake", "-S", build.sources() / "kunit/host", "-B", place)
        build.run("cmake", "--build", place, f"-j{os.cpu_count()}")
    except cache.Failure as failure:
        say(f"FAIL host: {failure}")
        return Counts(failed=1)
    done = subprocess.run(["ctest", "--test-dir", place, "--output-junit", report,
                           "--output-on-failure", f"-j{os.cpu_count()}"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if not report.exists():
        say(f"FAIL host: ctest wrote no report\n{done.stdout.decode(errors='replace')}")
        return Counts(failed=1)
    suite = xml.etree.ElementTree.parse(report).getroot()
    number = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "skipped", "disabled")}
    skipped = number["skipped"] + number["disabled"]
    counts = Counts(number["tests"] - number["failures"] - skipped, number["failures"], skipped)
    if done.returncode and not counts.failed or not counts.passed:
        counts.failed += 1
    say(f"{'FAIL' if counts.failed else '  ok'} host: {counts} ({time.monotonic() - started:.0f} s)")
    if counts.failed:
        say(done.stdout.decode(errors="replace"))
    return counts


def make_what_is_slow():
    """The emulator and the kernels, where they are not in the cache: here, where their
    progress is seen. A failure is told by the jobs that want them."""
    try:
        emulator.build_bochs()
        for name in kernels.NAMES:
            kernels.get(name)
    except cache.Failure as failure:
        say(str(failure))


def split(everything):
    """What needs the emulator: the jobs to run, and those that are left out."""
    if everything:
        return [*jobs.emulated(), *jobs.further()], []
    left_out = [*jobs.further(), *(job for job in jobs.emulated() if job.once and _seen(job).exists())]
    names = [job.name for job in left_out]
    return [job for job in jobs.emulated() if job.name not in names], left_out


def _seen(job):
    """Is there once the job has passed with the tests as they are."""
    return cache.root() / "passed" / jobs.state_of_the_tests() / cache.key_of(job.name)


def run_and_note(job):
    counts = run_job(job)
    if job.once and not counts.failed:
        _seen(job).parent.mkdir(parents=True, exist_ok=True)
        _seen(job).touch()
    return counts


def main():
    given = sys.argv[1:]
    if given not in ([], ["host"], ["all"]):
        sys.exit("usage: scripts/check [host | all]")
    started = time.monotonic()
    left_out = []
    total = run_host_tests()
    for job in jobs.static():
        total += run_job(job)
    if given != ["host"]:
        make_what_is_slow()
        for job in jobs.of_the_module():
            total += run_job(job)
        to_run, left_out = split(given == ["all"])
        with concurrent.futures.ThreadPoolExecutor(EMULATORS_AT_ONCE) as pool:
            for counts in pool.map(run_and_note, to_run):
                total += counts
    if left_out:
        say(f"left out, and run by make check ALL=1: {'; '.join(job.name for job in left_out)}")
    say(f"{time.monotonic() - started:.0f} s")
    say(str(total))
    sys.exit(1 if total.failed else 0)


if __name__ == "__main__":
    main()
