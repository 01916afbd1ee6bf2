# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.hpclab.swarm.plugins.filter.clusters import cluster_findings, public_keys
from ansible_collections.hpclab.swarm.plugins.module_utils import _stack
from ansible_collections.hpclab.swarm.plugins.modules import mpi_stack

SPECS = yaml.safe_load((Path(__file__).parents[4] / "roles/mpi_stack/meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
OPTIONS = SPECS["mpi_stack_clusters"]["options"]
IMAGES = ({"debian-openmpi": {"system": "debian", "mpi": "openmpi", "mpi_from": "distribution"}}, {"debian": "debian:12"}, "debian-openmpi")


def findings(*rows, pcs=("bob", "alice", "falco"), manager="bob"):
    return cluster_findings(list(rows), OPTIONS, list(pcs), manager, *IMAGES)


@pytest.fixture
def keys(tmp_path):
    for name in ("ada", "eva"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name], check=True)
    return tmp_path


def test_nothing_to_say():
    everything = {
        "name": "course-1", "variant": "debian-openmpi", "pcs": ["alice", "falco"], "slots": 2, "master": "alice", "cpus": 1.5, "memory": "4g",
        "shm_size": "2g", "ssh_port": 2223, "placement": ["node.labels.room==b12"], "subnet": "10.213.8.0/24", "environment": {"A": "1"},
        "mounts": [{"source": "data", "target": "/data"}], "grace_period": 0, "timeout": 60, "force": True, "state": "present",
        "mpi_from": "wheel", "packages": ["nano"], "pip": ["numpy"],
    }
    assert set(everything) | {"image", "course", "workers", "members"} == set(OPTIONS)
    assert findings({"name": "mpi"}, everything) == []


@pytest.mark.parametrize(("row", "sentence"), [
    ({"worker": 3}, "unknown key 'worker'; known are course, cpus, environment, "),
    ({"name": "mpi-"}, "name: 'mpi-' can't be a cluster's name"),
    ({"variant": "suse-openmpi"}, "there is no variant 'suse-openmpi'; there are debian-openmpi"),
    ({"pcs": []}, "pcs: the list is empty"),
    ({"pcs": ["nina"]}, "there is no PC nina in the lab; there are alice, bob, falco"),
    ({"master": "nina"}, "there is no PC nina in the lab"),
    ({"pcs": ["bob"], "workers": 3}, "give pcs (one worker on each) or workers (so many anywhere), not both"),
    ({"workers": 0}, "workers: 0 is too little"),
    ({"workers": "many"}, "'many'"),
    ({"ssh_port": 70000}, "ssh_port: 70000 is no TCP port"),
    ({"memory": "4 gigs"}, "memory: '4 gigs' is no size"),
    ({"subnet": "10.213.8.1/24"}, "subnet: '10.213.8.1/24' is no IPv4 network; write it like 10.213.8.0/24"),
    ({"subnet": "10.213.8.0/29"}, "subnet: 10.213.8.0/29 is too small, 3 workers and their master need 10 addresses"),
    ({"mounts": [{"target": "/data"}]}, "missing required arguments: source found in mounts"),
    ({"members": ["nobody.pub"]}, "nobody.pub is neither a public ssh key nor a file or folder"),
    ({"state": "gone"}, "value of state must be one of: present, absent, got: gone"),
])
def test_a_row(row, sentence):
    found = findings({"name": "mpi", **row})
    assert len(found) == 1, found
    assert found[0].startswith(f"cluster {row.get('name', 'mpi')}: ") and sentence in found[0]


@pytest.mark.parametrize(("length", "state", "exported", "fine"), [
    (25, "present", True, True), (26, "present", True, False), (26, "present", False, True), (26, "absent", True, True)])
def test_a_home_that_a_pc_exports_needs_an_account_of_its_name(length, state, exported, fine):
    row = {"name": "m" * length, "state": state}
    found = cluster_findings([row], OPTIONS, ["bob"], "bob", *IMAGES, exported=exported)
    assert found == ([] if fine else [
        f"cluster {row['name']}: name: '{row['name']}' has 26 characters, and on the PC that keeps its shared home its account is "
        f"hpclab-{row['name']}; use at most 25"])


@pytest.mark.parametrize("clusters", [[], "[{'name': 'mpi'}]", [None], None])
def test_no_list_of_rows(clusters):
    found, = cluster_findings(clusters, OPTIONS, ["bob"], "bob", *IMAGES)
    assert "give a list of clusters" in found


def test_rows_together():
    assert findings({"name": "mpi"}, {"name": "mpi", "ssh_port": 2223}) == ["2 clusters are called mpi; give each its own name"]
    assert findings({"name": "mpi"}, {"name": "pi"}) == ["2 clusters want port 2222 of bob for logins; give each its own ssh_port"]
    assert findings({"name": "mpi"}, {"name": "pi", "master": "alice"}) == []
    assert findings({"name": "mpi"}, {"name": "pi", "state": "absent"}) == []  # a cluster that goes needs no port
    overlap, = findings({"name": "mpi", "subnet": "10.213.0.0/16"}, {"name": "pi", "ssh_port": 2223, "subnet": "10.213.9.0/24"})
    assert overlap == "the subnets 10.213.9.0/24 of pi and 10.213.0.0/16 of mpi overlap; give each cluster its own"


def test_public_keys(keys):
    ada, eva = ((keys / f"{name}.pub").read_text().strip() for name in ("ada", "eva"))
    assert public_keys([str(keys / "ada.pub"), ada]) == [ada]
    assert public_keys([str(keys)]) == sorted([ada, eva])
    assert public_keys([]) == []


@pytest.mark.parametrize("member", ["file", "text"])
def test_a_private_key_is_refused_and_not_shown(keys, member):
    private = (keys / "ada").read_text()
    with pytest.raises(AnsibleFilterError, match="is a private key; give the public one") as error:
        public_keys([str(keys / "ada") if member == "file" else private])
    assert private.splitlines()[1] not in str(error.value)


@pytest.mark.parametrize("key", ["ssh-ed25519 AAAA ada", "ssh-rsa", 'command="ls" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=='])
def test_no_public_key(key, tmp_path):
    with pytest.raises(AnsibleFilterError):
        public_keys([key])
    (tmp_path / "a.pub").write_text(key)
    with pytest.raises(AnsibleFilterError, match="is no public ssh key"):
        public_keys([str(tmp_path)])


def test_defaults_are_the_modules():
    documented = yaml.safe_load(mpi_stack.DOCUMENTATION)["options"]
    assert _stack.DEFAULTS == {name: documented[name].get("default") for name in _stack.DEFAULTS}
