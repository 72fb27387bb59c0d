# SPDX-License-Identifier: GPL-2.0
"""Running other programs so that they end with us."""

import contextlib
import ctypes
import os
import signal
import subprocess

from cache import Failure

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_CAPTURED = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True,
             "errors": "replace"}


def die_with_parent(number=signal.SIGKILL):
    """For preexec_fn: even kill -9 of testhost leaves nothing running."""
    return lambda: _libc.prctl(_PR_SET_PDEATHSIG, number)


@contextlib.contextmanager
def started(command, **options):
    """Starts a step in a process group of its own; when this ends before it, the
    group ends as well: make with all its makes and compilers."""
    process = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.DEVNULL, process_group=0,
        preexec_fn=die_with_parent(signal.SIGTERM), **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(command, **options):
    """Runs a step and returns its output; a failed one shows what it said."""
    with started(command, **_CAPTURED, **options) as process:
        output = process.communicate()[0]
    return _checked(command, process.returncode, output)


def run_to_its_end(command):
    """The same for what is not to be broken off, and may ask on the terminal."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, **_CAPTURED) as process:
        output = process.communicate()[0]
    return _checked(command, process.returncode, output)


def _checked(command, status, output):
    if status:
        shown = "\n".join(output.splitlines()[-40:])
        raise Failure(f"{command[0]} failed ({status}):\n{shown}")
    return output
