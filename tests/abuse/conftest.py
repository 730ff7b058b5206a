# SPDX-License-Identifier: ISC
"""Makes the modules of the end-to-end tests importable."""

import os
import sys

sys.path[:0] = [os.path.join(os.path.dirname(__file__), "..", "e2e"), os.path.dirname(__file__)]
