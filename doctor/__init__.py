"""tpi-stream-doctor: says in a minute why browsers see nothing. See tpi-stream-doctor(1).

It does what a browser does, and what a publisher does, and looks at when which byte arrives. What is
measured is a record (Response, Published); what it means is said by functions whose names begin with
judge_, which do no input or output. The remedies stand beside what they are for. Checks are the
functions of CHECKS, in their order: each yields findings, and one that raises Stop ends the
examination.

Cookies and passwords come from files or standard input, and are never printed: Report strikes out
what a server might echo.
"""

VERSION = "@VERSION@"
