# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hpclab.swarm.plugins.filter.images import build_failure, course_files, image_findings, image_plan, image_variants

VARIANTS = {
    "alpine-mpich": {"system": "alpine", "mpi": "mpich", "mpi_from": "release", "release": "https://example.org/mpich.tar.gz", "release_sha256": "01"},
    "debian-mpich": {"system": "debian", "mpi": "mpich", "mpi_from": "wheel"},
    "debian-openmpi": {"system": "debian", "mpi": "openmpi", "mpi_from": "distribution"},
    "debian-openmpi-fft": {"system": "debian", "mpi": "openmpi", "mpi_from": "distribution", "packages": ["libfftw3-dev", "libfftw3-bin"]},
    "suse-openmpi": {"system": "suse", "mpi": "openmpi", "mpi_from": "distribution"},
}
BASES = {"alpine": "alpine:3.22.2", "debian": "debian:bookworm-slim"}
DEFAULT = "debian-openmpi"
PUSH = "127.0.0.1:5000"


@pytest.fixture
def files(tmp_path):
    """What every variant is made of."""
    (tmp_path / "image/examples").mkdir(parents=True)
    (tmp_path / "image/examples/ring.py").write_text("ring")
    (tmp_path / "hostfile.py").write_text("hostfile")
    return [tmp_path / "image", tmp_path / "hostfile.py"]


@pytest.fixture
def course(tmp_path):
    folder = tmp_path / "course"
    folder.mkdir()
    (folder / "pi.c").write_text("int main")
    (folder / "Dockerfile").write_text("# ours\nfrom debian-mpich-onbuild\nRUN true\n")
    (folder / "requirements.txt").write_text("numpy\n")
    return folder


def findings(**row):
    return list(image_findings(row, VARIANTS, BASES, DEFAULT))


def plan(files, *rows):
    return image_plan([{"name": f"c{number}", **row} for number, row in enumerate(rows)], VARIANTS, BASES, DEFAULT, files, PUSH)


@pytest.mark.parametrize("row", [
    {}, {"variant": "debian-mpich"}, {"variant": "debian-openmpi-fft-latest"}, {"variant": "debian-mpich-base"}, {"variant": "alpine-mpich"},
    {"mpi_from": "wheel"}, {"variant": "debian-mpich", "mpi_from": "release"},
    {"packages": ["libfftw3-dev", "g++", "nano=7.2-1"], "pip": ["numpy==2.1.3", "scipy[all]>=1"]},
    {"image": "ghcr.io/us/mpi@sha256:0123"}, {"image": "ghcr.io/us/mpi", "pip": ["numpy"]},
])
def test_nothing_to_say(row):
    assert findings(**row) == []


@pytest.mark.parametrize(("row", "sentence"), [
    ({"variant": "suse-mpich"}, "there is no variant 'suse-mpich'; there are alpine-mpich, debian-mpich, debian-openmpi, debian-openmpi-fft, each also"),
    ({"variant": "suse-openmpi"}, "there is no variant 'suse-openmpi'; there are alpine-mpich, "),  # its system has no base
    ({"variant": "debian-mpich-onbuild"}, "variant: debian-mpich-onbuild is what courses are made of; take debian-mpich, and give"),
    ({"variant": "debian-mpich-base", "pip": ["numpy"]}, "variant: debian-mpich-base only runs programs, nothing can be installed in it; take debian-mpich"),
    ({"variant": "debian-mpich", "mpi_from": "distribution"}, "mpi_from: Debian 12's own MPICH (debian:bookworm-slim) hangs when jobs on three PCs"),
    ({"variant": "debian-openmpi", "mpi_from": "release"}, "mpi_from: only MPICH is built from its release; take distribution or wheel"),
    ({"variant": "alpine-mpich", "mpi_from": "wheel"}, "mpi_from: there are no wheels for Alpine's C library"),
    ({"variant": "alpine-mpich", "mpi_from": "distribution"}, "mpi_from: Alpine has no MPICH of its own"),
    ({"packages": ["-y"]}, "packages: '-y' is no package of the system"),
    ({"packages": ["a; b"]}, "packages: 'a; b' is no package of the system"),
    ({"pip": ["--index-url=x"]}, "pip: '--index-url=x' is no requirement"),
    ({"course": "/nowhere"}, "course: /nowhere is no folder on this machine"),
    ({"image": "./nowhere.tar"}, "image: there is no file ./nowhere.tar on this machine"),
    ({"image": "ghcr.io/us/mpi", "variant": "debian-mpich"}, "give image (one that is there) or variant (one that is built), not both"),
])
def test_a_finding(row, sentence):
    found, = findings(**row)
    assert found.startswith(sentence)


