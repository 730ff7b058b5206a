"""Fixtures of the end-to-end tests: real Valkey, real tpi-streamd, nothing left behind."""

import os
import resource
import shutil
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.dont_write_bytecode = True

import application as stand_in  # noqa: E402
import servers  # noqa: E402

# 2000 streams need 2000 descriptors on our side, and the servers inherit the limit.
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

# What a shell starts in the background ignores Ctrl-C, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A failed test shows what every server of it said."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        first = getattr(item, "first_process", 0)
        for position, process in enumerate(servers.Process.everything):
            if position >= first or process.alive:
                report.sections.extend((title, text) for title, text in process.report() if text)


@pytest.fixture(autouse=True)
def _watch(request):
    """No daemon that runs across tests has written a sanitizer's report."""
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
    """The Valkey that all tests share that do not harm it."""
    directory = servers.run_directory()
    server = servers.Valkey(directory).start()
    yield server
    server.kill()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def new_valkey(rundir):
    """new_valkey(tcp=, password=, config=) makes one of the test's own, not yet started."""
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
        env = {name: value for name, value in env.items() if value is not None}
        # Each on a socket of its own, in case a test starts two.
        place = os.path.join(directory, f"d{len(started)}")
        os.makedirs(place, exist_ok=True)
        daemon = servers.Streamd(place, env, args, inherit, how, address, wait, **(popen or {}))
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
    """streamd(NAME=value, ...) starts a daemon with these settings; it must end cleanly."""
    yield from _daemons(rundir, valkey)


@pytest.fixture(scope="module")
def module_streamd(module_rundir, valkey):
    """The same for a daemon that all tests of a file share."""
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
    """application(path=, tls=, prefix=) starts a stand-in; it must not be asked what the contract forbids."""
    yield from _applications()


@pytest.fixture(scope="module")
def module_application():
    yield from _applications()


def _gated(streamd, application):
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
def gated(streamd, application):
    """app, daemon = gated(NAME=value): a daemon that asks an application everything, and keeps no answer;
    its log gives no cookie away."""
    yield from _gated(streamd, application)


@pytest.fixture(scope="module")
def module_gated(module_streamd, module_application):
    yield from _gated(module_streamd, module_application)
