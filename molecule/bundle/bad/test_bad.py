# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bundles that are no good, or not for this classroom: refused in one sentence, and the PCs stay as they were."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

LINE = 86  # the last one: the hash of all before it


@pytest.fixture(scope="module")
def good(lab):
    return Path(yaml.safe_load((Path(__file__).parents[1] / "lab.yml").read_text())["bundle"].replace(
        "{{ '~/.local/share/hpclab.swarm' | expanduser }}", str(lab.keys.parent)))


@pytest.fixture
def file(lab, good):
    """A copy, to be spoilt."""
    copy = lab.tmp / "room.tar"
    shutil.copy(good, copy)
    yield copy
    copy.unlink()


def refused(lab, file, sentence, **variables):
    play = lab.site(bundle=str(file), **variables)
    assert play.rc != 0, play.gist
    assert play.changed == 0, play.gist
    assert " ".join(sentence.split()) in " ".join(play.output.split()), play.gist
    for name in lab.pcs:
        assert not lab.pc(name).exists("docker"), name
        assert not lab.pc(name).file("/var/lib/hpclab").exists, name


def test_a_flipped_byte(lab, file):
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))
    refused(lab, file, f"bundle: {file} is damaged, it is not what it was when it was made (sha256); copy it again")


def test_cut_short(lab, file):
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 100000)
    refused(lab, file, f"bundle: {file} is cut short, its end is missing; copy it again")


@pytest.mark.parametrize(("key", "value", "made_for"), [
    ("os", {"id": "debian", "version": "13", "codename": "trixie"}, "debian 13 on x86_64"),
    ("architecture", "aarch64", "debian 12 on aarch64"),
])
def test_for_other_pcs(lab, good, tmp_path, key, value, made_for):
    """As if it had been made for these: the same files with another manifest, and the hash of that."""
    subprocess.run(["tar", "-xf", good, "-C", tmp_path, "manifest.json"], check=True)
    manifest = {**json.loads((tmp_path / "manifest.json").read_text()), key: value}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    file = tmp_path / "other.tar"
    subprocess.run(["tar", "-cf", file, "-C", tmp_path, "manifest.json"], check=True)
    with file.open("ab") as stream:
        stream.write(f"hpclab bundle sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    refused(lab, file, f"bundle: {file} is for {made_for}, and bob, alice run debian 12 on x86_64; make one for that")


def test_an_image_that_it_does_not_have(lab, good):
    refused(lab, good, "which the cluster course needs; make it again with this inventory",
            mpi_stack_clusters=[{"name": "mpi"}, {"name": "course", "variant": "debian-openmpi", "ssh_port": 2223}])
