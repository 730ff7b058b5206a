# SPDX-License-Identifier: ISC
"""Judge TLS, the certificate, and HTTP/2."""

import ssl

from .finding import FAILED, Finding, OK, WARNING
from .proxies import front
from .untrusted import plain, reason_of

# By the code of OpenSSL's verification.
CERTIFICATE = {
    10: "Renew it, as it has expired, and reload the web server.",
    9: "Set the clocks: it is not yet valid.",
    18: "Give --ca FILE if browsers trust this self-signed certificate, else get one from an authority.",
    19: "Give --ca FILE if browsers trust its authority, which is not known here.",
    20: "Configure the full chain if the server sends no intermediate certificate (nginx: ssl_certificate, Apache: "
        "SSLCertificateFile); give --ca FILE for an authority of your own, which is not known here.",
    21: "Configure the full chain: the server sends no intermediate certificate.",
    62: "Give this host a virtual host of its own with TLS, and its certificate: this one is for another name.",
    64: "Give the URL with the name that is in the certificate, not with an address: it is for another name.",
}


def judge_tls_error(stage, error):
    if isinstance(error, ssl.SSLCertVerificationError):
        return Finding(stage, FAILED, f"certificate not accepted: {plain(error.verify_message)}",
                       CERTIFICATE.get(error.verify_code, "Replace it: browsers refuse it as well."))
    if isinstance(error, ssl.SSLError):
        return Finding(stage, FAILED, f"TLS handshake failed: {plain(error.reason or error)}",
                       "Check that this is the port for https, and that the server supports TLS 1.2 or 1.3.")
    return Finding(stage, FAILED, f"TLS handshake failed: {reason_of(error)}", "Read the web server's error log.")


def judge_certificate(stage, version, expires, now):
    """expires: None where the certificate's date cannot be read."""
    if expires is None:
        return Finding(stage, OK, f"{plain(version)}, certificate valid")
    days = (expires - now) / 86400
    text = f"{plain(version)}, certificate valid for {days:.0f} days"
    if days >= 14:
        return Finding(stage, OK, text)
    return Finding(stage, WARNING, text, "Renew it (certbot renew, or what renews it here), and reload the web "
                   "server.")


def judge_http2(stage, protocol, response):
    if protocol != "h2":
        return Finding(stage, OK, "not offered: browsers open at most 6 connections to the host")
    if front(response) != "Apache":
        return Finding(stage, OK, "offered")
    return Finding(stage, WARNING, "offered by Apache, whose fresh HTTP/2 connections serve 6 streams and then "
                   "nothing, static files included",
                   "Set Protocols http/1.1 in this <VirtualHost>, share one stream of each kind between tabs "
                   "(contrib/browser), or use nginx.")
