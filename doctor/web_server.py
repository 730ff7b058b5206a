# SPDX-License-Identifier: ISC
"""Find the web server on this host that serves the URL, among all that run here.

It is the one that listens on the URL's address and port; its command line names its configuration. A user
who cannot see the sockets of others gets the only nginx or Apache that runs, or none.
"""

import fnmatch
import getopt
import glob
import os
from dataclasses import dataclass, field

from .apache import read_apache
from .nginx import nginx_files, read_nginx
from .procfs import (
    directory_of, holders_of, in_container, listening_inodes, name_of, output_of, parent_of, processes, read,
    words_of)

KINDS = {"nginx": "nginx", "apache2": "Apache", "httpd": "Apache"}
OPTIONS = {"nginx": "?hvVtTqs:p:e:c:g:", "Apache": "D:C:c:xXd:Ff:vVlLtTSMh?k:e:E:n:iuw"}
NGINX_TITLE = "nginx: master process "


@dataclass
class WebServer:
    kind: str = ""                                  # nginx, Apache, or "" where none was found
    pid: int = None                                 # of the main process
    workers: list = field(default_factory=list)
    reason: str = ""                                # why this one, or why none
    path: str = ""                                  # of its configuration
    directives: list = None                         # None: it cannot be read

    def options(self):
        """The options on its command line that name files, as {letter: value}."""
        words = words_of(self.pid)
        if words[0].startswith(NGINX_TITLE):
            # The title joins the words with spaces.
            words = words[0][len(NGINX_TITLE):].split()
        try:
            found, _ = getopt.gnu_getopt(words[1:], OPTIONS[self.kind])
        except getopt.GetoptError:
            return {}
        return {name[1:]: value for name, value in found if name[1:] in ("p", "c", "d", "f")}


def main_processes(pids):
    """Those whose parent is not one of them, as {pid: its children}."""
    parents = {pid: parent_of(pid) for pid in pids}
    return {pid: [child for child, parent in parents.items() if parent == pid]
            for pid, parent in parents.items() if parent not in parents}


def find_web_server(addresses, port, kind):
    """kind: what the Server header says, "" where it says nothing."""
    where = f"port {port}"
    holders = holders_of(listening_inodes(addresses, port))
    servers = [pid for pid in holders if name_of(pid) in KINDS]
    if servers:
        mains = main_processes(processes(*KINDS))
        found = {pid: workers for pid, workers in mains.items() if pid in servers or set(workers) & set(servers)}
        if len(found) == 1:
            (pid, workers), = found.items()
            return WebServer(KINDS[name_of(pid)], pid, workers, f"listens on {where}")
        return WebServer(reason=f"several web servers listen on {where}: pid " + ", ".join(map(str, found)))
    listener = f"{name_of(holders[0])} (pid {holders[0]}) listens on {where}" if holders else \
        f"who listens on {where} cannot be seen (root can)"
    found = {pid: workers for pid, workers in main_processes(processes(*KINDS)).items()
             if KINDS[name_of(pid)] == kind}
    if len(found) == 1:
        (pid, workers), = found.items()
        return WebServer(kind, pid, workers, f"the only one here; {listener}")
    return WebServer(reason=f"{listener}, and {len(found)} {kind or 'known web servers'} run here")


def read_nginx_file(path):
    """A configuration by its main file; includes are relative to its directory."""
    text = read(path)
    return None if text is None else read_nginx(text, lambda name: [
        read(found) or "" for found in sorted(glob.glob(os.path.join(os.path.dirname(path), name)))])


def nginx_configuration(server):
    """(where it is, its directives or None)"""
    options = server.options()
    if in_container(server.pid):
        return "its container", None
    if "c" in options:
        path = os.path.join(directory_of(server.pid), options.get("p", ""), options["c"])
        return path, read_nginx_file(path)
    words = ["-p", os.path.join(directory_of(server.pid), options["p"])] if "p" in options else []
    files = nginx_files(output_of("nginx", *words, "-T"))
    if not files:
        path = os.path.join(words[1] if words else "/etc/nginx", "nginx.conf")
        return path, read_nginx_file(path)
    main = next(iter(files))
    return main, read_nginx(files[main], lambda name: [
        text for path, text in files.items()
        if fnmatch.fnmatch(path, os.path.join(os.path.dirname(main), name))])


def read_apache_file(path, base=None):
    """A configuration by its main file; includes are relative to base, the ServerRoot."""
    text = read(path)
    return None if text is None else read_apache(text, base or os.path.dirname(path))


def apache_configuration(server):
    """(where it is, its directives or None)"""
    options = server.options()
    if in_container(server.pid):
        return "its container", None
    if not options:
        text = output_of("apachectl", "-t", "-D", "DUMP_CONFIG")
        if text:
            return "apachectl -t -D DUMP_CONFIG", read_apache(text, "/etc/apache2")
    root = os.path.join(directory_of(server.pid), options.get("d", "/etc/apache2"))
    path = os.path.join(root, options.get("f", "apache2.conf"))
    return path, read_apache_file(path, root)
