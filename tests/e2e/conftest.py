# SPDX-License-Identifier: ISC
"""Fixtures of the end-to-end tests: they start real servers, and stop them and delete their files afterwards."""

import os
import resource
import shutil
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.dont_write_bytecode = True

import application as stand_in  # noqa: E402
import node  # noqa: E402
import servers  # noqa: E402
from chromium import Chromium, Firefox  # noqa: E402

# 2000 streams need 2000 descriptors in this process; the servers inherit the limit.
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

# A shell starts background jobs with SIGINT ignored, and the servers of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Adds the output of a failed test's servers to its report."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        first = getattr(item, "first_process", 0)
        for position, process in enumerate(servers.Process.everything):
            if position >= first or process.alive:
                report.sections.extend((title, text) for title, text in process.report() if text)


@pytest.fixture(autouse=True)
def _watch(request):
    """Checks after each test that no daemon, shared ones included, has written a sanitizer report."""
    request.node.first_process = len(servers.Process.everything)
    yield
    for process in servers.Process.everything:
        if isinstance(process, servers.Streamd):
            process.check_clean()


def pytest_sessionfinish():
    for process in servers.Process.everything:
        process.kill()


def _directory():
    path = servers.run_directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def rundir():
    """A directory with a short path, for sockets and files of one test."""
    yield from _directory()


@pytest.fixture(scope="module")
def module_rundir():
    yield from _directory()


@pytest.fixture(scope="session")
def valkey():
    """The Valkey shared by all tests that do not stop or reconfigure it."""
    directory = servers.run_directory()
    server = servers.Valkey(directory).start()
    yield server
    server.kill()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def new_valkey(rundir):
    """new_valkey(tcp=, password=, config=) makes a Valkey for this test; the test starts it."""
    made = []

    def make(**named):
        made.append(servers.Valkey(rundir, **named))
        return made[-1]
    yield make
    for server in made:
        server.kill()


def _daemons(directory, valkey):
    started = []

    def start(args=(), inherit=None, how="systemd", address=None, wait=True, popen=None, **env):
        env.setdefault("VALKEY_URL", valkey.url)
        # The tests open streams faster than any user. None is the default, as for every setting.
        env.setdefault("TPI_USER_OPENS_PER_SECOND", 0)
        env = {name: value for name, value in env.items() if value is not None}
        # A directory for each, since a test may start several.
        own = os.path.join(directory, f"d{len(started)}")
        os.makedirs(own, exist_ok=True)
        daemon = servers.Streamd(own, env, args, inherit, how, address, wait, **(popen or {}))
        started.append(daemon)
        return daemon
    yield start
    try:
        for daemon in started:
            if daemon.alive:
                daemon.stop()
            daemon.check_clean()
    finally:
        for daemon in started:
            daemon.kill()


@pytest.fixture
def streamd(rundir, valkey):
    """streamd(NAME=value, ...) starts a daemon with these settings, and requires that it exits cleanly."""
    yield from _daemons(rundir, valkey)


@pytest.fixture(scope="module")
def module_streamd(module_rundir, valkey):
    """The same, for daemons shared by all tests of a file."""
    yield from _daemons(module_rundir, valkey)


def _applications():
    started = []

    def start(**named):
        started.append(stand_in.Application(**named).start())
        return started[-1]
    yield start
    for app in started:
        app.stop()


@pytest.fixture
def application():
    """application(path=, tls=, prefix=) starts a stand-in for TestPlanIt; it must not receive invalid queries."""
    yield from _applications()


@pytest.fixture(scope="module")
def module_application():
    yield from _applications()


def _with_app(streamd, application):
    started = []

    def start(*args, app=None, **env):
        app = app or application()
        settings = {"TPI_IDENTITY": "app", "TPI_PROJECT_ACCESS": "app", "TPI_APP_URL": app.url,
                    "TPI_APP_CACHE_SECONDS": 0, "TPI_LOG_LEVEL": "debug", **env}
        started.append(streamd(*args, **settings))
        return app, started[-1]
    yield start
    for daemon in started:
        assert "SECRET" not in daemon.stderr + daemon.stdout


@pytest.fixture
def with_app(streamd, application):
    """app, daemon = with_app(NAME=value): a daemon for which the application decides identity and access, without
    caching. Its log must not contain credentials."""
    yield from _with_app(streamd, application)


@pytest.fixture(scope="module")
def module_with_app(module_streamd, module_application):
    yield from _with_app(module_streamd, module_application)


def _browser(start):
    directory = servers.run_directory()
    try:
        browser = start(directory)
        print(f"{browser.process.name} {browser.version}")
        yield browser
        browser.kill()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def chromium(request):
    """A Chromium for the tests of a file. Each file has its own copy of the driver, because files run in parallel."""
    node.require("chromium")
    if shutil.which("chromium").startswith("/snap/"):
        pytest.skip("chromium is a snap, which cannot read temporary directories")
    driver = node.npm_ci(os.path.join(servers.ROOT, "tests", "e2e", "browser"), f"chromium-{request.module.__name__}")
    yield from _browser(lambda directory: Chromium(directory, driver))


@pytest.fixture(scope="module")
def firefox():
    """A Firefox for the tests of a file. Debian has firefox-esr; Ubuntu has only a snap, which cannot read temporary
    directories."""
    node.require_node()
    node.require("firefox-esr")
    yield from _browser(Firefox)
