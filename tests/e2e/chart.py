# SPDX-License-Identifier: ISC
"""Renders the Helm chart with helm/render.go, and validates values as Helm does before it renders."""

import json
import os
import subprocess

import jsonschema
import yaml

from fronts import installed
from servers import BUILD, ROOT
from timing import scaled

CHART = os.path.join(ROOT, "contrib", "helm", "tpi-stream")
RENDERER = os.path.join(BUILD, "helm-render")


class Refused(Exception):
    """The chart rejects these values."""


def read_yaml(path):
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def build():
    """Compiles the renderer, using only Go libraries from Debian packages."""
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOPROXY": "off",
           "GOCACHE": os.path.join(BUILD, "helm-go-cache")}
    source = os.path.join(os.path.dirname(__file__), "helm", "render.go")
    done = subprocess.run([installed("go"), "build", "-o", RENDERER, source], env=env, capture_output=True, text=True,
                          timeout=scaled(300), check=False)
    assert done.returncode == 0, done.stderr


def merged(under, over):
    """Merges two sets of values as Helm does: maps are merged, anything else is replaced."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return {**under, **{name: merged(under.get(name), value) for name, value in over.items()}}


def validate(values):
    """Validates values, merged with the defaults, against values.schema.json."""
    with open(os.path.join(CHART, "values.schema.json"), encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft7Validator.check_schema(schema)
    try:
        jsonschema.validate(merged(read_yaml(os.path.join(CHART, "values.yaml")), values), schema,
                            jsonschema.Draft7Validator)
    except jsonschema.ValidationError as error:
        raise Refused(f"{'.'.join(map(str, error.absolute_path))}: {error.message}") from None


def render(values, release="tpi-stream"):
    """The text of each rendered template, by file name. Does not check the schema."""
    done = subprocess.run([RENDERER, CHART, release, "testplanit"], input=json.dumps(values), capture_output=True,
                          text=True, timeout=scaled(60), check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return json.loads(done.stdout)


def objects(values, release="tpi-stream"):
    """The rendered Kubernetes objects, by kind."""
    validate(values)
    found = {}
    for name, text in render(values, release).items():
        if name.endswith(".yaml"):
            for document in yaml.safe_load_all(text):
                if document:
                    assert document["kind"] not in found
                    found[document["kind"]] = document
    return found
