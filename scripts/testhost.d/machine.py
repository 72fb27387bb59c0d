# SPDX-License-Identifier: GPL-2.0
"""One run of the machine: starts the emulator, listens to it, judges how it ended.

Two streams come out of it. On the emulator's standard output are the frames that
init.c sends: COMMAND's output and status. In the console's file is the kernel's
log, which is watched for what reports.py knows.
"""

import os
import pathlib
import select
import signal
import subprocess
import time

import reports
from cache import say
from tools import die_with_parent

TIMED_OUT = 124
HOST_FAILED = 125

# All in seconds of the real clock.
_BOOT_LIMIT = 400           # debug-6.1 under Bochs takes a minute on a free machine
_SILENCE_LIMIT = 90         # without a heartbeat (one a second of emulated time)
_IDLE_LIMIT = 20            # an emulator that always computes, and does not
_REPORT_GRACE = 3           # for the rest of a report to come
_PANIC_GRACE = 5            # a panic says its end itself; if not, by then
_LOG_GRACE = 15             # for the kernel's log to arrive after COMMAND
_EXPECT_GRACE = 30          # COMMAND has ended; what it has started may need this
_TAIL_LINES = 30


class _Over(Exception):
    """The run is over: with this status, and with a word if that is a failure."""

    def __init__(self, status, why=""):
        super().__init__(why)
        self.status = status
        self.why = why


class Machine:
    def __init__(self, directory, token, kernel, initrd, cmdline, cpus, memory):
        self.token = token
        self.directory = directory
        self.kernel = kernel
        self.initrd = initrd
        self.cmdline = cmdline
        self.cpus = cpus
        self.memory = memory
        self.console = directory / "console"

    def run(self, emulator, expect, timeout):
        """Boots it and returns the exit status of the whole."""
        command = emulator.command(self)
        with open(self.directory / "emulator.stderr", "wb") as stderr:
            process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=stderr, start_new_session=True, preexec_fn=die_with_parent())
        try:
            return _Run(self, process, emulator.always_busy, expect, timeout).watch()
        finally:
            process.kill()
            process.wait()


