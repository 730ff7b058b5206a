#!/usr/bin/python3
# SPDX-License-Identifier: ISC
"""Writes the table of values in README.md of the chart from values.yaml and its comments.

    tests/tools/values-table.py

A row for each value that has a comment above it, with the first paragraph of that comment. A map without comments in
it is one value. Requires python3-yaml.
"""

import json
import os
import re
import sys

import yaml

CHART = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../contrib/helm/tpi-stream")
README = os.path.join(CHART, "README.md")
HEAD = "| value | default | |\n| --- | --- | --- |\n"


def first_paragraph(comment):
    """Up to an empty line or an indented one, which begins an example."""
    text = []
    for line in comment:
        if not line or line.startswith((" ", "\t")):
            break
        text.append(line)
    return " ".join(text).replace("|", "\\|")


def comments(lines):
    """{"valkey.url": [line of the comment, ...]}"""
    found, path, comment = {}, [], []
    for line in lines:
        key = re.match(r"( *)([A-Za-z]+):", line)
        if key:
            path[len(key[1]) // 2:] = [key[2]]
            found[".".join(path)] = comment
        comment = comment + [line.strip()[1:].removeprefix(" ")] if line.strip().startswith("#") else []
    return found


def rows(values, described, path=""):
    for name, value in values.items():
        full = f"{path}{name}"
        if isinstance(value, dict) and any(described.get(f"{full}.{inner}") for inner in value):
            yield from rows(value, described, f"{full}.")
        else:
            yield f"| `{full}` | `{json.dumps(value)}` | {first_paragraph(described[full])} |\n"


def table():
    with open(os.path.join(CHART, "values.yaml"), encoding="utf-8") as file:
        text = file.read()
    return HEAD + "".join(rows(yaml.safe_load(text), comments(text.splitlines())))


def main():
    with open(README, encoding="utf-8") as file:
        text = file.read()
    with open(README, "w", encoding="utf-8") as file:
        file.write(text[:text.index(HEAD)] + table())


if __name__ == "__main__":
    sys.exit(main())
