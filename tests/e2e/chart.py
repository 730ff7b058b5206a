# SPDX-License-Identifier: ISC
"""Renders the chart in contrib/helm with helm."""

import json
import os
import shutil
import subprocess
import tempfile

import pytest
import yaml

from fronts import PATH
from servers import ROOT
from timing import scaled

TOOLS = os.environ.get("TPI_TOOLS", os.path.expanduser("~/.cache/tpi-stream-tools"))
CHART = os.path.join(ROOT, "contrib", "helm", "tpi-stream")


class Refused(Exception):
    """Helm rejects these values."""


def read_yaml(path):
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def require(name):
    """The path of a program or file of tests/tools.sh; skips the test if it is missing."""
    path = os.path.join(TOOLS, name)
    path = path if os.path.exists(path) else shutil.which(name, path=PATH)
    if not path:
        pytest.skip(f"{name} is not installed: tests/tools.sh")
    return path


def helm(*arguments, values=None):
    """Runs helm, which needs no cluster and no configuration for this; returns its standard output."""
    done = subprocess.run([require("helm"), *arguments, *(["-f", "-"] if values is not None else [])],
                          env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"},
                          input=json.dumps(values), capture_output=True, text=True, timeout=scaled(60), check=False)
    if done.returncode:
        raise Refused(done.stderr)
    assert not done.stderr, done.stderr
    return done.stdout


def template(values, *arguments, release="tpi-stream"):
    """The rendered objects, in the order of helm."""
    text = helm("template", release, CHART, "--namespace", "testplanit", *arguments, values=values)
    return [document for document in yaml.safe_load_all(text) if document]


def objects(values, *arguments, release="tpi-stream"):
    """The rendered objects by kind, without those of templates/tests."""
    documents = template(values, "--skip-tests", *arguments, release=release)
    kinds = [document["kind"] for document in documents]
    assert len(set(kinds)) == len(kinds)
    return dict(zip(kinds, documents))


def notes(values):
    """NOTES.txt, rendered. Without a cluster helm does not print it, so a copy of the chart has it in an object."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(CHART, copy, dirs_exist_ok=True)
        templates = os.path.join(copy, "templates")
        with open(os.path.join(templates, "NOTES.txt"), encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(templates, "_notes.tpl"), "w", encoding="utf-8") as file:
            file.write('{{ define "notes" }}' + text + "{{ end }}")
        with open(os.path.join(templates, "notes.yaml"), "w", encoding="utf-8") as file:
            file.write('kind: Notes\nnotes: {{ include "notes" . | quote }}\n')
        return yaml.safe_load(helm("template", "tpi-stream", copy, "--namespace", "testplanit", "--show-only",
                                   "templates/notes.yaml", "--skip-schema-validation", values=values))["notes"]
