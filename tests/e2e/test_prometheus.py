# SPDX-License-Identifier: ISC
"""contrib/prometheus with a real Prometheus, which scrapes a daemon with traffic through nginx."""

import json
import os
import re
import subprocess
import urllib.parse
import urllib.request

import pytest

import chart
from answers import notification
from application import ANN, page
from fcgi import NOTIFICATIONS
from fronts import CONTRIB, Nginx, installed, open_directory, read, substitute, write
from servers import Process, free_port, http, user_channel
from timing import eventually, scaled

pytestmark = pytest.mark.slow

PROMETHEUS = f"{CONTRIB}/prometheus"
INTERVAL = 1


class Prometheus(Process):
    """With scrape.yml and alerts.yml, scraping one target over plain HTTP every second."""

    def __init__(self, rundir, target):
        directory = open_directory(rundir, "prometheus-")
        self.url = "http://127.0.0.1:%d" % free_port()
        config = write(os.path.join(directory, "prometheus.yml"), substitute(read(f"{PROMETHEUS}/scrape.yml"), {
            "interval: 15s": f"interval: {INTERVAL}s", "scheme: https": "scheme: http",
            "alerts.yml": f"{PROMETHEUS}/alerts.yml",
            "web1.example.org, web2.example.org": "127.0.0.1:%d" % target[1]}))
        super().__init__("prometheus", [
            installed("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={self.url.removeprefix('http://')}"])

    def ask(self, path, **parameters):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=scaled(20)) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, text):
        """The series of an instant query."""
        return self.ask("query", query=text)["result"]

    def scrapes(self):
        """How many scrapes have succeeded, or 0 while it does not respond yet."""
        assert self.alive, self.log()
        try:
            return sum(float(series["value"][1]) for series in self.query("sum_over_time(up[1h])"))
        except OSError:
            return 0

    def log(self):
        return self.stderr


def queries():
    """(panel, query) of the dashboard, with the values that Grafana inserts for all jobs and instances."""
    with open(f"{PROMETHEUS}/dashboard.json", encoding="utf-8") as file:
        for panel in json.load(file)["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "1m")
                yield panel["title"], re.sub(r"\$(job|instance)", ".*", text)


def test_every_query(with_app, valkey, rundir):
    """Every query of the dashboard has data, and Prometheus evaluates every alert."""
    _, daemon = with_app(["--mode", "0666"], TPI_STATUS="on")
    front = Nginx(rundir, daemon.address, auth="app", site="include tpi-stream/tpi-stream-status.conf;")
    prometheus = Prometheus(rundir, front.address)
    try:
        with http(front.address, NOTIFICATIONS, **page(ANN)) as peer:
            peer.wait_live(20)
            with http(front.address, NOTIFICATIONS) as refused:
                assert refused.wait(lambda p: p.ended, what="a whole answer").status == 401
            # Wake-ups between two scrapes, so that no rate is 0 / 0.
            eventually(lambda: prometheus.scrapes() >= 1, 30, what="the first scrape")
            valkey.publish(user_channel("ann"), notification(1))
            peer.wait_body(b'"notification"')
            wanted = prometheus.scrapes() + 3
            eventually(lambda: prometheus.scrapes() >= wanted, 30, what="some scrapes")
            empty = [(panel, text) for panel, text in queries() if not prometheus.query(text)]
            assert not empty
            nan = [panel for panel, text in queries()
                   if any(series["value"][1] == "NaN" for series in prometheus.query(text))]
            assert not nan
        group, = prometheus.ask("rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} == {"ok"}, group
        # What does fire is what the test did: nothing.
        assert not [alert for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"]
    finally:
        prometheus.kill()
        front.kill()


def test_dashboard_schema():
    """The dashboard has the form that Grafana's own schema requires: no field is unknown or missing."""
    done = subprocess.run([chart.require("grafana-dashboard"), f"{PROMETHEUS}/dashboard.json"], capture_output=True,
                          text=True, timeout=scaled(60), check=False)
    assert done.returncode == 0, done.stderr
