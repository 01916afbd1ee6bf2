# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.hpclab.swarm.plugins.module_utils import _stack
from ansible_collections.hpclab.swarm.plugins.modules import mpi_hostfile

PARAMS = {
    "name": "lab", "image": "img:1", "pcs": None, "workers": None, "slots": None, "master": None, "cpus": None, "memory": None, "shm_size": "1g",
    "ssh_port": 2222, "members": None, "placement": [], "subnet": "10.9.0.0/24", "mtu": None, "mounts": [], "environment": {}, "grace_period": 60,
}


def deploy(swarm, **changes):
    room = _stack.Room(swarm.nodes(), "bob", [], [], 24)
    want = _stack.wanted(dict(PARAMS, **changes), room, {}, "10.9.0.0/24")
    for name, definition in want["network"].items():
        swarm.create_network(name, definition)
    for pc in want["pc"]:
        swarm.label_node("id-" + pc, "hpclab.cluster.lab", "true")
    for spec in want["service"].values():
        swarm.create_service(spec)
    swarm.changes.clear()


@pytest.fixture
def hostfile(run, swarm):
    def run_hostfile(check=False, **args):
        return run(mpi_hostfile, dict({"name": "lab"}, **args), check)
    return run_hostfile


def test_data_and_text(swarm, hostfile):
    deploy(swarm)
    result = hostfile()
    assert [(host["pc"], host["slots"]) for host in result["hosts"]] == [("bob", 2), ("alice", 4), ("falco", 4)]
    addresses = [host["address"] for host in result["hosts"]]
    assert result["text"] == "{0} slots=2 # bob\n{1} slots=4 # alice\n{2} slots=4 # falco\n".format(*addresses)
    assert (result["slots"], result["missing"], result["changed"], swarm.changes) == (10, [], False, [])
    assert hostfile(dialect="mpich")["text"].splitlines()[:2] == ["# bob", "{0}:2".format(addresses[0])]


def test_numbered_where_a_pc_has_several(swarm, hostfile):
    deploy(swarm, workers=4)
    assert [(host["pc"], host["slots"]) for host in hostfile()["hosts"]] == [("bob-1", 1), ("alice-2", 1), ("falco-3", 1), ("bob-4", 1)]


# {change, none} x {real, check}

@pytest.mark.parametrize("before", [None, "10.9.0.1 slots=1 # gone\n"])
def test_file_four_ways(swarm, hostfile, tmp_path, before):
    deploy(swarm)
    path = tmp_path / "hosts"
    if before:
        path.write_text(before)
    predicted = hostfile(check=True, path=str(path), mode="0640")
    assert predicted["changed"] and (path.read_text() if before else not path.exists()) in (before, True)
    done = hostfile(path=str(path), mode="0640")
    assert done["changed"] and done["diff"] == predicted["diff"]
    assert done["diff"]["before"] == (before or "") and done["diff"]["after"] == path.read_text() == done["text"]
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["hosts"]
    inode = path.stat().st_ino
    for check in (False, True):
        assert not hostfile(check=check, path=str(path), mode="0640")["changed"]
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("check", [True, False])
def test_mode_alone(swarm, hostfile, tmp_path, check):
    deploy(swarm)
    path = tmp_path / "hosts"
    hostfile(path=str(path), mode="0600")
    assert hostfile(check=check, path=str(path), mode="0644")["changed"]
    assert path.stat().st_mode & 0o777 == (0o600 if check else 0o644)


# waiting

def test_waits_for_the_expected(swarm, hostfile, clock):
    deploy(swarm)
    assert len(hostfile(expected=3)["hosts"]) == 3 and clock.seconds == 0


def test_says_who_is_missing(swarm, hostfile, clock, tmp_path):
    swarm._nodes[2]["Status"]["State"] = "down"
    swarm.problems = {"SICK": "No such image: img:1"}
    deploy(swarm, environment={"SICK": "1"})
    result = hostfile(expected=3, timeout=5, path=str(tmp_path / "hosts"))
    assert result["msg"] == (
        "lab has 0 of 3 workers after 5 s; alice: image img:1 not found (No such image: img:1); "
        "bob: image img:1 not found (No such image: img:1); falco: the PC is down")
    assert result["missing"][2] == {"pc": "falco", "reason": "the PC is down"}
    assert result["failed"] and clock.seconds == 5 and os.listdir(tmp_path) == []


def test_check_mode_waits_for_nobody(swarm, hostfile, clock):
    deploy(swarm)
    assert not hostfile(check=True, expected=9)["changed"] and clock.seconds == 0


def test_a_cluster_still_to_be_made(swarm, hostfile, tmp_path):
    result = hostfile(check=True, path=str(tmp_path / "hosts"))
    assert result["changed"] and result["hosts"] == [] and os.listdir(tmp_path) == []


@pytest.mark.parametrize("args, sentence", [
    ({"name": "lub"}, "name: there is no cluster lub; choose one of lab"),
    ({"expected": 0}, "expected: 0 is too little; give 1 or more, or leave it out"),
    ({"path": "/"}, "path: / can't be a file; give one in a directory that exists"),
    ({"path": "/nowhere/hosts"}, "path: /nowhere/hosts can't be a file; give one in a directory that exists"),
])
def test_bad_input(swarm, hostfile, args, sentence):
    deploy(swarm)
    assert hostfile(**args)["msg"] == sentence


def test_no_cluster_at_all(hostfile):
    assert hostfile()["msg"] == "name: there is no cluster lab; make one with mpi_stack first"
