# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab of one PC."""

from __future__ import annotations

import re

import pytest


def test_home_is_a_volume_that_master_and_worker_share(lab):
    said = lab.student("echo hola >hola && ssh bob cat hola; rm hola")
    assert said.stdout == "hola\n", said.stderr
    for service in ("mpi_master", "mpi_worker"):
        mounts = lab.inspect("service", service)["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"]
        assert [mount["Type"] for mount in mounts if mount["Target"] == "/home/mpiuser"] == ["volume"]


def test_login_message_does_not_warn(lab):
    said = lab.student("", "-tt", "-o", "SetEnv=LANG=en_US.UTF-8", stdin="exit\n")
    assert "Cluster mpi: 1 worker, " in said.stdout
    assert "Careful" not in said.stdout


@pytest.fixture(scope="module")
def installed(lab):
    """The collection, built, and installed in an empty place: runs its site.yml from there, without our ansible.cfg."""
    (lab.tmp / "empty.cfg").touch()
    user = ("env", "-C", lab.tmp, f"ANSIBLE_CONFIG={lab.tmp}/empty.cfg", f"ANSIBLE_COLLECTIONS_PATH={lab.tmp}/collections")
    assert lab.command("ansible-galaxy", "collection", "build", "--output-path", lab.tmp).returncode == 0
    archive, = lab.tmp.glob("hpclab-swarm-*.tar.gz")
    done = lab.command(*user, "ansible-galaxy", "collection", "install", "--no-deps", "-p", lab.tmp / "collections", archive)
    assert done.returncode == 0, done.stderr
    return lambda *options: lab.command(*user, "ansible-playbook", "hpclab.swarm.site", "-i", lab.inventory, *options)


def test_a_second_pc_comes_and_the_home_goes_there(lab, installed):
    lab.student("mkdir -p thesis && echo finished >thesis/text && ln -s thesis/text link")
    lab.change(virtual_lab_pcs=["bob", "alice"])
    done = lab.site(sshfs_storage_host="alice")
    assert done.rc == 0, done.gist
    said = lab.student("mpirun cat thesis/text link")
    assert set(said.stdout.split()) == {"finished"}, said.stderr
    assert set(lab.hello()) == {"bob", "alice"}
    assert lab.pc("alice").file("/srv/hpclab/mpi/mpiuser/thesis/text").content_string == "finished\n"
    # a copy stays behind
    assert "mpi_home" in lab.docker("volume", "ls", "-q").split()
    again = installed("-e", "sshfs_storage_host=alice")
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout
    assert "hello from rank 0" in again.stdout
