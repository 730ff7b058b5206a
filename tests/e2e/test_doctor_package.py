# SPDX-License-Identifier: ISC
"""The modules of tpi-stream-doctor: imports point one way, so that they can be put into one file."""

import ast
import builtins
import os
import re
import subprocess
import symtable

import pytest

from paths import SERVED
from servers import ROOT, program, run_streamd
from test_doctor_parts import parts  # noqa: F401 (a fixture)

PACKAGE = os.path.join(ROOT, "doctor")
DOCTOR = program("tpi-stream-doctor")


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return file.read()


ORDER = re.findall(r"doctor/(\w+)\.py", read(ROOT, "Makefile.am").partition("doctor_modules =")[2].partition("\n\n")[0])


def top_level(tree):
    """The names that a module gives to something, without those that it imports."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)):
                yield name.id


def used_globals(table):
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from used_globals(child)


def test_modules():
    """Each imports from earlier ones alone, what is there and is used; no name is given twice."""
    assert set(ORDER) == {name[:-3] for name in os.listdir(PACKAGE) if name.endswith(".py")}
    given, standard = {}, set()     # name: its module; those of the standard library
    for module in ORDER:
        text = read(PACKAGE, module + ".py")
        tree = ast.parse(text, feature_version=(3, 9))
        known = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node in tree.body and all(name.asname is None for name in node.names), (module, node.module)
                for name in node.names:
                    where = given.get(name.name)
                    assert where == (node.module or "__init__"), f"{module}: {name.name} is not in {node.module}"
                    known.add(name.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {name.asname or name.name for name in node.names}
                known |= names
                standard |= names
        own = set(top_level(tree))
        used = set(used_globals(symtable.symtable(text, module, "exec")))
        assert known <= used, f"{module} imports and does not use {known - used}"
        missing = used - known - own - set(dir(builtins)) - {"__file__", "__name__"}
        assert not missing, f"{module} uses and does not import {missing}"
        for name in own:
            assert name not in given, f"{name} is in {given[name]} and in {module}"
            given[name] = module
    assert not standard & set(given)


def test_one_program():
    """The build's is the same as the package: one file, without imports from each other, for Python 3.9."""
    text = read(DOCTOR)
    tree = ast.parse(text, feature_version=(3, 9))
    assert text.startswith("#!/usr/bin/python3\n") and "@VERSION@" not in text
    assert text.count("SPDX-License-Identifier") == 1
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
    parts = [list(top_level(ast.parse(read(PACKAGE, module + ".py")))) for module in ORDER]
    assert list(top_level(tree)) == sum(parts, [])


@pytest.mark.parametrize("words", [["/usr/bin/python3", "-B", "-m", "doctor"], ["/usr/bin/python3", "-B", DOCTOR]])
def test_runs(words):
    """The package runs where it stands, too."""
    done = subprocess.run([*words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: tpi-stream-doctor") and not done.stderr


def daemon_settings():
    """Every setting of tpi-streamd and its default, from the program itself."""
    done = run_streamd("--check-config")
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_defaults(parts):  # noqa: F811
    """They are those of tpi-streamd; of TPI_LISTEN it prints the address that it would use."""
    theirs = daemon_settings()
    ours = dict(parts.DEFAULTS)
    assert theirs["TPI_LISTEN"] in (ours.pop("TPI_LISTEN"), parts.SOCKET, "unix:" + parts.SOCKET)
    assert ours == {name: theirs[name] for name in ours}
    assert parts.SOCKET in read(ROOT, "man", "tpi-streamd.8")


def test_streams(parts):  # noqa: F811
    """A row for each stream of tpi-streamd."""
    assert sorted(stream.target.partition("?")[0].format(id=7) for stream in parts.STREAMS.values()) == sorted(SERVED)


# Names of other things: a FastCGI parameter, and Define of contrib/apache.
OTHERS = {"TPI_USER", "TPI_TIMEOUT"}


def test_setting_names():
    """Every setting that the program or its manual names exists."""
    theirs = set(daemon_settings()) | OTHERS
    for path in (*(os.path.join(PACKAGE, module + ".py") for module in ORDER),
                 os.path.join(ROOT, "man", "tpi-stream-doctor.1")):
        named = set(re.findall(r"\b(?:SSE|TPI|VALKEY|INSTANCE)_[A-Z][A-Z_]+[A-Z]\b", read(path)))
        assert named <= theirs | {"VALKEY_SENTINEL"}, (path, named - theirs)
