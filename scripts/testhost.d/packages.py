# SPDX-License-Identifier: GPL-2.0
"""What comes from Debian: installed packages, downloaded packages, a source."""

import json
import os
import pathlib
import re
import subprocess

import cache
from cache import Failure, say
from tools import run, run_to_its_end

_LISTS = pathlib.Path("/var/lib/apt/lists")


def installed(names):
    """{name: version} of those of the named packages that are installed."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *names],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = (line.split() for line in done.stdout.splitlines())
    return {line[1]: line[2] for line in lines if line[0] == "installed"}


def need(*names, apt_options=()):
    """Sees to it that the packages are installed; returns {name: version}."""
    have = installed(names)
    if len(have) == len(names):
        return have
    with cache.lock("apt"):
        missing = sorted(set(names) - set(installed(names)))
        if missing:
            say(f"installing {' '.join(missing)}")
            _with_fresh_lists(
                lambda: _apt_as_root(["install", "-y", "--no-install-recommends", *missing],
                                     apt_options), apt_options)
    return installed(names)


def download(name, directory, apt_options=()):
    """Downloads a binary package into the directory; returns its file."""
    _with_fresh_lists(
        lambda: run(["apt-get", *apt_options, "download", name], cwd=directory), apt_options)
    return next(pathlib.Path(directory).glob(f"{name}_*.deb"))


def extracted(name):
    """The content of a package that is not to be installed on this machine."""
    def fill(directory):
        say(f"fetching {name}...")
        package = download(name, directory)
        run(["dpkg", "-x", package, directory])
        package.unlink()

    return cache.entry(f"package-{name}", _os_release("VERSION_CODENAME"), fill)


def unpacked(kind, suites):
    """The content of packages that are not to be installed on this machine, with the
    libraries that they depend on, which are.

    suites: {package: "" for the release itself, "-backports" or "-security"}.
    """
    codename = _os_release("VERSION_CODENAME")
    options = private_apt("qemu", "deb", [codename, f"{codename}-backports", f"{codename}-security"])
    # else the newest of the release: backports are taken only where named
    asked = {name: f"{name}/{codename}{suite}" if suite else name for name, suite in suites.items()}

    def fill(directory):
        for name, one in asked.items():
            say(f"fetching {one}...")
            _with_fresh_lists(lambda: run(["apt-get", *options, "download", one], cwd=directory), options)
            package = next(directory.glob(f"{name}_*.deb"))
            run(["dpkg", "-x", package, directory])
            depends = run(["dpkg-deb", "-f", package, "Depends"])
            need(*re.findall(r"(?:^|, )(lib[a-z0-9.+-]+)", depends))
            package.unlink()

    return cache.entry(f"package-{kind}", codename, fill)


def backports():
    """Options of apt with which what came after the release is to be had as well."""
    codename = _os_release("VERSION_CODENAME")
    return private_apt("backports", "deb", [codename, f"{codename}-backports"])


def need_libraries_of(name):
    """Installs the libraries that a package depends on which is not installed itself."""
    depends = run(["apt-cache", "depends", name])
    need(*re.findall(r"(?m)^ *\|?Depends: (lib\S+)$", depends))


def newest_kernel(series):
    """The newest cloud kernel of the series (as in "6.12") that can be built for.

    Returns its version as uname -r says it, and the options of apt with which
    its packages are to be had. Asking apt takes a second, so the answer is kept
    as long as apt's lists stay as they are.
    """
    notes = cache.root() / f"newest-{series}.json"
    lists = _LISTS.stat().st_mtime_ns
    if notes.exists():
        note = json.loads(notes.read_text())
        if note["lists"] == lists:
            return note["version"], note["apt_options"]
    with cache.lock("apt"):
        version, options = _find_kernel(series)
    note = {"lists": _LISTS.stat().st_mtime_ns, "version": version, "apt_options": options}
    fresh = notes.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(note))
    fresh.rename(notes)
    return version, options


def _find_kernel(series):
    version = _newest_known(series, [])
    if version:
        return version, []
    _apt_as_root(["update"], [])
    version = _newest_known(series, [])
    if version:
        return version, []
    options = backports()
    run(["apt-get", *options, "update"])
    version = _newest_known(series, options)
    if not version:
        raise Failure(f"Debian has no cloud kernel {series} for this release")
    return version, options


def _newest_known(series, options):
    number = re.escape(series)
    found = {}
    for what in ("image", "headers"):
        lines = run(["apt-cache", *options, "search", "--names-only",
                     rf"^linux-{what}-{number}[.0-9+a-z-]*-cloud-amd64$"]).splitlines()
        found[what] = {re.sub(rf"^linux-{what}-", "", line.split()[0]) for line in lines}
    both = [version for version in found["image"] & found["headers"]
            if re.match(rf"{number}\.\d", version)]
    return max(both, default=None,
               key=lambda version: [int(n) for n in re.findall(r"\d+", version)])


def private_apt(name, kind, suites, trusted=False):
    """Options that make apt use a configuration of its own, in the cache.

    Its entries are the machine's own Debian entry with other suites, so that no
    mirror needs to be named here.
    """
    uri, signed_by = _debian_entry()
    settings = []
    if trusted:
        settings.append("trusted=yes")
    elif signed_by:
        settings.append(f"signed-by={signed_by}")
    home = cache.root() / "apt" / name
    for needed in ("lists/partial", "archives/partial"):
        (home / needed).mkdir(parents=True, exist_ok=True)
    # security updates are beside the archive
    (home / "sources.list").write_text("".join(
        f"{kind} {'[' + ' '.join(settings) + '] ' if settings else ''}"
        f"{uri.rstrip('/')}{'-security' if suite.endswith('-security') else ''} {suite} main\n"
        for suite in suites))
    return ["-o", f"Dir::Etc::sourcelist={home}/sources.list",
            "-o", "Dir::Etc::sourceparts=-",
            "-o", f"Dir::State::lists={home}/lists",
            "-o", f"Dir::Cache::archives={home}/archives",
            "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
            "-o", "APT::Sandbox::User=root"]


def _debian_entry():
    """URI and keyring of the entry that this machine has Debian itself from."""
    codename = _os_release("VERSION_CODENAME")
    etc = pathlib.Path("/etc/apt")
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.M))
            if codename in fields.get("Suites", "").split():
                keyring = fields.get("Signed-By", "")
                return fields["URIs"].split()[0], keyring if keyring.startswith("/") else ""
    for path in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        if not path.exists():
            continue
        for line in path.read_text().splitlines():
            found = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s", line)
            if found and found[3] == codename:
                keyring = re.search(r"signed-by=(\S+)", found[1] or "")
                return found[2], keyring[1] if keyring else ""
    raise Failure("no entry for Debian itself in this machine's apt sources")


def _os_release(field):
    text = pathlib.Path("/etc/os-release").read_text()
    return re.search(rf'^{field}="?([^"\n]*)"?$', text, re.M)[1]


def _with_fresh_lists(step, apt_options):
    """Does the step; if it fails, once more with fresh lists (a package may be
    unknown yet, or its version replaced on the mirror)."""
    try:
        step()
    except Failure:
        _apt_as_root(["update"], apt_options)
        step()


def _apt_as_root(command, apt_options):
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    run_to_its_end([*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get",
                    "-o", "DPkg::Lock::Timeout=600", *apt_options, *command])
