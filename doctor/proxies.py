"""What stands between: who has answered, and who holds bytes back."""

from .untrusted import plain


def front(response):
    """"nginx", "Apache" or "", by the Server header."""
    server = response.header("server").lower() if response else ""
    return "nginx" if "nginx" in server or "openresty" in server else \
        "Apache" if "apache" in server else ""


def between(response):
    """Who has answered, as far as headers tell."""
    names = [response.header("server")]
    names += ["Cloudflare"] if response.header("cf-ray") else []
    names += [f"Via: {response.header('via')}"] if response.header("via") else []
    names += ["CloudFront"] if response.header("x-amz-cf-id") else []
    return plain(", ".join(filter(None, names))) or "a server without a name"


IN_FRONT = (
    "Another proxy in front: nginx: proxy_buffering off; (contrib/nginx/tpi-stream-proxy.conf); "
    "ingress-nginx: the annotation proxy-buffering: 'off'; a CDN: no caching and no compression for "
    "both paths.")


def buffer_remedy(response, probe):
    """Who holds bytes back? response has come so far; probe is a complete answer the same way."""
    coding = response.header("content-encoding")
    if coding:
        return (f"It is compressed ({plain(coding)}), and a compressor collects. nginx: gzip off; in "
                "both locations, and text/event-stream not in gzip_types. Apache: SetEnv no-gzip 1 and "
                "SetEnv no-brotli 1 as in contrib/apache/tpi-stream.conf.")
    name = front(response) or front(probe)
    if name == "Apache":
        return ("Apache: flushpackets=on at the ProxyPass of the two paths, as in "
                "contrib/apache/tpi-stream.conf; without it nothing arrives, not even the headers. "
                "No SetOutputFilter DEFLATE there. " + IN_FRONT)
    if name == "nginx":
        return ("nginx that asks tpi-streamd: fastcgi_buffering off; and no fastcgi_ignore_headers "
                "X-Accel-Buffering, as in contrib/nginx/tpi-stream-fastcgi.conf. nginx in front of "
                "another web server: proxy_buffering off; as in contrib/nginx/tpi-stream-proxy.conf "
                "(ingress-nginx: the annotation proxy-buffering: 'off').")
    stripped = "" if response.header("x-accel-buffering") or response.status is None else \
        "X-Accel-Buffering has been stripped on the way (nginx: fastcgi_pass_header " \
        "X-Accel-Buffering). "
    return ("Switch buffering off for both paths. " + stripped + "Apache: flushpackets=on at the "
            "ProxyPass. nginx: fastcgi_buffering off. " + IN_FRONT)
