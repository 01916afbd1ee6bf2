# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shared folder as site.yml leaves it, whatever mounts it: seen from the containers, from the storage PC, and by who should not."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

EXPORT = "/srv/hpclab/mpi/mpiuser"
# Seconds, as docs/storage.md promises
CONTENT_SEEN_WITHIN = 1
LISTING_SEEN_WITHIN = 3


def inside(lab, pc, command, **options):
    done = lab.command(*lab.inside(pc, "sh", "-c", command, **options))
    assert done.returncode == 0, done.stderr
    return done.stdout


def anywhere(lab):
    """All containers of the cluster, as arguments of `inside`."""
    return [{"pc": "bob", "service": "mpi_master"}, *({"pc": pc} for pc in lab.pcs)]


@pytest.fixture(scope="module")
def folder(lab):
    """A folder of this test's in the home; its path in the containers."""
    inside(lab, "bob", "rm -rf ~/test; mkdir ~/test")
    yield "/home/mpiuser/test"
    inside(lab, "bob", "rm -rf ~/test")


# What a student has

def test_home_is_the_shared_folder_everywhere(lab, folder):
    for container in anywhere(lab):
        look = "cat ~/.hpclab/cluster; grep ' /home/mpiuser ' /proc/self/mounts | tail -n 1; id -u; df --output=fstype ~ | tail -n 1"
        said = inside(lab, command=look, **container)
        marker, mount, uid, kind = said.splitlines()
        assert (marker, uid) == ("mpi", "1000")
        assert re.search(r" /home/mpiuser fuse(\.sshfs)? rw,", mount), mount
        assert kind.startswith("fuse")
        name = f"{container.get('service', 'worker')}-{container['pc']}"
        inside(lab, command=f"umask 077; echo {name} >{folder}/{name}", **container)
    seen = inside(lab, "bob", f"cat {folder}/*").split()
    assert len(seen) == len(lab.pcs) + 1
    assert lab.pc("bob").check_output(f"stat -c %U {EXPORT}/test/* | sort -u") == "hpclab-mpi"


def test_cure_of_cancer(lab):
    """The paper's own case."""
    name, source = "cureofcancer.c", f"{EXPORT}/cureofcancer.c"
    lab.pc("bob").check_output(f"echo '/* put on bob */' >{source} && chown hpclab-mpi: {source}")
    assert inside(lab, "alice", f"cat ~/{name}") == "/* put on bob */\n"
    inside(lab, "alice", f"echo '/* changed by alice */' >>~/{name}")
    assert lab.pc("bob").check_output(f"cat {source}") == "/* put on bob */\n/* changed by alice */"
    before = lab.container("alice")
    lab.docker("rm", "-f", before, pc="alice")
    assert lab.wait(lambda: lab.container("alice") not in ("", before), 90)
    assert inside(lab, "alice", f"cat ~/{name}") == "/* put on bob */\n/* changed by alice */\n"
    inside(lab, "alice", f"rm ~/{name}")
    assert not lab.pc("bob").file(source).exists
    assert lab.wait(lambda: set(lab.hostfile()[1]) == set(lab.pcs), 30)


def test_what_the_master_compiles_runs_everywhere_at_once(lab, folder):
    program = r"""
        #include <mpi.h>
        #include <stdio.h>
        int main(int argc, char **argv) { MPI_Init(&argc, &argv); puts("version VERSION"); MPI_Finalize(); }"""
    for version in "ab":  # the second one is as long as the first, and may be as old
        said = lab.student(f"cd {folder} && cat >v.c && mpicc -o v v.c && mpirun ./v", stdin=program.replace("VERSION", version))
        assert said.stdout.splitlines() == [f"version {version}"] * sum(lab.hostfile()[1].values()), said.stderr


# Consistency

LOOK = """
import os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    kind, name, expected = line.split()
    started = time.monotonic()
    while time.monotonic() - started < 30:
        if kind == "listing" and name in os.listdir("."):
            break
        if kind == "content" and os.path.exists(name) and open(name).read() == expected:
            break
        time.sleep(0.01)
    print(time.monotonic() - started, flush=True)
"""
CHANGE = """
import os, sys
print("ready", flush=True)
for line in sys.stdin:
    name, content = line.split()
    with open(name, "w") as file:
        file.write(content)
    print("closed", flush=True)
"""


