# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program of a student's that saves, and says what it has saved: one line for each thing, once its fsync and close returned.

It is carried into a cluster's container, and ends when its standard input does. Usage:
  writer.py big PATH MIB SECONDS   one file, a MiB at a time; says how many, then `whole`
  writer.py records FOLDER NAME    file after file, lines in a log, a state that is replaced, until it is ended
What fails is said as `error NAME`; big gives up then, records tries again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sys
import threading
import time

MIB = 2**20


def content(name, size):
    """Bytes that only this name has."""
    return (hashlib.sha256(name.encode()).digest() * (size // 32 + 1))[:size]


def record(name, number):
    """Of all sizes up to 100 kB."""
    return content(f"{name}-{number}", 1 + number * 7919 % 100_000)


def save(path, data, mode="wb"):
    os.makedirs(os.path.dirname(path), exist_ok=True)  # as who has to, and would in the wrong place
    with open(path, mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def say(*words):
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def big(path, mib, seconds):
    try:
        with open(path, "wb") as file:
            for number in range(1, int(mib) + 1):
                file.write(content(f"{os.path.basename(path)}-{number}", MIB))
                say(number)
                time.sleep(float(seconds) / int(mib))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        say("error", errno.errorcode[error.errno])
    else:
        say("whole")


def records(folder, name):
    number = 0
    while True:
        number += 1
        steps = {
            "file": lambda: save(f"{folder}/{name}-{number}", record(name, number)),
            "line": lambda: save(f"{folder}/{name}.log", b"\n%d\n" % number, "ab"),  # a line of its own behind half a one
            "part": lambda: save(f"{folder}/{name}.part", b"%d" % number),
            "state": lambda: os.rename(f"{folder}/{name}.part", f"{folder}/{name}.state"),
        }
        while steps:
            what = next(iter(steps))
            try:
                steps[what]()
            except OSError as error:
                say("error", errno.errorcode[error.errno])
                time.sleep(0.3)
                # the connection that took the rename may have been lost before its answer
                if what == "state":
                    steps = {"part": lambda: save(f"{folder}/{name}.part", b"%d" % number), **steps}
            else:
                say(what, name, number)
                del steps[what]
        time.sleep(0.05)


def end_with_stdin():
    """Whoever started this is gone, or has enough of it."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    {"big": big, "records": records}[sys.argv[1]](*sys.argv[2:])
