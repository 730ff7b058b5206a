# SPDX-License-Identifier: ISC
"""A short run of the soak test (tests/soak.py)."""

import os
import subprocess
import sys

import pytest

from servers import BUILD, ROOT
from timing import scaled


@pytest.mark.slow
def test_soak():
    """After 20 seconds of churn and failures no stream has missed a wake-up, and nothing has leaked."""
    result = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "soak.py"), "--seconds", "20"],
                            env={**os.environ, "TPI_BUILD": BUILD}, capture_output=True, text=True,
                            timeout=scaled(120), check=False)
    print(result.stdout, result.stderr)
    assert result.returncode == 0