class Talk:
    """A Python program in a worker's container that answers lines."""

    def __init__(self, lab, pc, folder, program):
        self.process = subprocess.Popen(
            lab.inside(pc, "sh", "-c", f"cd {folder} && exec python3 -I -c \"$0\"", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)


def test_what_is_closed_on_a_pc_is_seen_on_another(lab, folder):
    """New files, files that grow, and files of one length that change within a second, which one has just looked at."""
    other = [pc for pc in lab.pcs if pc != "alice"][-1]
    a, b = Talk(lab, "alice", folder, CHANGE), Talk(lab, other, folder, LOOK)
    content, listing = [], []
    for number in range(10):
        for text in ("first", "other", "longer" * 20_000, "other"):
            a(f"file{number}", text)
            content.append(float(b("content", f"file{number}", text)))
        a(f"new{number}", "text")
        listing.append(float(b("listing", f"new{number}", "-")))
    a.end()
    b.end()
    print(f"content after {max(content):.2f} s at most, listings after {max(listing):.2f} s")
    assert max(content) <= CONTENT_SEEN_WITHIN
    assert max(listing) <= LISTING_SEEN_WITHIN


# MPI-IO: each rank writes its part, by every call that docs/storage.md says can be used; all read all of it, by MPI and without
MPI_IO = """
import sys, time
from mpi4py import MPI
world = MPI.COMM_WORLD
rank, size = world.rank, world.size
BLOCK, BLOCKS = 1009, 200
def part(rank):
    return bytearray([rank + 1]) * (BLOCK * BLOCKS)
for call in sys.argv[2:]:
    file = MPI.File.Open(world, f"io.{call}", MPI.MODE_CREATE | MPI.MODE_RDWR)
    if call.endswith("_at") or call.endswith("_at_all"):
        request = getattr(file, call)(rank * BLOCK * BLOCKS, part(rank))
        if call.startswith("I"):
            request.Wait()
    elif call == "Write_all":  # block by block, in turns
        file.Set_view(rank * BLOCK, MPI.BYTE, MPI.BYTE.Create_vector(BLOCKS, BLOCK, BLOCK * size).Commit())
        file.Write_all(part(rank))
        file.Set_view(0, MPI.BYTE, MPI.BYTE)
    else:
        getattr(file, call)(part(rank))
    file.Sync()
    world.Barrier()
    file.Sync()
    read = bytearray(BLOCK * BLOCKS * size)
    file.Read_at_all(0, read)
    file.Close()
    time.sleep(float(sys.argv[1]))
    plain = open(f"io.{call}", "rb").read()
    blocks = [number for number in range(1, size + 1) for _block in range(BLOCKS)]
    expected = [number for _block in range(BLOCKS) for number in range(1, size + 1)] if call == "Write_all" else blocks
    for how, found in (("MPI", read), ("open", plain)):
        found = [found[start] for start in range(0, len(found), BLOCK)]
        if call == "Write_shared":  # in any order, and there once the file is closed
            found = sorted(found) if how == "open" else expected
        if found != expected:
            sys.exit(f"{call}: rank {rank} does not read by {how} what was written")
"""


def test_mpi_io(lab, folder):
    calls = "Write_at Write_at_all Iwrite_at Write_all Write_ordered Write_shared"
    said = lab.student(f"cd {folder} && cat >io.py && mpirun --map-by node python3 io.py {CONTENT_SEEN_WITHIN} {calls}", stdin=MPI_IO)
    assert said.returncode == 0, said.stderr


# The export

SSH = ("ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o ConnectTimeout=10 "
       "-o UserKnownHostsFile=/etc/hpclab/storage/known_hosts -o StrictHostKeyChecking=yes "
       "-i /etc/hpclab/storage/id_ed25519")

UNCHECKED = SSH.replace("/etc/hpclab/storage/known_hosts", "/dev/null").replace("=yes -i", "=no -i")


def sftp(lab, pc, batch):
    """What a PC's root can do with its key."""
    command = f"{SSH.replace('ssh', 'sftp', 1)} -P 2200 -b - hpclab-mpi@{lab.address('bob')}"
    return lab.command("docker", "exec", "-i", f"{lab.name}-{pc}", "sh", "-c", command, stdin=batch)


def test_account_is_for_sftp_alone(lab):
    bob = lab.pc("bob")
    account = bob.user("hpclab-mpi")
    assert account.shell == "/usr/sbin/nologin"
    assert account.password == "*"  # noqa: S105
    assert account.home == "/srv/hpclab/mpi"
    assert account.groups == ["hpclab-mpi"]
    alice = lab.pc("alice")
    to_export = f"{SSH} -p 2200 hpclab-mpi@{lab.address('bob')}"
    said = alice.run(f"{to_export} id")
    assert "uid=" not in said.stdout
    assert "sftp" in said.stdout
    said = alice.run(f"{to_export} -tt </dev/null")
    assert "PTY allocation request failed" in said.stderr
    said = alice.run(f"{to_export} -W 127.0.0.1:22 </dev/null")
    assert (said.rc, said.stdout) == (255, "")
    assert "SSH-2.0" not in said.stdout
    said = alice.run(f"{to_export} -N -o ExitOnForwardFailure=yes -R 2299:127.0.0.1:22")
    assert said.rc == 255
    # not by the PC's own sshd, and nobody else by this one
    assert "Permission denied" in alice.run(f"{UNCHECKED} -p 22 hpclab-mpi@{lab.address('bob')} id").stderr
    assert "Permission denied" in alice.run(f"{SSH} -p 2200 root@{lab.address('bob')} id").stderr


def test_nobody_leaves_the_folder(lab):
    assert sftp(lab, "alice", "ls -1 /\n").stdout.splitlines()[1:] == ["/mpiuser"]
    for batch in ("ls /etc", "get /etc/passwd /dev/null", "ls /mpiuser/../../../etc", "put /etc/hostname /new", "rename /mpiuser /other",
                  "symlink /etc/passwd /mpiuser/.hpclab/link", "rm /mpiuser/.hpclab/cluster",
                  "put /etc/hostname /mpiuser/.hpclab/cluster", "rmdir /mpiuser/.hpclab"):
        said = sftp(lab, "alice", f"{batch}\n")
        assert said.returncode == 1, (batch, said.stdout, said.stderr)
    # a link that leads out leads nowhere, on a PC too
    sftp(lab, "alice", "symlink /etc/passwd /mpiuser/passwd\n")
    assert sftp(lab, "alice", "get /mpiuser/passwd /dev/null\n").returncode == 1
    sftp(lab, "alice", "rm /mpiuser/passwd\n")


def test_marker_stays(lab):
    said = lab.student("rm -rf ~/.hpclab; echo mine >~/.hpclab/cluster; cat ~/.hpclab/cluster")
    assert said.stdout == "mpi\n"


def test_a_stranger_is_refused(lab):
    alice = lab.pc("alice")
    alice.check_output("rm -f /tmp/stranger; ssh-keygen -q -t ed25519 -N '' -f /tmp/stranger")
    said = alice.run(f"{SSH.rpartition('/etc')[0]}/tmp/stranger -p 2200 hpclab-mpi@{lab.address('bob')} id")
    assert "Permission denied (publickey)" in said.stderr


def test_own_sshd_is_as_it_was(lab):
    bob = lab.pc("bob")
    assert "/etc/" not in bob.run("dpkg --verify openssh-server").stdout
    assert bob.run("grep -rs hpclab /etc/ssh").rc == 1
    assert bob.service("ssh").is_running


def test_keys(lab):
    keys = {}
    for pc in lab.pcs:
        folder, key = lab.pc(pc).file("/etc/hpclab/storage"), lab.pc(pc).file("/etc/hpclab/storage/id_ed25519")
        assert (folder.user, folder.mode) == ("root", 0o700)
        assert (key.user, key.mode) == ("root", 0o600)
        keys[pc] = lab.pc(pc).file("/etc/hpclab/storage/id_ed25519.pub").content_string.split()[1]
        assert keys[pc] in lab.pc(pc).check_output("ssh-keygen -y -f /etc/hpclab/storage/id_ed25519")
    assert len(set(keys.values())) == len(lab.pcs)
    authorized = lab.pc("bob").file("/etc/hpclab/export/keys/hpclab-mpi").content_string
    assert authorized.splitlines() == [f"restrict ssh-ed25519 {keys[pc]} {pc}" for pc in sorted(lab.pcs)]
    pinned = lab.pc("bob").file("/etc/hpclab/export/host_key.pub").content_string.split()[1]
    for pc in lab.pcs:
        assert f"[{lab.address('bob')}]:2200 ssh-ed25519 {pinned}\n" in lab.pc(pc).file("/etc/hpclab/storage/known_hosts").content_string


def test_sixteen_connect_at_once(lab):
    started = time.monotonic()
    connect = f"{SSH.replace('ssh', 'sftp', 1)} -P 2200 -b /dev/null hpclab-mpi@{lab.address('bob')}"
    lab.pc("alice").check_output(f"for n in $(seq 16); do {connect} & pids=\"$pids $!\"; done; "
                                 "for pid in $pids; do wait $pid || exit 1; done")
    print(f"{time.monotonic() - started:.1f} s")
