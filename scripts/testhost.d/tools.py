# SPDX-License-Identifier: GPL-2.0
"""Running other programs so that they end with us."""

import ctypes
import signal
import subprocess

from cache import Failure

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def die_with_parent(number=signal.SIGKILL):
    """For preexec_fn: even kill -9 of testhost leaves nothing running."""
    return lambda: _libc.prctl(_PR_SET_PDEATHSIG, number)


def run(command, **options):
    """Runs a step and returns its output; a failed one shows what it said."""
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", preexec_fn=die_with_parent(signal.SIGTERM), **options)
    if done.returncode:
        shown = "\n".join(done.stdout.splitlines()[-40:])
        raise Failure(f"{command[0]} failed ({done.returncode}):\n{shown}")
    return done.stdout
