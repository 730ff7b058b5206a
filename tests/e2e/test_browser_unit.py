"""The client library alone: its own tests, on Node.js."""

import os
import subprocess

import pytest

from node import npm_ci
from servers import ROOT, clean_environment
from timing import scaled

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("file", ["core", "package", "react"])
def test_client_library(file):
    """contrib/browser/test: its rules; types, size and files; its hooks and the example, on React 18 and 19."""
    place = npm_ci(os.path.join(ROOT, "contrib", "browser"), "browser")
    result = subprocess.run(["node", "--test", f"test/{file}.test.js"], cwd=place, env=clean_environment(),
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=scaled(120), check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stderr
