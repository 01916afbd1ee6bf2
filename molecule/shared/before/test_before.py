# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PCs that never saw the collection: check mode goes through, says what it would do, and does nothing of it."""

from __future__ import annotations


def test_check_mode_predicts_and_changes_nothing(lab):
    play = lab.site("--check")
    assert play.rc == 0, play.gist
    assert play.changed >= len(lab.pcs)
    for name in lab.pcs:
        pc = lab.pc(name)
        assert not pc.exists("docker"), name
        assert not pc.file("/etc/hpclab").exists, name
        assert not pc.file("/var/lib/hpclab").exists, name
