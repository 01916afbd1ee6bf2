# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.hpclab.swarm.plugins.module_utils._hostfile import Host, pc_name, render, slots_of

HOSTS = [Host("10.213.1.10", "falco", 1), Host("10.213.1.9", "bob", 2)]


@pytest.mark.parametrize("dialect, text", [
    ("openmpi", "10.213.1.9 slots=2 # bob\n10.213.1.10 slots=1 # falco\n"),
    ("mpich", "# bob\n10.213.1.9:2\n# falco\n10.213.1.10:1\n"),
])
def test_dialects_are_sorted_by_number(dialect, text):
    assert render(HOSTS, dialect) == text
    assert render([], dialect) == ""


@pytest.mark.parametrize("node, slot, name", [("bob", None, "bob"), ("bob.lab.example", None, "bob"), ("bob.lab.example", 12, "bob-12")])
def test_pc_name_has_no_dots(node, slot, name):
    assert pc_name(node, slot) == name


@pytest.mark.parametrize("env, limit, cores, cpus, slots", [
    (["A=1", "MPI_SLOTS=7"], 2, 4, 8, 7),  # what the service says wins
    ([], None, 4, 8, 4),  # physical cores
    ([], None, None, 8, 8),  # no label: what the engine counts
    ([], 2.9, 4, 8, 2),
    ([], 0.5, 4, 8, 1),
    ([], 16, 4, 8, 4),
    (None, None, 4, 8, 4),
])
def test_slots(env, limit, cores, cpus, slots):
    spec = {"TaskTemplate": {"ContainerSpec": {"Env": env}, "Resources": {"Limits": {"NanoCPUs": int(limit * 10**9)} if limit else {}}}}
    node = {"Description": {"Resources": {"NanoCPUs": cpus * 10**9}}, "Spec": {"Labels": {"hpclab.cores": str(cores)} if cores else {}}}
    assert slots_of(spec, node) == slots
