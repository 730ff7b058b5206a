# SPDX-License-Identifier: ISC
"""The servers on the way: which one answered, and which one holds bytes back."""

from .untrusted import plain


def front(response):
    """"nginx", "Apache" or "", by the Server header."""
    server = response.header("server").lower() if response else ""
    return "nginx" if "nginx" in server or "openresty" in server else \
        "Apache" if "apache" in server else ""


def between(response):
    """Who answered, as far as the headers show."""
    names = [response.header("server")]
    names += ["Cloudflare"] if response.header("cf-ray") else []
    names += [f"Via: {response.header('via')}"] if response.header("via") else []
    names += ["CloudFront"] if response.header("x-amz-cf-id") else []
    return plain(", ".join(filter(None, names))) or "an unnamed server"


IN_FRONT = (
    "Any other proxy in front: disable buffering, caching and compression for the streams. nginx: "
    "proxy_buffering off; (contrib/nginx/tpi-stream-proxy.conf); ingress-nginx: the annotation "
    "proxy-buffering: 'off'.")


def buffer_remedy(response, probe):
    """How to stop the buffering. response has arrived so far; probe is a complete answer from the same server."""
    coding = response.header("content-encoding")
    if coding:
        return (f"Disable compression for the streams ({plain(coding)}): a compressor waits for more data. nginx: "
                "gzip off; in their location, and no text/event-stream in gzip_types. Apache: SetEnv no-gzip 1 "
                "and SetEnv no-brotli 1, as in contrib/apache/tpi-stream.conf.")
    name = front(response) or front(probe)
    if name == "Apache":
        return ("Apache: set flushpackets=on in the ProxyPass of the streams, as in "
                "contrib/apache/tpi-stream.conf; without it nothing arrives, not even the headers. Remove "
                "SetOutputFilter DEFLATE there. " + IN_FRONT)
    if name == "nginx":
        return ("nginx in front of tpi-streamd: set fastcgi_buffering off; and remove fastcgi_ignore_headers "
                "X-Accel-Buffering, as in contrib/nginx/tpi-stream-fastcgi.conf. nginx in front of another web "
                "server: set proxy_buffering off; as in contrib/nginx/tpi-stream-proxy.conf (ingress-nginx: the "
                "annotation proxy-buffering: 'off').")
    stripped = "" if response.header("x-accel-buffering") or response.status is None else \
        "X-Accel-Buffering was stripped on the way (nginx: fastcgi_pass_header X-Accel-Buffering). "
    return ("Disable buffering for the streams. " + stripped + "Apache: flushpackets=on in the ProxyPass. nginx: "
            "fastcgi_buffering off. " + IN_FRONT)
