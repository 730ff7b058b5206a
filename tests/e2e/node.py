# SPDX-License-Identifier: ISC
"""Node.js for tests: checks for it, and installs packages outside the source tree."""

import os
import shutil
import subprocess

import pytest

from servers import BUILD, ROOT, clean_environment
from timing import scaled

OLDEST = 20  # older versions have no fake timers and cannot run the driver of Chromium


def require(*programs):
    """Skips the test if a program is missing: not every system has packages of them."""
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: contrib/install-deps.sh test")


def require_node():
    require("node", "npm")
    version = subprocess.check_output(["node", "--version"], text=True, timeout=scaled(20)).strip()
    if int(version[1:].split(".")[0]) < OLDEST:
        pytest.skip(f"Node.js {OLDEST} or later is needed, and {version} is installed")


def npm_ci(source, name):
    """Copies source to the build directory and runs `npm ci` there; returns the copy. Installs again only if the lock
    file has changed."""
    require_node()
    copy = os.path.join(BUILD, name)
    lock = os.path.join(copy, "package-lock.json")
    done = os.path.join(copy, "installed-lock.json")
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
    with open(lock, "rb") as file:
        wanted = file.read()
    if os.path.exists(done):
        with open(done, "rb") as file:
            if file.read() == wanted:
                return copy
        os.unlink(done)
    result = subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=copy, env=clean_environment(), timeout=scaled(180),
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"npm ci failed in {copy} (offline?): {result.stdout}{result.stderr}"
    shutil.copy(lock, done)
    return copy


CLIENTS = os.path.join(ROOT, "tests", "clients")


def npm_clients():
    """Installs the packages of tests/clients; returns their directory. Skips the test if that is not possible."""
    try:
        return npm_ci(CLIENTS, "clients")
    except (AssertionError, subprocess.TimeoutExpired) as reason:
        pytest.skip(" ".join(str(reason).split())[:300])


def pip_clients():
    """Installs tests/clients/requirements.txt; returns the directory for PYTHONPATH. Skips the test if that is not
    possible."""
    requirements, directory = os.path.join(CLIENTS, "requirements.txt"), os.path.join(BUILD, "clients-python")
    done = os.path.join(directory, "installed-requirements.txt")
    with open(requirements, encoding="ascii") as file:
        wanted = file.read()
    if os.path.exists(done):
        with open(done, encoding="ascii") as file:
            if file.read() == wanted:
                return directory
    shutil.rmtree(directory, ignore_errors=True)
    result = subprocess.run(
        ["/usr/bin/python3", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--break-system-packages",
         "--target", directory, "-r", requirements],
        env=clean_environment(), timeout=scaled(180), capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"pip cannot install {requirements}: {' '.join(result.stderr.split())[-300:]}")
    shutil.copy(requirements, done)
    return directory