def test_a_course_says_its_variant(course):
    assert findings(course=str(course)) == []
    found, = findings(course=str(course), variant="debian-openmpi")
    assert "Dockerfile is FROM debian-mpich-onbuild, the row's variant is debian-openmpi; leave one of them out" in found
    (course / "Dockerfile").write_text("FROM debian-mpich")
    found, = findings(course=str(course))
    assert found.endswith("Dockerfile is FROM debian-mpich; a course is made of a variant that ends in -onbuild")


def test_variants_are_small_files(tmp_path):
    (tmp_path / "debian-mpich.yml").write_text("{system: debian, mpi: mpich, mpi_from: wheel}")
    assert image_variants([tmp_path]) == {"debian-mpich": VARIANTS["debian-mpich"]}
    (tmp_path / "b.yml").write_text("{system: debian, mpi: mpich, from: wheel}")
    with pytest.raises(AnsibleFilterError, match=r"b\.yml: this is no variant; it has mpi, mpi_from, system, and may have base, packages, release, "):
        image_variants([tmp_path])
    with pytest.raises(AnsibleFilterError, match="holds no .yml file"):
        image_variants([tmp_path / "none"])


def test_two_rows_share_an_image(files):
    made = plan(files, {}, {"variant": "debian-openmpi-latest"}, {"mpi_from": "distribution"})
    image, = made["images"]
    assert set(made["clusters"].values()) == {image["key"]}
    assert (image["repository"], image["how"], image["dockerfile"], image["base"]) == ("debian-openmpi", "build", "Dockerfile.apt", BASES["debian"])
    assert image["args"] == {"BASE": BASES["debian"], "NAME": "debian-openmpi", "FINISH": "latest", "MPI": "openmpi", "MPI_FROM": "distribution",
                             "PACKAGES": ""}


def test_what_differs_has_another_tag(files):
    rows = [{}, {"mpi_from": "wheel"}, {"variant": "debian-openmpi-base"}, {"variant": "debian-openmpi-fft"}, {"variant": "alpine-mpich"}]
    before = plan(files, *rows)
    assert len({image["tag"] for image in before["images"]}) == len(rows)
    assert [image["repository"] for image in before["images"]] == [
        "debian-openmpi", "debian-openmpi", "debian-openmpi-base", "debian-openmpi-fft", "alpine-mpich"]
    assert before["images"][3]["args"]["PACKAGES"] == "libfftw3-dev libfftw3-bin"
    assert before["images"][4]["dockerfile"] == "Dockerfile.apk"
    assert (before["images"][4]["args"]["RELEASE"], before["images"][4]["args"]["RELEASE_SHA256"]) == ("https://example.org/mpich.tar.gz", "01")
    (files[0] / "examples/ring.py").write_text("another")
    after = plan(files, *rows)
    assert not {image["tag"] for image in before["images"]} & {image["tag"] for image in after["images"]}


def test_a_release_in_a_file(files, tmp_path):
    tarball = tmp_path / "mpich-4.2.1.tar.gz"
    variants = {"debian-mpich": {"system": "debian", "mpi": "mpich", "mpi_from": "release", "release": str(tarball), "release_sha256": "02"}}
    found, = image_findings({}, variants, BASES, "debian-mpich")
    assert "and there is no such file on this machine" in found
    tarball.touch()
    assert list(image_findings({}, variants, BASES, "debian-mpich")) == []
    image, = image_plan([{"name": "mpi"}], variants, BASES, "debian-mpich", files, PUSH)["images"]
    assert (image["release"], image["args"]["RELEASE"], image["args"]["RELEASE_SHA256"]) == (str(tarball), "mpich-4.2.1.tar.gz", "02")


