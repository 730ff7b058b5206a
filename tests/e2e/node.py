"""What tests need of Node.js: the packages of a directory, installed outside the source tree."""

import os
import shutil
import subprocess

import pytest

from servers import BUILD, clean_environment
from timing import scaled

OLDEST = 20  # Node.js before it has no fake timers, and is too old for what drives Chromium


def require(*programs):
    """Skips the test where one is missing: some systems cannot have them."""
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: contrib/install-deps.sh test")


def require_node():
    require("node", "npm")
    version = subprocess.check_output(["node", "--version"], text=True, timeout=scaled(20)).strip()
    if int(version[1:].split(".")[0]) < OLDEST:
        pytest.skip(f"Node.js {OLDEST} or later is needed, and {version} is installed")


def npm_ci(source, name):
    """A copy of source in the build directory, and in it what its lock file names: installed once for all runs
    until the lock file changes."""
    require_node()
    place = os.path.join(BUILD, name)
    lock = os.path.join(place, "package-lock.json")
    done = os.path.join(place, "installed-lock.json")
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
    with open(lock, "rb") as file:
        wanted = file.read()
    if os.path.exists(done):
        with open(done, "rb") as file:
            if file.read() == wanted:
                return place
        os.unlink(done)
    result = subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=place, env=clean_environment(), timeout=scaled(180),
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"npm ci failed in {place}, offline perhaps: {result.stdout}{result.stderr}"
    shutil.copy(lock, done)
    return place
