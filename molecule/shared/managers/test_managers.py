# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Three managers, of which one may be off: any other than the one that keeps the registry and the clusters' keys."""

from __future__ import annotations


def test_another_manager_is_off(lab):
    lab.change(virtual_lab_stopped=["alice"])
    play = lab.site()
    assert play.rc == 0, play.gist
    assert "off: alice" in play.output
    assert "alice" not in lab.hello()


def test_it_comes_back(lab):
    lab.change()
    assert lab.wait(lambda: lab.hostfile()[1].keys() == set(lab.pcs), 120), lab.hostfile()
    play = lab.site()
    assert play.rc == 0, play.gist
    assert lab.docker("node", "inspect", "-f", "{{.ManagerStatus.Reachability}}", *lab.managers).split() == ["reachable"] * 3
    assert lab.site().changed == 0


def test_the_one_that_keeps_everything_is_off(lab):
    before = lab.docker("service", "ls", "--format", "{{.ID}} {{.Name}}", pc="alice")
    lab.change(virtual_lab_stopped=["bob"])
    try:
        play = lab.site()
        assert play.rc == 2
        assert "bob: is off or not part of this run, and keeps the lab's registry" in play.output, play.gist
        assert play.changed == 0
    finally:
        lab.change()
    assert lab.wait(lambda: lab.container("bob", "mpi_master"), 120)
    assert lab.docker("service", "ls", "--format", "{{.ID}} {{.Name}}", pc="alice") == before
    assert lab.wait(lambda: lab.hostfile()[1].keys() == set(lab.pcs), 120), lab.hostfile()
    assert lab.hello().keys() == set(lab.pcs)
