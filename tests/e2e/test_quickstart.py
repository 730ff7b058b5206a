# SPDX-License-Identifier: ISC
"""contrib/quickstart.sh: one command that starts everything; and its page, contrib/demo, in a real Chromium."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from servers import ROOT, clean_environment
from timing import eventually, scaled

SCRIPT = os.path.join(ROOT, "contrib", "quickstart.sh")
PAGES = os.path.join(ROOT, "tests", "e2e", "browser")
PR_SET_CHILD_SUBREAPER = 36


def children(of=os.getpid()):
    """The process ids of a process's running children."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == of and state != "Z":
            found.add(int(pid))
    return found


@pytest.fixture
def quickstart(tmp_path):
    """Starts the script; checks afterwards that none of its processes is left, in any session."""
    libc = ctypes.CDLL(None)
    # Orphaned processes become children of this process.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = children()
    output = tmp_path / "output"
    started = []

    def start(*args):
        with output.open("wb") as file:
            child = subprocess.Popen([SCRIPT, *args], env=clean_environment(),
                                     stdin=subprocess.DEVNULL, stdout=file,
                                     stderr=subprocess.STDOUT, start_new_session=True)
        started.append(child)
        return child, output.read_text

    yield start
    for child in started:
        if child.poll() is None:
            child.terminate()
            child.wait(scaled(60))
    left = children() - before
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    print(output.read_text())
    assert not left, f"left behind: {left}"


FRONTS = pytest.mark.parametrize("args", [[], ["--nginx"]], ids=["Apache", "nginx"])


@pytest.mark.slow
@FRONTS
def test_check(quickstart, args):
    """--check starts everything, checks that events arrive and the application is queried, and leaves no process."""
    child, _ = quickstart(*args, "--check")
    assert child.wait(scaled(120)) == 0


@pytest.fixture
def other_server():
    """Occupies the port that the script tries first."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # it may be in use already
            listener.bind(("127.0.0.1", 8080))
            listener.listen()
        yield


@pytest.mark.slow
@FRONTS
def test_interrupt(quickstart, other_server, args):
    """The script takes the next port if its first one is in use; Ctrl-C ends it with 130 and leaves no process and
    no file."""
    child, output = quickstart(*args)
    eventually(lambda: "Ctrl-C to stop" in output() or child.poll() is not None, 120, "the script to serve")
    url = re.search(r"http://\S+", output())[0]
    assert not url.startswith("http://127.0.0.1:8080/")
    directory = re.search(r"Logs are in (/tmp/\S+)\.", output())[1]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=scaled(10))
    assert refused.value.code == 401 and b"signed out" in refused.value.read()
    child.send_signal(signal.SIGINT)
    assert child.wait(scaled(60)) == 130
    assert not os.path.exists(directory)


def serve(quickstart, *args):
    """Starts the demo; returns its process and the address of its page."""
    child, output = quickstart(*args)
    eventually(lambda: "Ctrl-C to stop" in output() or child.poll() is not None, 120, "the script to serve")
    return child, re.search(r"http://\S+(?=/)", output())[0]


def descendants(pid):
    """The process ids of all descendants of a process."""
    return children(pid).union(*map(descendants, children(pid)))


def runs(pid, program):
    """Whether the process runs this program. Others may have ended, such as a sleep of the script."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith(program)
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("program", ["tpi-streamd", "python3"])
def test_program_dies(quickstart, program):
    """A daemon or an application that dies by itself ends the demo with an error, and nothing is left: only the button
    of the page stops the daemon."""
    child, _ = serve(quickstart)
    victim, = (pid for pid in descendants(child.pid) if runs(pid, program))
    os.kill(victim, signal.SIGKILL)
    assert child.wait(scaled(60)) == 1


def test_help():
    """--help prints what the script does and its options; a wrong argument is a usage error that names it."""
    def run(argument):
        return subprocess.run([SCRIPT, argument], capture_output=True, text=True, timeout=scaled(20), check=False)
    shown = run("--help")
    assert shown.returncode == 0 and not shown.stderr
    for option in "--nginx", "--check", "--help":
        assert f"\n  {option} " in shown.stdout
    wrong = run("--apache")
    assert wrong.returncode == 64 and '"--apache"' in wrong.stderr and not wrong.stdout


@pytest.fixture
def ann(chromium, quickstart):
    """ann(…) starts the demo and returns a function that opens its page in a window in which Ann is signed in."""
    with open(os.path.join(PAGES, "measure.js"), encoding="ascii") as file:
        measure = file.read()

    def start(*args):
        _, url = serve(quickstart, *args)
        # The browser remembers the password. A page whose own address has one cannot fetch anything.
        chromium.open(url.replace("//", "//ann:ann@") + "/demo/api/me")

        def window(view="", width=1280, height=800, theme="light", delay=0):
            tab = chromium.open_window("about:blank")
            tab.size(width, height)
            tab.theme(theme)
            tab.delay(delay)
            tab.goto(f"{url}/{view}")
            tab(f"void (window.measure = {measure[measure.index('({'):]})")
            tab.until("document.getElementById('status').dataset.state === 'live'", 30)
            tab.until("document.querySelectorAll('#log .sync').length === 2")
            return tab
        return window
    yield start
    chromium.forget()


def text(element):
    return f"document.getElementById('{element}').textContent"


