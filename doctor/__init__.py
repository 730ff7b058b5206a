# SPDX-License-Identifier: ISC
"""tpi-stream-doctor finds out why browsers receive no events. See tpi-stream-doctor(1).

It does what a browser and a publisher do, and notes when each byte arrives. A measurement is a record
(Response, Published). A function whose name begins with judge_ decides what it means, without input or output,
and holds the remedy. A check in CHECKS brings both together and yields findings.

Everything that another machine sends passes through untrusted; cookies and passwords, which come from files or
standard input, are masked before anything else happens to a text.
"""

VERSION = "@VERSION@"
