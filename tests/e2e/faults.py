# SPDX-License-Identifier: ISC
"""Makes library calls of the daemon fail: compiles faults.c, a preloaded library, and selects the calls."""

import errno
import mmap
import os
import shutil
import struct
import subprocess

FUNCTIONS = ("malloc calloc realloc pthread_create accept4 socket connect send recv read write poll ppoll "
             "sendmsg socketpair eventfd setsockopt ioctl open").split()
ERRORS = {"malloc": "ENOMEM", "calloc": "ENOMEM", "realloc": "ENOMEM", "pthread_create": "EAGAIN",
          "accept4": "EMFILE", "socket": "EMFILE", "connect": "ECONNREFUSED", "send": "ENOBUFS",
          "recv": "ENOMEM", "read": "EIO", "write": "EIO", "poll": "ENOMEM", "ppoll": "ENOMEM",
          "sendmsg": "ENOBUFS", "socketpair": "EMFILE", "eventfd": "EMFILE", "setsockopt": "EINVAL", "ioctl": "EINVAL",
          "open": "EMFILE"}


class Faults:
    """The library, and the shared file that selects which calls fail."""

    def __init__(self, directory):
        self.library = os.path.join(directory, "faults.so")
        source = os.path.join(os.path.dirname(__file__), "faults.c")
        subprocess.run([shutil.which("gcc") or "cc", "-shared", "-fPIC", "-O1", "-o", self.library, source,
                        "-ldl"], check=True)
        self.path = os.path.join(directory, "faults")
        with open(self.path, "wb") as file:
            file.write(struct.pack("<6i", -1, 0, 0, 0, 0, 0) + bytes(4 * len(FUNCTIONS)))
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": self.library, "FAULTS_CONTROL": self.path}

    def _get(self, position):
        return struct.unpack_from("<i", self.memory, 4 * position)[0]

    @property
    def failed(self):
        return self._get(3)

    def calls(self, function):
        return self._get(6 + FUNCTIONS.index(function))

    def arm(self, function, countdown=1, repeated=0):
        """Makes the call number countdown from now fail, and the next repeated calls. Writes the function last, because
        that arms the library."""
        struct.pack_into("<4i", self.memory, 4, countdown, getattr(errno, ERRORS[function]), 0, repeated)
        struct.pack_into("<i", self.memory, 0, FUNCTIONS.index(function))

    def set_clock_back(self, seconds):
        """Sets the daemon's wall clock back; the monotonic clock is unchanged."""
        struct.pack_into("<i", self.memory, 20, seconds)

    def disarm(self):
        struct.pack_into("<i", self.memory, 0, -1)
