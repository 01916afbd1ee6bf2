# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked wrongly is answered by one sentence, and nothing is changed."""

from __future__ import annotations

import json

import pytest

# Found by the controller alone, all in one run; tests/unit has the rest of what a row can be told.
CLUSTERS = {
    "cluster a: unknown key 'worker'; known are course, cpus, ": {"name": "a", "worker": 3},
    "cluster My_Lab: name: 'My_Lab' can't be a cluster's name; use at most 31 small letters, digits and hyphens, a letter first": {"name": "My_Lab"},
    "cluster b: there is no PC nina in the lab; there are alice, bob, falco": {"name": "b", "pcs": ["bob", "nina"]},
    "cluster c: pcs: the list is empty; name at least one PC, or leave pcs out for all of the Swarm's": {"name": "c", "pcs": []},
    "cluster d: subnet: 10.213.200.0/29 is too small, 3 workers and their master need 10 addresses and it has 8; give a /28 or larger":
        {"name": "d", "subnet": "10.213.200.0/29"},
    "mpi_stack_members: ~/nobody.pub is neither a public ssh key nor a file or folder on this machine": {"name": "e", "members": ["~/nobody.pub"]},
}

MODULE = {
    "image: registry.hpclab.internal:5443/nothing:1 can't be had (": {"image": "registry.hpclab.internal:5443/nothing:1"},
    "ssh_port: 22 is in use on bob; choose another port, or end what listens there": {"ssh_port": 22},
    "ssh_port: 2222 is published on bob by the service mpi_master; choose another port": {"ssh_port": 2222},
    "subnet: 10.213.200.0/29 is too small, 15 workers and their master need ": {"workers": 15, "subnet": "10.213.200.0/29"},
    "user_key: /etc/hpclab/clusters/mpi/user_key.pub is a public key; give the path of the private one, which has the public one beside it as .pub":
        {"user_key": "/etc/hpclab/clusters/mpi/user_key.pub"},
    "memory: '4 gigs' is no size; write a number with k, m or g behind it, for example 4g": {"memory": "4 gigs"},
}


def flat(text):
    """Without the line breaks and quotes that the output's YAML puts in."""
    return " ".join(text.replace("''", "'").replace('\\"', '"').split())


@pytest.fixture(scope="module")
def before(lab):
    return lab.state()


def refused(lab, before, sentences, *options, **variables):
    play = lab.site(*options, **variables)
    assert play.rc != 0, play.gist
    for sentence in sentences:
        assert sentence in flat(play.output), play.gist
    assert play.changed == 0, play.gist
    assert lab.state() == before


def test_clusters(lab, before):
    others = {
        f"{lab.key} is a private key; give the public one that lies beside it (its name ends in .pub)": {"mpi_stack_members": [str(lab.key)]},
        "there is no variant 'suse-openmpi'; there are debian-mpich, debian-openmpi, each also with -base or -latest behind it":
            {"mpi_stack_variant": "suse-openmpi"},
    }
    variables = {name: value for one in others.values() for name, value in one.items()}
    refused(lab, before, [*CLUSTERS, *others], mpi_stack_clusters=list(CLUSTERS.values()), **variables)


def test_lab(lab, before):
    """Found with what the PCs say, all in one run."""
    more = lab.tmp / "more.ini"
    more.write_text("[managers]\nalice\n")
    refused(lab, before, [
        "The group managers has 2 PCs (",
        "bob, alice, falco: swarm_init_address_pool 172.29.0.0/16 overlaps the route to 172.29.",
        "swarm_init_subnet_size: a /30 is too small for 3 PCs: make it /28 or less.",
    ], "-i", more, swarm_init_address_pool="172.29.0.0/16", swarm_init_subnet_size=30)


def test_empty_group(lab, before):
    refused(lab, before, ["The group nobody has no PC: name one of the lab's PCs in it, it will manage the Swarm."], swarm_init_manager_group="nobody")


def test_no_such_choice(lab, before):
    refused(
        lab, before, ["value of swarm_init_docker_source must be one of: distribution, docker, got: snap"], swarm_init_docker_source="snap")


def test_registry(lab, before):
    """Where the manager can't have it, the other PCs are not told of it."""
    refused(lab, before, ["bob: port 22 is in use by sshd; end that, or choose another lab_registry_port or lab_registry_push_port"],
            lab_registry_port=22)


def test_module(lab, before):
    keys = "/etc/hpclab/clusters/mpi"
    image = lab.inspect("service", "mpi_master")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    right = {
        "name": "pi", "image": image, "ssh_port": 2223,
        "user_key": f"{keys}/user_key", "host_key": f"{keys}/host_key", "members": "/etc/hpclab/members/mpi",
    }
    tasks = [{"hpclab.swarm.mpi_stack": {**right, **options}, "ignore_errors": True} for options in MODULE.values()]
    playbook = lab.tmp / "module.yml"
    playbook.write_text(json.dumps([{"hosts": "bob", "gather_facts": False, "become": True, "tasks": tasks}]))
    play = lab.play(playbook)
    assert play.recap("ignored") == len(tasks), play.gist
    for sentence in MODULE:
        assert sentence in flat(play.output), play.gist
    assert play.changed == 0, play.gist
    assert lab.state() == before
