"""TLS, certificates, and HTTP/2."""

import ssl

from .finding import FAILED, Finding, OK, WARNING
from .proxies import front
from .untrusted import plain

CERTIFICATE = {
    10: "It has expired: renew it, and reload the web server.",
    9: "It is not yet valid: look at the clocks.",
    18: "It is self-signed: give --ca FILE if browsers trust it, else get one from an authority.",
    19: "Its authority is not known here: give --ca FILE if browsers trust it.",
    20: "Its authority is not known here, or an intermediate certificate is not sent (nginx: "
        "ssl_certificate and Apache: SSLCertificateFile take the full chain); --ca FILE for an "
        "authority of your own.",
    21: "The server sends no intermediate certificate: configure the full chain.",
    62: "It is for another name: this host has no virtual host of its own with TLS, or the wrong "
        "certificate.",
    64: "It is for another name: the URL must have the name that is in the certificate, not an address.",
}


def judge_tls_error(stage, error):
    if isinstance(error, ssl.SSLCertVerificationError):
        return Finding(stage, FAILED, f"certificate: {plain(error.verify_message)}",
                       CERTIFICATE.get(error.verify_code, "Browsers refuse it, too: put it right."))
    if isinstance(error, ssl.SSLError):
        return Finding(stage, FAILED, plain(error.reason or error),
                       "Is this the port of https, and does the server have a protocol of today (TLS 1.2 "
                       "or 1.3)?")
    return Finding(stage, FAILED, plain(error), "The connection was lost while TLS began: see the web "
                   "server's error log.")


def judge_certificate(stage, version, expires, now):
    days = (expires - now) / 86400
    text = f"{version}, certificate valid for {days:.0f} days"
    if days >= 14:
        return Finding(stage, OK, text)
    return Finding(stage, WARNING, text, "Renew it: certbot renew, or whatever renews it here; the web "
                   "server has to be reloaded after that.")


def judge_http2(stage, protocol, response):
    if protocol != "h2":
        return Finding(stage, OK, "not offered: browsers open at most 6 connections to the host")
    if front(response) != "Apache":
        return Finding(stage, OK, "offered")
    return Finding(stage, WARNING, "offered by Apache",
                   "A fresh HTTP/2 connection to Apache serves 6 streams and then nothing, static files "
                   "included: say Protocols http/1.1 in this <VirtualHost>, or share one stream of each "
                   "kind between tabs (contrib/browser), or use nginx.")
