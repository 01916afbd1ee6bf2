# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked wrongly is answered by one sentence, and nothing is changed."""

from __future__ import annotations

import json

import pytest

# tests/unit has the rest of what a row can be told
CLUSTERS = {
    "unknown key": ({"name": "mpi", "worker": 3}, "cluster mpi: unknown key 'worker'; known are cpus, "),
    "name": (
        {"name": "My_Lab"},
        "cluster My_Lab: name: 'My_Lab' can't be a cluster's name; use at most 31 small letters, digits and hyphens, a letter first"),
    "unknown PC": ({"name": "mpi", "pcs": ["bob", "nina"]}, "cluster mpi: there is no PC nina in the lab; there are alice, bob, falco"),
    "no PC": ({"name": "mpi", "pcs": []}, "cluster mpi: pcs: the list is empty; name at least one PC, or leave pcs out for all of the Swarm's"),
    "subnet": (
        {"name": "mpi", "subnet": "10.213.200.0/29"},
        "cluster mpi: subnet: 10.213.200.0/29 is too small, 3 workers and their master need 10 addresses and it has 8; give a /28 or larger"),
}

VARIABLES = {
    "no clusters": ({"mpi_stack_clusters": []}, "mpi_stack_clusters is []; give a list of clusters, at least [{name: mpi}]"),
    "no member": ({"mpi_stack_members": ["~/nobody.pub"]}, "mpi_stack_members: ~/nobody.pub is neither a public ssh key nor a file or folder on this machine"),
    "two variants": ({"mpi_stack_variant": "suse-openmpi"}, "mpi_stack_variant: there is no variant suse-openmpi; there are debian-openmpi"),
    "no subnet": ({"swarm_init_address_pool": "10.213.0.0"}, "swarm_init_address_pool: 10.213.0.0 is not an IPv4 network: write one like 10.213.0.0/16."),
    "pool on the LAN": ({"swarm_init_address_pool": "172.29.0.0/16"}, "bob, alice, falco: swarm_init_address_pool 172.29.0.0/16 overlaps the route to 172.29."),
    "networks too small": ({"swarm_init_subnet_size": 30}, "swarm_init_subnet_size: a /30 is too small for 3 PCs: make it /28 or less."),
    "source": ({"swarm_init_docker_source": "snap"}, "value of swarm_init_docker_source must be one of: distribution, docker, got: snap"),
    "empty group": ({"swarm_init_manager_group": "nobody"}, "The group nobody has no PC: name one of the lab's PCs in it, it will manage the Swarm."),
}

MODULE = {
    "image": ({"image": "registry.hpclab.internal:5443/nothing:1"}, "image: registry.hpclab.internal:5443/nothing:1 can't be had ("),
    "port in use": ({"ssh_port": 22}, "ssh_port: 22 is in use on bob; choose another port, or end what listens there"),
    "port of a cluster": ({"ssh_port": 2222}, "ssh_port: 2222 is published on bob by the service mpi_master; choose another port"),
    "subnet too small": ({"workers": 15, "subnet": "10.213.200.0/29"}, "subnet: 10.213.200.0/29 is too small, 15 workers and their master need "),
    "public as private": (
        {"user_key": "/etc/hpclab/clusters/mpi/user_key.pub"},
        "user_key: /etc/hpclab/clusters/mpi/user_key.pub is a public key; give the path of the private one, which has the public one beside it as .pub"),
    "memory": ({"memory": "4 gigs"}, "memory: '4 gigs' is no size; write a number with k, m or g behind it, for example 4g"),
}


def flat(text):
    """Without the line breaks and quotes that the output's YAML puts in."""
    return " ".join(text.replace("''", "'").replace('\\"', '"').split())


@pytest.fixture(scope="module")
def before(lab):
    return lab.state()


def refused(lab, before, sentence, *options, **variables):
    play = lab.site(*options, **variables)
    assert play.rc != 0, play.output
    assert sentence in flat(play.output), play.output
    assert play.changed == 0, play.output
    assert lab.state() == before


@pytest.mark.parametrize(("row", "sentence"), CLUSTERS.values(), ids=CLUSTERS)
def test_cluster(lab, before, row, sentence):
    refused(lab, before, sentence, mpi_stack_clusters=[row])


@pytest.mark.parametrize(("variables", "sentence"), VARIABLES.values(), ids=VARIABLES)
def test_variables(lab, before, variables, sentence):
    refused(lab, before, sentence, **variables)


def test_private_key_as_member(lab, before):
    refused(lab, before, f"{lab.key} is a private key; give the public one that lies beside it (its name ends in .pub)", mpi_stack_members=[str(lab.key)])


def test_two_managers(lab, before):
    more = lab.tmp / "more.ini"
    more.write_text("[managers]\nalice\n")
    refused(lab, before, "The group managers has 2 PCs (", "-i", more)


@pytest.mark.parametrize(("options", "sentence"), MODULE.values(), ids=MODULE)
def test_module(lab, before, options, sentence):
    keys = "/etc/hpclab/clusters/mpi"
    image = lab.inspect("service", "mpi_master")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    right = {
        "name": "pi", "image": image, "ssh_port": 2223,
        "user_key": f"{keys}/user_key", "host_key": f"{keys}/host_key", "members": "/etc/hpclab/members/mpi",
    }
    done = lab.command(
        "ansible", "bob", "-i", lab.inventory, "-b", "-m", "hpclab.swarm.mpi_stack", "-a", json.dumps({**right, **options}))
    assert done.returncode != 0, done.stdout
    assert sentence in flat(done.stdout + done.stderr), done.stdout + done.stderr
    assert lab.state() == before