class _Run:
    def __init__(self, machine, process, always_busy, expect, timeout):
        self._machine = machine
        self._process = process
        self._always_busy = always_busy
        self._expect = expect
        self._timeout = timeout
        self._frames = _Frames(machine.token)
        self._console = _Console(machine.console)
        self._started = time.monotonic()
        self._booting_since = self._started     # None once COMMAND is about to run
        self._last_frame = self._started
        self._cpu_time = (0, self._started)
        self._powered_on = False                # Bochs: the BIOS has been here
        self._second = False                    # the second kernel's init is there
        self._report = None                     # (when, its first line)
        self._report_line = 0                   # which of the console's lines that is
        self._panic = None                      # (when, the line)
        self._panic_ended = False
        self._status = None                     # (when, COMMAND's status)
        self._log_complete = False

    def watch(self):
        try:
            while True:
                self._listen()
                self._judge()
        except _Over as over:
            return self._end(over)

    def _end(self, over):
        self._read_console()
        status, why = over.status, over.why
        emulator_said = reports.of_emulator(self._emulator_said())
        if emulator_said:
            status, why = HOST_FAILED, f"the emulator reports: {emulator_said}"
        # a report of the kernel outranks whatever else is to be said
        if self._report:
            status, why = HOST_FAILED, f"the kernel reports: {self._report[1]}"
        if why:
            say(why)
            if status in (HOST_FAILED, TIMED_OUT):
                self._show_console()
        return status

    def _show_console(self):
        lines = self._console.lines
        first = max(0, len(lines) - _TAIL_LINES)
        if self._report:
            # from where it began, and not without end
            first = min(first, self._report_line)
        shown = lines[first:first + 4 * _TAIL_LINES]
        os.write(2, "".join(f"  | {line}\n" for line in shown).encode(errors="replace"))

    def _listen(self):
        output = self._process.stdout
        ready, _, _ = select.select([output], [], [], 0.05)
        if ready:
            data = os.read(output.fileno(), 1 << 16)
            for kind, payload in self._frames.feed(data):
                self._take_frame(kind, payload)
            if not data:
                self._emulator_ended()
        self._read_console()

    def _take_frame(self, kind, payload):
        self._last_frame = time.monotonic()
        if kind == "O":
            while payload:
                payload = payload[os.write(1, payload):]
        elif kind == "P":
            if self._powered_on:
                raise self._reset()
            self._powered_on = True
        elif kind == "B":
            self._second = payload == b"k"
            if self._second:
                if self._expect != "kexec":
                    raise _Over(HOST_FAILED, "a second kernel started, unasked")
                self._status = self._panic = None
                self._log_complete = self._panic_ended = False
        elif kind == "S":
            self._booting_since = None
        elif kind == "X":
            self._status = (self._last_frame, payload[0])
        elif kind == "F":
            raise _Over(HOST_FAILED, payload.decode(errors="replace").strip())
        elif kind != "H":
            raise _Over(HOST_FAILED, "what the init inside sends is damaged")

    def _read_console(self):
        for line in self._console.read():
            text = reports.message(line)
            if text.startswith("Linux version ") and self._booting_since is None:
                # kexec: this kernel is booting again
                self._booting_since = time.monotonic()
            elif text == "testhost: COMMAND has ended":
                self._log_complete = True
            elif self._panic_ended:
                # what a dead kernel says is no finding
                pass
            elif reports.is_panic(text):
                self._panic = self._panic or (time.monotonic(), text)
            elif reports.is_panic_end(text):
                self._panic_ended = True
            elif reports.is_report(text) and not self._report:
                self._report = (time.monotonic(), text)
                self._report_line = len(self._console.lines) - 1

    def _reset(self):
        if self._expect == "reboot" and not self._panic:
            return _Over(0)
        return _Over(HOST_FAILED, "the machine was reset")

    def _emulator_ended(self):
        code = self._process.wait()
        self._read_console()
        last = [reports.message(line) for line in self._console.lines[-5:]]
        if any(text.startswith("reboot: Power down") for text in last):
            raise _Over(HOST_FAILED, "the machine was switched off")
        if code == 0 and not self._always_busy:
            # QEMU ends where the machine would start anew
            raise self._reset()
        raise _Over(HOST_FAILED,
                    f"the emulator ended by itself ({code}) {self._emulator_said().strip()}")

    def _emulator_said(self):
        return (self._machine.directory / "emulator.stderr").read_text(errors="replace")

    def _judge(self):
        now = time.monotonic()
        self._judge_emulator(now)
        if self._panic and self._expect != "kexec":
            if self._panic_ended or now - self._panic[0] > _PANIC_GRACE:
                if self._expect == "panic":
                    raise _Over(0)
                raise _Over(HOST_FAILED, self._panic[1])
        if self._report and now - self._report[0] > _REPORT_GRACE:
            raise _Over(HOST_FAILED)
        if self._status:
            self._judge_status(now)
        if now - self._started > self._timeout:
            raise _Over(TIMED_OUT, f"{self._timeout} s are over")

    def _judge_status(self, now):
        when, status = self._status
        wanted = self._expect and not (self._expect == "kexec" and self._second)
        if wanted:
            # it may be under way still: "reboot" returns before the machine goes
            if now - when > _EXPECT_GRACE:
                raise _Over(status or 1, f"COMMAND ended with {status}, and no "
                            f"{self._expect} came of it")
        elif self._log_complete:
            raise _Over(status)
        elif now - when > _LOG_GRACE:
            raise _Over(HOST_FAILED, "the kernel's log does not arrive")

    def _judge_emulator(self, now):
        if self._booting_since:
            if now - self._booting_since > _BOOT_LIMIT:
                raise _Over(HOST_FAILED, f"no boot within {_BOOT_LIMIT} s")
        elif not self._status and not self._panic and now - self._last_frame > _SILENCE_LIMIT:
            raise _Over(HOST_FAILED, f"the machine stands still: no sign of it for "
                        f"{_SILENCE_LIMIT} s")
        if self._always_busy:
            used = _cpu_seconds(self._process.pid)
            if used > self._cpu_time[0] + 0.1:
                self._cpu_time = (used, now)
            elif now - self._cpu_time[1] > _IDLE_LIMIT:
                raise _Over(HOST_FAILED, "the emulator hangs: it has not computed for "
                            f"{_IDLE_LIMIT} s")


class _Frames:
    """Takes the frames apart that init.c sends."""

    def __init__(self, token):
        self._token = token
        self._buffer = b""
        self._in_step = False

    def feed(self, data):
        self._buffer += data
        # the token starts the stream, after whatever an emulator says at first,
        # and starts it anew in a second kernel, be the first one's last frame
        # whole or not
        at = self._buffer.find(self._token)
        if at >= 0:
            before = self._buffer[:at]
            self._buffer = self._buffer[at + len(self._token):]
            if self._in_step:
                yield from self._split(before)[0]
            self._in_step = True
        if self._in_step:
            frames, self._buffer = self._split(self._buffer)
            yield from frames

    @staticmethod
    def _split(data):
        frames, at = [], 0
        while len(data) - at >= 3:
            length = data[at + 1] | data[at + 2] << 8
            if len(data) - at - 3 < length:
                break
            frames.append((chr(data[at]), data[at + 3:at + 3 + length]))
            at += 3 + length
        return frames, data[at:]


class _Console:
    """The lines of the console's file, as they come."""

    def __init__(self, path):
        self._path = pathlib.Path(path)
        self._file = None
        self._partial = b""
        self.lines = []

    def read(self):
        if not self._file:
            if not self._path.exists():
                return
            self._file = open(self._path, "rb")
        *whole, self._partial = (self._partial + self._file.read()).split(b"\n")
        for line in whole:
            self.lines.append(line.decode(errors="replace").strip("\r"))
            yield self.lines[-1]


def _cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end_on_signals():
    """SIGINT, SIGTERM and SIGHUP unwind, so that nothing is left running."""
    def unwind(number, _frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, unwind)
