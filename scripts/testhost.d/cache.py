# SPDX-License-Identifier: GPL-2.0
"""The cache directory: everything slow is made once and kept here.

An entry is a directory <kind>/<key>. It is built beside its place and renamed
into it, so that it is whole where it exists. Whoever uses it holds a shared lock
on it until his process ends; whoever builds or removes it needs it alone.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import tempfile
import time

UNUSED_DAYS = 7

_held = []


class Failure(Exception):
    """The host cannot be had; the text says why."""


def say(text):
    os.write(2, f"testhost: {text}\n".encode())


def root():
    chosen = os.environ.get("KVMPP_CACHE")
    if not chosen:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        chosen = os.path.join(home, "kvmpp")
    path = pathlib.Path(os.path.abspath(chosen))
    path.mkdir(parents=True, exist_ok=True)
    return path


def _open_lock(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


@contextlib.contextmanager
def lock(name):
    """The lock NAME, held alone."""
    fd = _open_lock(root() / "locks" / name)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def key_of(*made_from):
    """A short name for what something is made from: texts, bytes, files."""
    digest = hashlib.sha256()
    for part in made_from:
        if isinstance(part, pathlib.Path):
            part = part.read_bytes()
        if isinstance(part, str):
            part = part.encode()
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def compilers(base=None):
    """The environment in which gcc and g++ are ccache.

    Below the directory BASE all has the same names in every checkout, so that a fresh clone finds
    what another one has compiled.
    """
    chosen = {"PATH": f"/usr/lib/ccache:{os.environ['PATH']}", "CCACHE_DIR": str(root() / "ccache"),
              "CCACHE_MAXSIZE": "2G", "CCACHE_NOHASHDIR": "1", "CCACHE_SLOPPINESS": "pch_defines,time_macros"}
    if base:
        chosen["CCACHE_BASEDIR"] = str(base)
    return {**os.environ, **chosen}


def entry(kind, key, build):
    """The path of the entry; build(directory) fills it if it is not there."""
    path = root() / kind / key
    fd = _open_lock(root() / "locks" / f"{kind}-{key}")
    _held.append(fd)
    fcntl.flock(fd, fcntl.LOCK_SH)
    if not path.is_dir():
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not path.is_dir():
            _build(path, build)
            remove_unused(kind, key)
        fcntl.flock(fd, fcntl.LOCK_SH)
    os.utime(path)
    return path


def _build(path, build):
    unfinished = path.with_name(path.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        build(unfinished)
    except Exception:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    # told to end, we end at once: the next build, or remove_unused, clears away
    os.rename(unfinished, path)


def remove_unused(kind, key_kept):
    """Removes what nobody holds and nobody has used for long."""
    for path in (root() / kind).iterdir():
        key = path.name.split(".")[0]
        if key == key_kept or time.time() - path.stat().st_mtime < UNUSED_DAYS * 86400:
            continue
        fd = _open_lock(root() / "locks" / f"{kind}-{key}")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        os.close(fd)


@contextlib.contextmanager
def run_directory():
    """A directory for one run. What killed runs left is removed on the way."""
    runs = root() / "runs"
    runs.mkdir(exist_ok=True)
    with lock("runs"):
        for left in runs.iterdir():
            fd = os.open(left, os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            os.close(fd)
        path = pathlib.Path(tempfile.mkdtemp(dir=runs))
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)