def test_packages_are_one_more_layer(files):
    made = plan(files, {"packages": ["nano"], "pip": ["numpy"]}, {"packages": ["nano"], "pip": ["numpy"]}, {"packages": ["nano"]}, {})
    variant, onbuild, both, one = made["images"]
    assert (onbuild["repository"], onbuild["dockerfile"]) == ("debian-openmpi-onbuild", "Dockerfile.onbuild")
    assert onbuild["args"] == {"FROM": f"{PUSH}/{variant['key']}", "NAME": "debian-openmpi-onbuild"}
    assert (both["how"], both["from"], both["packages"], both["pip"]) == ("course", f"{PUSH}/{onbuild['key']}", ["nano"], ["numpy"])
    assert list(made["clusters"].values()) == [both["key"], both["key"], one["key"], variant["key"]]


def test_a_course(files, course):
    made = plan(files, {"course": str(course), "pip": ["scipy"]})
    assert [image["repository"] for image in made["images"]] == ["debian-mpich", "debian-mpich-onbuild", "debian-mpich-course"]
    last = made["images"][-1]
    assert course_files(last) == {"Dockerfile": f"# ours\nFROM {last['from']}\nRUN true\n", "requirements.txt": "numpy\nscipy\n"}
    (course / "__pycache__").mkdir()  # of somebody who tries the course on the controller
    (course / "__pycache__/pi.pyc").write_text("")
    assert plan(files, {"course": str(course), "pip": ["scipy"]})["images"][-1] == last
    (course / "pi.c").write_text("int main()")
    assert plan(files, {"course": str(course), "pip": ["scipy"]})["images"][-1]["tag"] != last["tag"]


def test_packages_alone_need_no_folder(files):
    assert course_files(plan(files, {"packages": ["nano"]})["images"][-1]) == {
        "Dockerfile": f"FROM {plan(files, {'packages': ['nano']})['images'][-1]['from']}\n", "packages.txt": "nano\n"}


@pytest.mark.parametrize(("reference", "registry"), [
    ("mpi", "docker.io"), ("us/mpi:2", "docker.io"), ("ghcr.io/us/mpi", "ghcr.io"), ("localhost/mpi", "localhost"), ("nas:5000/mpi@sha256:01", "nas:5000")])
def test_an_image_that_is_pulled(files, reference, registry):
    image, = plan(files, {"image": reference})["images"]
    assert (image["how"], image["repository"], image["reference"], image["registry"]) == ("pull", "pulled", reference, registry)


def test_an_image_that_is_loaded(files, tmp_path):
    archive = tmp_path / "image.tar.gz"
    archive.write_text("one")
    image, = plan(files, {"image": str(archive)})["images"]
    assert (image["how"], image["repository"], image["file"]) == ("load", "loaded", str(archive))
    archive.write_text("two")
    assert plan(files, {"image": str(archive)})["images"][0]["tag"] != image["tag"]


def test_why_a_build_failed():
    logs = [f"Step {number}/20 : RUN true" for number in range(30)]
    # as the engine hands on what apt-get writes to stderr
    logs += ["\x1b[91mE\x1b[0m", "\x1b[91m: \x1b[0m", "\x1b[91mUnable to locate package nosuch\x1b[0m", "\x1b[91m", "\x1b[0m", "by http://ada:secret@proxy"]
    msg = f"Error building mpi - code: 100, message: The command 'apt-get' returned a non-zero code: 100, logs: {logs}"
    said = build_failure(msg, "http://ada:secret@proxy")
    assert said.splitlines()[-3:] == ["E: Unable to locate package nosuch", "by (the proxy)", "The command 'apt-get' returned a non-zero code: 100"]
    assert len(said.splitlines()) == 16
    assert build_failure("Error connecting") == "Error connecting"