@pytest.mark.slow
@FRONTS
def test_test_run(ann, args):
    """A result sent in one window moves the bar of another one and lights up the row. After the daemon was stopped, a
    result sent meanwhile, and the daemon started, the other window heals with a sync."""
    window = ann(*args)
    here, there = window(), window()
    there("""void (() => {
        const { animate } = Element.prototype;
        window.lit = [];
        Element.prototype.animate = function (...all) { lit.push(this.id); return animate.apply(this, all); };
    })()""")
    here.press("#case-42-3 [value=passed]")
    there.until(f"{text('percent')} === '10%'")
    there.until("getComputedStyle(document.getElementById('progress')).getPropertyValue('--passed') === '10%'")
    assert set(there("lit")) == {"case-42-3"}
    assert there(text("log")).count("test_run.result_added") == 1

    here.press("#daemon")
    for tab in here, there:
        tab.until("document.getElementById('status').dataset.state === 'stopped'", 30)
        assert "Ann stopped the daemon" in tab(text("why"))
    here.press("#case-42-5 [value=failed]")
    here.until(f"{text('percent')} === '20%'")
    assert there(text("percent")) == "10%" and there(text("daemon")) == "Start the daemon"

    there("window.lit = []")
    there.press("#daemon")
    for tab in here, there:
        tab.until("document.getElementById('status').dataset.state === 'live'", 30)
    there.until(f"{text('percent')} === '20%'")
    there.until("document.querySelectorAll('#log .sync').length === 4")
    assert there(text("log")).count("Wake-ups may have been lost") == 2
    assert there("lit") == ["case-42-5"] and there(text("failed")) == "1"
    here.press("#run")
    there.until(f"{text('percent')} === '100%'", 30)


@pytest.mark.slow
@FRONTS
def test_tabs(ann, chromium, args):
    """All windows of a browser share one connection, and the page shows how many there are, as the daemon counts them.
    After another user has signed in, the other windows show that user, too."""
    window = ann(*args)
    windows = [window("#issues" if number % 2 else "") for number in range(4)]
    for tab in windows:
        tab.until(f"{text('connections')} === '4 tabs, 1 connection'")
    windows.pop(0).close()
    for tab in windows:
        tab.until(f"{text('connections')} === '3 tabs, 1 connection'")
        tab.until("document.getElementById('status').dataset.state === 'live'")
    windows[0].press("#daemon")
    for tab in windows:
        tab.until(f"{text('connections')} === '3 tabs, 0 connections'", 30)
    windows[0].press("#daemon")
    for tab in windows:
        tab.until(f"{text('connections')} === '3 tabs, 1 connection'", 30)

    url = windows[0]("location.origin")
    ben = chromium.open_window(url.replace("//", "//ben:ben@") + "/demo/api/switch?from=ann").goto(f"{url}/")
    for tab in ben, *windows:
        tab.until(f"{text('name')} === 'Ben' && {text('connections')} === '4 tabs, 1 connection'", 30)
        tab.until("document.getElementById('status').dataset.state === 'live'")


SIZES = pytest.mark.parametrize("size", [(390, 844), (1280, 800)], ids=["phone", "desktop"])


@pytest.mark.slow
@SIZES
def test_contrast_and_targets(ann, size):
    """In both themes, text has a contrast of at least 4.5, and each button, link and field is at least 44 px wide and
    high: in both views, with results, with the daemon stopped, with the notifications open, with an error."""
    window = ann()
    tabs = {theme: window("", *size, theme) for theme in ("light", "dark")}

    def check():
        for theme, tab in tabs.items():
            assert tab("measure.texts().length") > 20
            assert tab("measure.lowContrast(4.5)") == [], theme
            assert tab("measure.smallTargets(44)") == [], theme
    check()
    light = tabs["light"]
    light.press("#case-42-1 [value=passed]")
    light.press("#case-42-2 [value=failed]")
    light.press("#send button")
    for tab in tabs.values():
        tab.until(f"{text('percent')} === '20%' && {text('unread')} === '1'")
        # Rows stay lit for the check.
        tab("document.getAnimations().forEach((one) => { one.pause(); one.currentTime = 0; })")
    check()
    for tab in tabs.values():
        tab("location.hash = 'issues'")
        tab.until("document.querySelectorAll('#projects .rows li').length === 5")
        tab("document.getElementById('bell-panel').showPopover()")
    light.press("#issue-42 button")
    check()
    light("document.getElementById('bell-panel').hidePopover()")
    light.press("#daemon")
    for tab in tabs.values():
        tab.until("document.getElementById('status').dataset.state === 'stopped'", 30)
        tab("fetch = () => Promise.reject(new Error('unreachable'))")
        tab.until("!document.getElementById('error').hidden")
    check()


@pytest.mark.slow
def test_layout(ann):
    """The page does not jump while its data arrives, also if that is late. It has no horizontal scroll bar on the
    smallest phone. On a phone, sending and the log come before the rows."""
    window = ann()
    for view in "", "#issues":
        for width, height in (320, 568), (390, 844), (768, 1024), (1280, 800):
            tab = window(view, width, height, delay=0.2)
            shift = tab("measure.shift()")
            print(f"layout shift of {view} at {width} px: {shift:.4f}")
            assert shift < 0.02, (view, width)
            assert tab("measure.wide()") == [], (view, width)
            assert tab("document.documentElement.scrollWidth") <= width
            tab("document.getElementById('bell-panel').showPopover()")
            assert tab("measure.wide()") == [], (view, width)
            tab.close()
    phone = window("", 390, 844)
    run, send, log, rows = phone(
        "['run', 'send', 'log', 'cases'].map((id) => document.getElementById(id).getBoundingClientRect().top)")
    assert run < send < log < 844 < rows
