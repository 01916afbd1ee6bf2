# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A room changes. The largest change in check mode, for real, and again, where nothing is left to do; what is independent goes together.

The tests build on each other, in this order, and leave a room with a PC more.
"""

from __future__ import annotations

import json
import subprocess
import threading

import pytest

# the second one has several workers on a PC, and its logins on another PC than the manager
WORKERS = 15
BOTH = [{"name": "mpi"}, {"name": "pi", "workers": WORKERS, "master": "alice", "ssh_port": 2223}]
MORE = ["bob", "alice", "falco", "dora"]
PI = {"cluster": "pi", "pc": "alice", "port": 2223}
GONE = {**BOTH[1], "state": "absent"}
EXPORT = "/srv/hpclab"


def converge(lab, **variables):
    """Check mode predicts a change and makes none; the real run makes it; then nothing is left to do."""
    before = lab.state()
    predicted = lab.site("--check", "--diff", **variables)
    assert predicted.rc == 0, predicted.gist
    assert predicted.changed > 0, predicted.gist
    assert lab.state() == before
    done = lab.site("--diff", **variables)
    assert done.rc == 0, done.gist
    assert done.changed > 0, done.gist
    again = lab.site("--check", "--diff", **variables)
    assert (again.rc, again.changed) == (0, 0), again.gist


def tasks(lab, cluster="mpi"):
    return sorted(lab.docker("stack", "ps", cluster, "--filter", "desired-state=running", "-q").split())


def sftp(lab, pc, key="/etc/hpclab/storage/id_ed25519"):
    """What the export says to a PC."""
    return lab.pc(pc).run("sftp -F none -o BatchMode=yes -o UserKnownHostsFile=/etc/hpclab/storage/known_hosts "
                          f"-i {key} -P 2200 -b /dev/null hpclab-mpi@{lab.address('bob')}")


def connections(lab, pc):
    """The PC's connections to the export."""
    return lab.pc("bob").check_output(f"systemctl list-units --plain --no-legend 'hpclab-storage@*-{lab.address(pc)}:*' | wc -l")


@pytest.fixture(scope="module")
def ada(lab):
    """The key of a new member."""
    key = lab.tmp / "ada"
    lab.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", key)
    return key


def test_a_pc_a_second_cluster_and_a_member_come(lab, ada):
    before = tasks(lab)
    assert lab.student("true", key=ada).returncode == 255
    lab.change(virtual_lab_pcs=MORE)
    converge(lab, mpi_stack_clusters=BOTH, mpi_stack_members=[str(lab.keys), f"{ada}.pub"])
    engine = lab.module("mpi_hostfile", "name=pi")
    assert lab.wait(lambda: lab.hostfile(**PI)[0] == engine["text"], 5)
    _text, slots = lab.hostfile(**PI)
    assert len(slots) == WORKERS
    assert set(slots.values()) == {1}
    assert lab.hello(**PI) == slots
    assert engine["slots"] == WORKERS
    # the first one goes on as it was, and knows ada and the PC; the engines may miss one that was too busy to answer them, for up to a minute
    assert lab.wait(lambda: set(lab.hostfile()[1]) == set(MORE), 60)
    assert set(lab.hello(key=ada)) == set(MORE)
    assert set(before) < set(tasks(lab))


def test_clusters_share_nothing(lab):
    keys = [lab.pc("bob").file(f"/etc/hpclab/clusters/{name}/{key}").content_string for name in ("mpi", "pi") for key in ("user_key", "host_key")]
    assert len(set(keys)) == 4
    subnets = [lab.inspect("network", f"{name}_mpi")["IPAM"]["Config"][0]["Subnet"] for name in ("mpi", "pi")]
    assert len(set(subnets)) == 2
    address = lab.module("mpi_hostfile", "name=pi")["hosts"][0]["address"]
    said = lab.student(f"ssh -o ConnectTimeout=3 -o StrictHostKeyChecking=no -i /run/secrets/user_key -p 2222 {address} true")
    assert said.returncode == 255
    said = lab.student("mpirun sh -c 'cat ~/.hpclab/cluster'; echo of pi >~/file; ls -d /home/* /srv/hpclab/* /var/lib/hpclab/homes/* 2>/dev/null", **PI)
    assert set(said.stdout.split()) == {"pi", "/home/mpiuser"}, said.stderr
    assert lab.pc("bob").file(f"{EXPORT}/pi/mpiuser/file").content_string == "of pi\n"
    assert lab.student("cat ~/file").returncode == 1
    # nor does one account the other's on the storage PC
    assert lab.pc("bob").run(f"setpriv --reuid hpclab-pi --regid hpclab-pi --clear-groups ls {EXPORT}/mpi/mpiuser").rc != 0


class Killer(threading.Thread):
    """Kills the next container of mpi_worker that starts on a PC, before it is healthy."""

    def __init__(self, lab, pc):
        super().__init__(daemon=True)
        self.lab, self.pc, self.killed = lab, pc, ""
        self.events = subprocess.Popen(
            ["docker", "exec", f"{lab.name}-{pc}", "timeout", "180", "docker", "events", "--format", "{{.ID}}", "--filter", "event=start",
             "--filter", "label=com.docker.swarm.service.name=mpi_worker"], stdout=subprocess.PIPE, text=True)
        self.start()

    def run(self):
        self.killed = self.lab.docker("kill", self.events.stdout.readline().strip(), pc=self.pc)


