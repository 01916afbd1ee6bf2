# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A classroom whose PCs have no way out, deployed from the bundle: it works, and nothing has tried."""

from __future__ import annotations

import re

FORGET = "rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*"  # as prepare.yml does: a PC's image has downloaded all


def refused(lab):
    """Packets that a PC has sent out of the lab, by the rule of this machine's engine that drops them."""
    rules = lab.command("iptables", "-vnxL", "DOCKER-ISOLATION-STAGE-1").stdout
    return int(re.search(r"^ *(\d+) +\d+ +DROP .* !172\.29\.91\.0/24 *$", rules, re.M)[1])


def test_nothing_has_tried_the_network(lab):
    assert refused(lab) == 0
    # each would have been counted: to reach an address, to look up a name
    for attempt in ("bash -c '</dev/tcp/192.0.2.1/80'", "getent hosts example.org"):
        before = refused(lab)
        assert lab.pc("bob").run(f"timeout 3 {attempt}").rc != 0
        assert refused(lab) > before, attempt


def test_mpirun_over_both_pcs(lab):
    assert set(lab.hello()) == {"bob", "alice"}


def test_the_home_is_shared_by_the_plugin_of_the_bundle(lab):
    assert "vieux/sshfs:latest" in lab.docker("plugin", "ls", pc="alice")
    said = lab.student("echo hola >hola && mpirun cat hola; rm hola")
    assert set(said.stdout.split()) == {"hola"}, said.stderr


def test_nothing_was_built(lab):
    """What a build leaves behind: its base, and what the image is made of."""
    assert "debian" not in lab.docker("image", "ls", "--format", "{{.Repository}}").split()
    assert not lab.pc("bob").file("/var/lib/hpclab/image").exists


def test_nothing_is_left_of_the_bundle(lab):
    for name in lab.pcs:
        assert not lab.pc(name).file("/var/lib/hpclab/bundle").exists, name
        assert lab.pc(name).check_output("ls /var/lib/apt/lists") == "", name


def test_check_mode_with_nothing_to_do(lab):
    play = lab.site("--check")
    assert (play.rc, play.changed) == (0, 0), play.gist


def test_a_pc_more(lab):
    """It gets its packages from the same bundle. The driver host needs one that no PC has yet."""
    lab.change(virtual_lab_pcs=["bob", "alice", "falco"])
    lab.pc("falco").check_output(FORGET)
    before = refused(lab)
    play = lab.site()
    assert play.rc == 0, play.gist
    assert set(lab.hello()) == {"bob", "alice", "falco"}
    assert refused(lab) == before


def test_another_driver(lab):
    before = refused(lab)
    play = lab.site(sshfs_storage_driver="host")
    assert play.rc == 0, play.gist
    assert set(lab.hello()) == {"bob", "alice", "falco"}
    again = lab.site(sshfs_storage_driver="host")
    assert (again.rc, again.changed) == (0, 0), again.gist
    assert refused(lab) == before
