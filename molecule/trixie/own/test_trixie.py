# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Another suite, another user, and a proxy."""

from __future__ import annotations


def test_ansible_was_not_root(lab):
    assert "ansible_user=admin" in lab.inventory.read_text()
    refused = lab.command("ansible", "bob", "-i", lab.inventory, "-m", "ansible.builtin.command", "-a", "sudo -n true")
    assert "a password is required" in refused.stdout + refused.stderr


def test_packages_come_through_the_proxy(lab):
    """Those of the image came that way, and what a PC asks its mirror does."""
    lab.pc("alice").check_output("apt-get update")
    log = lab.command("docker", "logs", f"{lab.name}.proxy").stderr.splitlines()
    assert [line for line in log if line.startswith(lab.address("bob")) and "openmpi" in line and ".deb" in line]
    assert [line for line in log if line.startswith(lab.address("alice")) and "InRelease" in line]


def test_docker_knows_the_proxy_and_not_for_the_registry(lab):
    for pc in lab.pcs:
        proxy, no_proxy = lab.docker("info", "-f", "{{.HTTPProxy}} {{.NoProxy}}", pc=pc).split()
        assert proxy == "http://172.29.82.1:3128"
        assert "registry.hpclab.internal" in no_proxy.split(",")


def test_the_registry_was_reached_directly(lab):
    assert "registry.hpclab.internal" not in lab.command("docker", "logs", f"{lab.name}.proxy").stderr


def test_a_new_container_is_asked_each_second(lab):
    """By the service as well: this engine may have a pace of its own for new containers."""
    check = lab.inspect("container", lab.container("alice"), pc="alice")["Config"]["Healthcheck"]
    assert (check["StartInterval"], check["Interval"], check["Test"]) == (10**9, 10**9, ["CMD", "/opt/mpi/mpi-health"])