def test_a_lost_key_is_made_anew_and_reaches_all_and_a_member_goes(lab, ada):
    """Though a new worker dies at once, whose predecessor Swarm then leaves running. And a cluster that no row names is left alone."""
    others = tasks(lab, "pi")
    killer = Killer(lab, "alice")
    key = "user_key"
    old = lab.pc("bob").file(f"/etc/hpclab/clusters/mpi/{key}.pub").content_string
    lab.pc("bob").check_output(f"rm /etc/hpclab/clusters/mpi/{key}")
    done = lab.site("--diff")
    assert done.rc == 0, done.gist
    assert lab.pc("bob").file(f"/etc/hpclab/clusters/mpi/{key}.pub").content_string != old
    assert killer.killed
    assert len(tasks(lab)) == 1 + len(lab.pcs)
    assert len(lab.docker("secret", "ls", "-q", "--filter", "label=com.docker.stack.namespace=mpi").split()) == 4
    assert set(lab.hello()) == set(lab.pcs)
    assert lab.student("true", key=ada).returncode == 255
    assert tasks(lab, "pi") == others


@pytest.fixture(scope="module")
def without_falco(lab):
    """The room that falco has left: its inventory, the first cluster over the other PCs, and the second one gone."""
    inventory = lab.tmp / "without.ini"
    inventory.write_text("".join(line for line in lab.inventory.read_text().splitlines(True) if not line.startswith("falco ")))
    return {"inventory": inventory, "mpi_stack_clusters": [{"name": "mpi", "pcs": ["bob", "alice", "dora"]}, GONE]}


def test_a_pc_that_leaves_is_locked_out_and_a_removed_cluster_takes_all_but_its_data_with_it(lab, without_falco):
    assert connections(lab, "falco") != "0"
    done = lab.site(**without_falco)
    assert done.rc == 0, done.gist
    bob = lab.pc("bob")
    assert " falco" not in bob.file("/etc/hpclab/export/keys/hpclab-mpi").content_string
    assert lab.wait(lambda: connections(lab, "falco") == "0", 10)
    assert "Permission denied (publickey)" in sftp(lab, "falco").stderr
    assert set(lab.hello()) == {"bob", "alice", "dora"}
    # what was pi's
    for path in ("/etc/hpclab/clusters/pi", "/etc/hpclab/members/pi", "/etc/hpclab/export/keys/hpclab-pi"):
        assert not bob.file(path).exists
    assert bob.file(f"{EXPORT}/pi/mpiuser/file").content_string == "of pi\n"
    for kind in ("service", "secret", "network"):
        assert lab.docker(kind, "ls", "-q", "--filter", "label=com.docker.stack.namespace=pi") == ""
    for pc in ("bob", "alice", "dora"):
        look = "findmnt -l -o TARGET,FSTYPE | grep sshfs | sed 's/.homes.pi/ pi/'; docker volume ls -q | sed 's/^pi_/ pi/'"
        assert " pi" not in lab.pc(pc).check_output(look)


def test_a_pc_is_off(lab, without_falco):
    lab.change(virtual_lab_pcs=MORE, virtual_lab_stopped=["dora"])
    done = lab.site(**without_falco)
    assert done.rc == 0, done.gist
    assert "2 of 3 PCs are on; off: dora" in done.output and "Cluster mpi: 2 workers" in done.output, done.gist
    assert set(lab.hello()) == {"bob", "alice"}
    # Swarm notices after a while, too
    missing, = lab.wait(lambda: lab.module("mpi_hostfile", "name=mpi")["missing"], 30)
    assert missing["pc"] == "dora" and "down" in missing["reason"]


def test_it_comes_back(lab, without_falco):
    lab.change(virtual_lab_pcs=MORE)
    # its worker comes by itself
    assert lab.wait(lambda: set(lab.hostfile()[1]) == {"bob", "alice", "dora"}, 90)
    done = lab.site(**without_falco)
    assert (done.rc, done.changed) == (0, 0), done.gist
    assert set(lab.hello()) == {"bob", "alice", "dora"}


def test_data_goes_when_it_is_named_and_who_left_comes_back_and_all_get_new_keys(lab):
    bob, alice = lab.pc("bob"), lab.pc("alice")
    keys = "/etc/hpclab/export/keys/hpclab-mpi"
    old = bob.file(keys).content_string
    alice.check_output("cp -p /etc/hpclab/storage/id_ed25519 /root/old")
    done = lab.site(mpi_stack_clusters=[{"name": "mpi"}, GONE], sshfs_storage_delete="pi", sshfs_storage_rotate_keys=True)
    assert done.rc == 0, done.gist
    new = bob.file(keys).content_string
    assert len(new.splitlines()) == len(MORE) and not set(old.split()) & set(new.split()) - {"restrict", "ssh-ed25519", *MORE}
    assert "Permission denied (publickey)" in sftp(lab, "alice", "/root/old").stderr
    assert sftp(lab, "alice").rc == 0
    assert not bob.file(f"{EXPORT}/pi").exists
    assert not bob.user("hpclab-pi").exists
    # a new one may lie elsewhere
    assert "pi" not in json.loads(bob.file("/etc/hpclab/record/sshfs_storage.json").content_string)["homes"]
    assert bob.file(f"{EXPORT}/mpi/mpiuser/.hpclab/cluster").exists
    # the connections of before live on; those that follow need the new keys
    bob.check_output("pkill -KILL -u hpclab-mpi")
    assert lab.wait(lambda: set(lab.hostfile()[1]) == set(MORE) and lab.student("mpirun /opt/mpi/mpi-home").returncode == 0, 180)
