# SPDX-License-Identifier: ISC
"""Certificate authorities and certificates for tests, made with openssl(1)."""

import os
import ssl
import subprocess
import time

from timing import scaled

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
CONFIG = """
[ca]
default_ca = own
[own]
database = {base}.index
new_certs_dir = {directory}
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


def in_days(days):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400))


class Authority:
    """A certificate authority whose files are in directory."""

    def __init__(self, directory, name="ca"):
        self.directory = directory
        self._base = os.path.join(directory, name)
        self.key, self.pem = f"{self._base}.key", f"{self._base}.pem"
        self._write(f"{self._base}.index", "")
        self._write(f"{self._base}.conf", CONFIG.format(base=self._base, directory=directory))
        self._openssl("req", "-x509", *KEY, "-keyout", self.key, "-out", self.pem, "-days", "2",
                      "-subj", f"/CN=test {name}")

    @staticmethod
    def _write(path, text):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    @staticmethod
    def _openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=scaled(20))

    def certificate(self, names="DNS:localhost,IP:127.0.0.1", days=1, begin=None):
        """The paths of a new certificate and its key. It is valid from begin to days, both in days from now; days=-1
        has expired."""
        base = os.path.join(self.directory, f"server{len(os.listdir(self.directory))}")
        self._openssl("req", "-new", *KEY, "-keyout", f"{base}.key", "-out", f"{base}.csr", "-subj", "/CN=server",
                      "-addext", f"subjectAltName={names}")
        begin = min(days, 0) - 1 if begin is None else begin
        self._openssl("ca", "-batch", "-notext", "-config", f"{self._base}.conf", "-cert", self.pem,
                      "-keyfile", self.key, "-startdate", in_days(begin), "-enddate", in_days(days),
                      "-in", f"{base}.csr", "-out", f"{base}.pem")
        return f"{base}.pem", f"{base}.key"

    def issue(self, *args, **named):
        """A TLS context with a new certificate, for Application(tls=)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate(*args, **named))
        return context
