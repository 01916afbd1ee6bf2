# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seconds that a folder takes: measure.py FOLDER prints {what: seconds} as JSON. Runs on a PC and in a container alike."""

import json
import os
import subprocess
import sys
import time

MIB = 1024 * 1024
SIZE, FILES, SOURCES = 256, 1000, 8
SOURCE = """#include <mpi.h>
#include <stdio.h>
int part%d(int rank) { int size; MPI_Comm_size(MPI_COMM_WORLD, &size); return rank * size + %d; }
"""
MAIN = """#include <mpi.h>
%s
int main(int argc, char **argv) { MPI_Init(&argc, &argv); int sum = %s; MPI_Finalize(); return sum == 0; }
"""


def forget(path):
    """Next time it is read from the server."""
    with open(path, "rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write(folder):
    block = os.urandom(MIB)
    with open(f"{folder}/big", "wb", buffering=0) as stream:
        for _block in range(SIZE):
            stream.write(block)
        os.fsync(stream.fileno())


def read(folder):
    with open(f"{folder}/big", "rb", buffering=0) as stream:
        while stream.read(MIB):
            pass


def create(folder):
    for number in range(FILES):
        with open(f"{folder}/{number}", "wb") as stream:
            stream.write(b"x" * 1024)


def listed(folder):
    for entry in os.scandir(folder):
        entry.stat()


def read_small(folder):
    for number in range(FILES):
        with open(f"{folder}/{number}", "rb") as stream:
            stream.read()


def delete(folder):
    for number in range(FILES):
        os.unlink(f"{folder}/{number}")


def compiled(folder):
    subprocess.run(["make", "-s", "-C", folder], check=True)


def project(folder):
    parts = range(SOURCES)
    for part in parts:
        with open(f"{folder}/part{part}.c", "w") as stream:
            stream.write(SOURCE % (part, part))
    with open(f"{folder}/main.c", "w") as stream:
        stream.write(MAIN % ("\n".join(f"int part{part}(int);" for part in parts), " + ".join(f"part{part}(1)" for part in parts)))
    with open(f"{folder}/Makefile", "w") as stream:
        stream.write("main: main.o %s\n\tmpicc -o $@ $^\n%%.o: %%.c\n\tmpicc -O2 -c -o $@ $<\n" % " ".join(f"part{part}.o" for part in parts))


def timed(function, folder):
    start = time.monotonic()
    function(folder)
    return round(time.monotonic() - start, 3)


def main():
    base = f"{sys.argv[1]}/measure"
    files, sources = f"{base}/files", f"{base}/sources"
    for folder in (base, files, sources):
        os.mkdir(folder)
    found = {"write": timed(write, base)}
    forget(f"{base}/big")
    found["read"] = timed(read, base)
    found["read again"] = timed(read, base)
    for name, function in {"create": create, "list": listed, "read small": read_small, "delete": delete}.items():
        found[name] = timed(function, files)
    if "mpicc" in sys.argv[2:]:
        project(sources)
        found["mpicc"] = timed(compiled, sources)
    subprocess.run(["rm", "-rf", base], check=True)
    print(json.dumps(found))


main()
