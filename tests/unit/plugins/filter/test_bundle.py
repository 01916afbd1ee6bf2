# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle is refused for every byte that is not as it was, and for every room that it is not for."""
from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile

import pytest
from ansible_collections.hpclab.swarm.plugins.filter.bundle import FORMAT, bundle_findings, bundle_manifest, bundle_pc_findings, bundle_rows

MADE = {
    "format": FORMAT, "collection": "0.2.0", "os": {"id": "debian", "version": "12", "codename": "bookworm"}, "architecture": "x86_64",
    "packages": ["docker.io"], "images": {"debian-openmpi:0123": "sha256:01", "vieux/sshfs:from-45": "sha256:45"},
    "plugin": {"source": "vieux/sshfs:latest", "key": "vieux/sshfs:from-45"},
}
PLAN = {"images": [{"key": "debian-openmpi:0123"}], "clusters": {"mpi": "debian-openmpi:0123"}}
KNOBS = {"driver": "host", "plugin": "vieux/sshfs:latest", "through_registry": True, "docker_source": "distribution"}


def seal(content):
    return content + b"hpclab bundle sha256:" + hashlib.sha256(content).hexdigest().encode() + b"\n"


def content(manifest):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in (("manifest.json", json.dumps(manifest).encode()), ("packages.tar", b"p" * 5000), ("registry.tar", b"r" * 5000)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "room.tar"
    path.write_bytes(seal(content(MADE)))
    return path


def refused(path):
    finding, = bundle_manifest(path)["findings"]
    return finding


def test_a_bundle_says_what_is_in_it(file):
    assert bundle_manifest(file) == {**MADE, "findings": []}


def test_tar_reads_it(file):
    assert subprocess.run(["tar", "-tf", file], capture_output=True, text=True, check=True).stdout.split() == [
        "manifest.json", "packages.tar", "registry.tar"]


def test_every_flipped_byte_is_seen(file):
    good = file.read_bytes()
    for position in [*range(0, len(good), 97), *range(len(good) - 90, len(good))]:
        file.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1:])
        assert refused(file), position


def test_a_flipped_byte_in_a_package(file):
    file.write_bytes(file.read_bytes().replace(b"pppp", b"pPpp", 1))
    assert refused(file) == f"bundle: {file} is damaged, it is not what it was when it was made (sha256); copy it again"


@pytest.mark.parametrize("length", [600, 5000, -86, -1])
def test_cut_short(file, length):
    file.write_bytes(file.read_bytes()[:length])
    assert refused(file) == f"bundle: {file} is cut short, its end is missing; copy it again"


def test_longer_than_it_was(file):
    file.write_bytes(file.read_bytes() + b"\n")
    assert "cut short" in refused(file) or "damaged" in refused(file)


@pytest.mark.parametrize("there", [b"", b"PK\3\4 another file", b"\0" * 9999])
def test_another_file(file, there):
    file.write_bytes(there)
    assert refused(file) == f"bundle: {file} is no bundle; give one that `make bundle` has made"


def test_no_file(tmp_path):
    assert refused(tmp_path / "none.tar") == (
        f"bundle: there is no file {tmp_path}/none.tar on this machine; correct the path, or make one with `make bundle`")


def test_another_format(file):
    file.write_bytes(seal(content({**MADE, "format": 2, "collection": "0.9.0"})))
    assert refused(file) == f"bundle: {file} has format 2 (hpclab.swarm 0.9.0), and format 1 is read here; make it with the version that you use"


def found(manifest=None, plan=None, **knobs):
    return bundle_findings({**MADE, "findings": [], **(manifest or {})}, "room.tar", **(plan or PLAN), **{**KNOBS, **knobs})


@pytest.mark.parametrize("driver", ["host", "vieux/sshfs"])
def test_it_has_what_the_room_asks_for(driver):
    assert found(driver=driver) == []


def test_a_bad_file_says_nothing_else():
    assert found({"findings": ["bundle: room.tar is no bundle"]}, docker_source="docker") == ["bundle: room.tar is no bundle"]


def test_an_image_is_missing():
    keys = ["debian-mpich:1", "debian-mpich-onbuild:1", "debian-mpich-course:2"]
    plan = {"images": [*PLAN["images"], *({"key": key} for key in keys)], "clusters": {**PLAN["clusters"], "course": keys[-1]}}
    assert found(plan=plan) == [
        "bundle: room.tar has no image debian-mpich-course:2, which the cluster course needs; make it again with this inventory and "
        "this version of the collection (it was made with 0.2.0)"]


@pytest.mark.parametrize(("manifest", "knobs", "sentence"), [
    ({"plugin": {}}, {"driver": "vieux/sshfs"},
     "bundle: room.tar has no plugin, and sshfs_storage_plugin is vieux/sshfs:latest; make it again with this inventory"),
    ({}, {"driver": "vieux/sshfs", "plugin": "ours/sshfs:2"},
     "bundle: room.tar has the plugin vieux/sshfs:latest, and sshfs_storage_plugin is ours/sshfs:2; make it again with this inventory"),
    ({}, {"driver": "vieux/sshfs", "through_registry": False},
     "bundle: sshfs_storage_plugin_through_registry is false, and without internet the plugin is in the lab registry alone; set it to true"),
    ({}, {"docker_source": "docker"},
     "bundle: swarm_init_docker_source is docker, and a bundle brings the distribution's Docker; leave it out (an engine that is there is kept)"),
])
def test_the_settings_ask_for_something_else(manifest, knobs, sentence):
    assert found(manifest, **knobs) == [sentence]


def pc(version="12", architecture="x86_64"):
    return {"os": {"id": "debian", "version": version, "codename": "any"}, "architecture": architecture}


def test_pcs_that_it_is_for_and_one_that_is_off():
    assert bundle_pc_findings(MADE, "room.tar", {"bob": pc(), "alice": {"unreachable": True}}) == []


def test_pcs_that_it_is_not_for():
    assert bundle_pc_findings(MADE, "room.tar", {"bob": pc(), "alice": pc("13"), "dora": pc("13"), "falco": pc(architecture="aarch64")}) == [
        "bundle: room.tar is for debian 12 on x86_64, and alice, dora run debian 13 on x86_64; make one for that",
        "bundle: room.tar is for debian 12 on x86_64, and falco runs debian 12 on aarch64; make one for that"]


def test_rows():
    rows = [
        {"name": "mpi", "pcs": ["bob"], "slots": 2, "members": []}, {"name": "same", "workers": 15}, {"name": "gone", "state": "absent", "pip": ["x"]},
        {"name": "course", "variant": "debian-mpich", "pip": ["numpy"], "packages": [], "master": "falco", "ssh_port": 2230},
    ]
    assert bundle_rows(rows) == [
        {"name": "mpi", "ssh_port": 2222}, {"name": "course", "variant": "debian-mpich", "pip": ["numpy"], "ssh_port": 2223}]
