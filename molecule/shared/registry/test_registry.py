# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab registry: the mirror before Docker Hub, certificates that end, a registry that is down, prune, and room for an image.

Works on any classroom of three PCs that stands. Tests of the mirror build on each other, in this order; the last one leaves all as it was.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PULL = "registry.hpclab.internal:5443"
DAEMON = "/etc/docker/daemon.json"
MIRROR = "https://registry.hpclab.internal:5444/"
FOLDER = "/etc/hpclab/registry"


def flat(text):
    """Without the line breaks and quotes that the output's YAML puts in."""
    return " ".join(text.replace("''", "'").replace('\\"', '"').split())


def registry(lab, *options, **variables):
    """This role alone; without the mirror, as a virtual classroom has it, where that is not asked for."""
    return lab.site("--tags", "lab_registry_serve,lab_registry_trust", *options, **variables)


def pushed(lab, *words):
    """An image in the lab registry: its digest."""
    done = lab.command("docker", "exec", "-i", f"{lab.name}-bob", "python3", "-", "http://127.0.0.1:5000", *words,
                       stdin=(HERE / "push.py").read_text())
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def known(lab, name, reference):
    """Whether PCs can have it."""
    ask = ("import sys, urllib.request; urllib.request.urlopen(urllib.request.Request(sys.argv[1], method='HEAD', "
           "headers={'Accept': 'application/vnd.docker.distribution.manifest.v2+json'}))")
    return lab.pc("bob").run("python3 -c %s %s", ask, f"http://127.0.0.1:5000/v2/{name}/manifests/{reference}").rc == 0


def mirrors(lab, pc):
    return json.loads(lab.docker("info", "-f", "{{json .RegistryConfig.Mirrors}}", pc=pc)) or []


def settings(lab, pc):
    file = lab.pc(pc).file(DAEMON)
    return json.loads(file.content_string) if file.exists else None


@pytest.fixture
def undisturbed(lab):
    """Engines and workers run on, whatever happens to the registry."""
    def running():
        return {pc: (lab.pc(pc).check_output("pidof dockerd"), lab.container(pc)) for pc in lab.pcs}
    before = running()
    assert all(worker for _engine, worker in before.values())
    yield
    assert running() == before


# The mirror

@pytest.fixture(scope="module")
def hub(lab):
    """What stands for Docker Hub: its name and address, the one image that it has, and the layer of that."""
    name, tiny = f"{lab.name}.hub", f"tiny-{uuid.uuid4().hex[:8]}"
    image = lab.command("docker", "inspect", "-f", "{{.Config.Image}}", f"{lab.name}-bob").stdout.strip()
    lab.command("docker", "rm", "-f", name)
    script = ("apt-get install -y -q --no-install-recommends docker-registry >/dev/null; "
              r"printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: /data}}\nhttp: {addr: 0.0.0.0:80}\n' >/hub.yml; "
              "exec docker-registry serve /hub.yml")
    started = lab.command("docker", "run", "-d", "--name", name, "--network", lab.name, "--entrypoint", "sh", image, "-c", script)
    assert started.returncode == 0, started.stderr
    address = lab.command("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name).stdout.strip()

    def image_there():
        return lab.command(sys.executable, HERE / "push.py", f"http://{address}", f"library/{tiny}", "latest", tiny).stdout.split()
    layer = lab.wait(image_there, 60)[1]
    yield name, f"http://{address}", tiny, layer
    lab.command("docker", "rm", "-f", name)
    for pc in lab.pcs:
        lab.pc(pc).run(f"docker rmi {tiny}")


def downloads(lab, hub):
    """What the Hub gave: of the layer, and of what it counts."""
    log = lab.command("docker", "logs", hub[0]).stdout
    return log.count(f'"GET /v2/library/{hub[2]}/blobs/{hub[3]} '), log.count(f'"GET /v2/library/{hub[2]}/manifests/')


def test_one_download_for_the_room(lab, hub, undisturbed):
    done = registry(lab, lab_registry_mirror=True, lab_registry_upstream=hub[1])
    assert done.rc == 0, done.gist
    assert lab.wait(lambda: lab.pc("bob").run("systemctl is-active hpclab-registry@mirror").rc == 0, 20)
    assert [mirrors(lab, pc) for pc in lab.pcs] == [[MIRROR]] * len(lab.pcs)
    assert lab.wait(lambda: lab.pc(lab.pcs[0]).run(f"docker pull -q {hub[2]}").rc == 0, 15)
    # the program serves and stores what it does not have by two requests
    assert downloads(lab, hub) == (2, 1)
    for pc in lab.pcs[1:]:
        lab.docker("pull", "-q", hub[2], pc=pc)
    assert downloads(lab, hub) == (2, 1)
    # and without the Hub, which is needed no more
    lab.command("docker", "stop", "-t", 0, hub[0])
    lab.docker("rmi", hub[2], pc="alice")
    lab.docker("pull", "-q", hub[2], pc="alice")


def test_without_the_mirror_engines_ask_the_hub_themselves(lab, hub):
    bob = lab.pc("bob")
    bob.check_output("systemctl stop hpclab-registry@mirror")
    said = lab.pc("alice").run("docker pull -q another-image").stderr
    bob.check_output("systemctl start hpclab-registry@mirror")
    assert "https://registry-1.docker.io/v2/" in said


def test_it_is_merged_with_what_an_engine_has(lab, hub):
    """In a file that not everybody may read; and one that is broken is left alone."""
    lab.pc("alice").check_output(
        """printf '{"max-concurrent-downloads": 4, "registry-mirrors": ["https://mirror.invalid"]}' >%s; chmod 600 %s""", DAEMON, DAEMON)
    lab.pc("alice").check_output("systemctl reload docker")
    lab.pc("falco").check_output("""printf '{"max-concurrent-downloads": 4,}' >%s""", DAEMON)
    done = registry(lab, lab_registry_mirror=True, lab_registry_upstream=hub[1])
    assert done.recap("failed") == 1, done.gist
    assert f"falco: {DAEMON} can't be read (" in flat(done.output) and "correct it, Docker would not start with it either" in flat(done.output)
    assert lab.pc("falco").file(DAEMON).content_string == '{"max-concurrent-downloads": 4,}'
    assert settings(lab, "alice") == {"max-concurrent-downloads": 4, "registry-mirrors": ["https://mirror.invalid", MIRROR.rstrip("/")]}
    assert lab.pc("alice").file(DAEMON).mode == 0o600
    assert mirrors(lab, "alice") == ["https://mirror.invalid/", MIRROR]
    lab.pc("falco").check_output("echo '{}' >%s", DAEMON)


def test_it_is_taken_away_again(lab, undisturbed):
    done = registry(lab)
    assert done.rc == 0, done.gist
    assert {pc: mirrors(lab, pc) for pc in lab.pcs} == {"bob": [], "alice": ["https://mirror.invalid/"], "falco": []}
    assert settings(lab, "alice") == {"max-concurrent-downloads": 4, "registry-mirrors": ["https://mirror.invalid"]}
    assert settings(lab, "bob") is None
    bob = lab.pc("bob")
    assert bob.run("systemctl is-active hpclab-registry@mirror || systemctl is-enabled hpclab-registry@mirror").rc != 0
    for path in (f"{FOLDER}/mirror.yml", "/var/lib/hpclab/registry/mirror", "/etc/docker/certs.d/registry.hpclab.internal:5444"):
        assert not bob.file(path).exists
    # reset has to know it for PCs that were off
    assert json.loads(lab.pc("falco").file("/etc/hpclab/record/lab_registry.json").content_string)["mirrors"] == [MIRROR.rstrip("/")]
    lab.pc("alice").check_output("""echo '{"registry-mirrors": []}' >%s; systemctl reload docker; sleep 1; rm %s""", DAEMON, DAEMON)


# Certificates

def ends(lab, name):
    """In how many days."""
    seconds = "echo $(( $(date +%%s -d \"$(openssl x509 -noout -enddate -in %s | cut -d= -f2)\") - $(date +%%s) ))"
    return round(int(lab.pc("bob").check_output(seconds, f"{FOLDER}/{name}.crt")) / 86400)


def test_certificates_that_end_are_renewed_everywhere(lab, undisturbed):
    lab.pc("bob").check_output(
        f"cd {FOLDER} && openssl x509 -in ca.crt -signkey ca.key -days 1000 -out new && cat new >ca.crt && "
        "openssl x509 -x509toreq -in server.crt -signkey server.key -copy_extensions copyall -out request 2>/dev/null && "
        "openssl x509 -req -in request -CA ca.crt -CAkey ca.key -copy_extensions copyall -days 80 -out new 2>/dev/null && cat new >server.crt; "
        "rm -f new request ca.srl")
    assert (ends(lab, "ca"), ends(lab, "server")) == (1000, 80)
    said = registry(lab, "--check")
    assert "would get a new certificate, and every PC a new CA to trust" in flat(said.output), said.gist
    assert (ends(lab, "ca"), ends(lab, "server")) == (1000, 80)
    done = registry(lab)
    assert done.rc == 0, done.gist
    assert (ends(lab, "ca"), ends(lab, "server")) == (3650, 730)
    ca = lab.pc("bob").file(f"{FOLDER}/ca.crt").content_string
    image = lab.inspect("service", "mpi_worker")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    for pc in lab.pcs:
        assert lab.pc(pc).file(f"/etc/docker/certs.d/{PULL}/ca.crt").content_string == ca
        lab.docker("pull", "-q", image, pc=pc)


# A registry that is down

@pytest.fixture
def down(lab):
    bob = lab.pc("bob")
    bob.check_output("systemctl stop hpclab-registry@push hpclab-registry@pull")
    yield
    bob.check_output("systemctl start hpclab-registry@push hpclab-registry@pull")


def test_a_worker_comes_back_from_its_local_image(lab, down):
    before = lab.container("alice")
    lab.docker("kill", before, pc="alice")
    assert lab.wait(lambda: lab.container("alice") not in ("", before), 60)


@pytest.mark.long
def test_a_pc_that_was_off_comes_back_from_its_local_image(lab, down):
    """And while it is off, prune says so."""
    before = lab.container("falco")
    lab.command("docker", "stop", f"{lab.name}-falco")
    lab.pc("bob").check_output("systemctl start hpclab-registry@push")
    done = lab.play("playbooks/prune.yml")
    assert done.rc == 0 and "falco is off and left as before" in flat(done.output), done.gist
    lab.pc("bob").check_output("systemctl stop hpclab-registry@push")
    lab.command("docker", "start", f"{lab.name}-falco")
    assert lab.wait(lambda: lab.container("falco") not in ("", before), 120)
    assert lab.wait(lambda: set(lab.hostfile()[1]) == set(lab.pcs), 60)


@pytest.mark.long
def test_a_pull_that_is_cut_goes_on(lab):
    """What a PC has of a layer is not fetched again; bob's network is made slow, or there would be no middle."""
    bob, alice, name = lab.pc("bob"), lab.pc("alice"), f"large-{uuid.uuid4().hex[:8]}:1"
    bob.check_output("cd /tmp && head -c 100MB /dev/urandom >large && tar -c large | docker import - %s && docker push -q %s && docker rmi %s; rm large",
                     *[f"127.0.0.1:5000/{name}"] * 3)

    def received():
        return int(alice.check_output("cat /sys/class/net/eth0/statistics/rx_bytes")) / 10**6
    before = received()
    bob.check_output("tc qdisc add dev eth0 root tbf rate 80mbit burst 256k latency 400ms")
    try:
        pull = subprocess.Popen(["docker", "exec", f"{lab.name}-alice", "docker", "pull", "-q", f"{PULL}/{name}"])
        assert lab.wait(lambda: received() - before > 60, 60)
        bob.check_output("systemctl kill -s KILL hpclab-registry@pull")  # it comes back by itself
        assert pull.wait(120) == 0
    finally:
        bob.check_output("tc qdisc del dev eth0 root")
    assert 100 < received() - before < 130
    lab.docker("rmi", f"{PULL}/{name}", pc="alice")


# prune

def test_prune(lab, undisturbed):
    plugin = "application/vnd.docker.plugin.v1+json"
    lost, unused, before, now, held = (
        pushed(lab, "course", tag, text) for tag, text in [("1", "lost its tag"), ("1", "unused"), ("2", "before"), ("2", "now"), ("3", "held")])
    kept = pushed(lab, "vieux/stand-in", "1", "plugin", "0", plugin)
    name = f"{PULL}/course"
    lab.docker("pull", "-q", f"{name}:1", pc="alice")
    lab.docker("tag", f"{name}:1", "mine:1", pc="alice")
    lab.docker("create", "--name", "held", f"{name}@{held}", pc="falco")
    lab.docker("service", "create", "-q", "-d", "--name", "other", "--replicas", "0", f"{name}@{before}")
    lab.docker("service", "update", "-q", "-d", "--image", f"{name}@{now}", "other")
    lab.docker("pull", "-q", f"{name}@{before}", pc="alice")
    cluster = lab.inspect("service", "mpi_worker")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    try:
        said = lab.play("playbooks/prune.yml", "--check")
        assert said.rc == 0 and "alice: would remove course:1; /var/lib/docker " in flat(said.output), said.output
        assert f"bob's registry: would remove course@{lost[7:19]}" in flat(said.output) or unused[7:19] in said.output, said.output
        assert known(lab, "course", lost) and lab.docker("images", "-q", name, pc="alice")
        done = lab.play("playbooks/prune.yml")
        assert done.rc == 0, done.gist
        assert re.search(r"alice: removed course:1; /var/lib/docker [\d.]+ GB used, before [\d.]+ GB", flat(done.output)), done.output
        assert re.search(r"bob's registry: removed course@.*; \d+ MB used, before \d+ MB", flat(done.output)), done.output
        assert {one: known(lab, "course", one) for one in (lost, unused, before, now, held)} == {
            lost: False, unused: False, before: True, now: True, held: True}
        assert known(lab, "vieux/stand-in", kept) and known(lab, cluster.split("/")[1].split("@")[0], cluster.split("@")[1])
        names = lab.docker("images", "--digests", "--format", "{{.Repository}}:{{.Tag}}@{{.Digest}}", pc="alice")
        assert f"{name}:1" not in names and "mine:1" in names and f"{name}:<none>@{before}" in names
        lab.docker("image", "inspect", f"{name}@{held}", pc="falco")
        # what went may come back
        assert pushed(lab, "course", "1", "unused") == unused
        lab.docker("rmi", "mine:1", pc="alice")
        lab.docker("pull", "-q", f"{name}:1", pc="alice")
    finally:
        lab.pc("falco").run("docker rm held")
        lab.pc("bob").run("docker service rm other")
        lab.pc("alice").run("docker rmi mine:1")


# Room

def test_a_pc_without_room_says_so(lab):
    digest = pushed(lab, "huge", "1", "not so", str(10**15))
    cluster = lab.inspect("service", "mpi_worker")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    done = lab.play(HERE / "room.yml", images=[cluster, f"{PULL}/huge@{digest}"])
    assert done.rc != 0, done.gist
    for pc in lab.pcs:
        assert f"{pc}: the image huge@{digest[7:19]} needs 4000000.0 GB in /var/lib/docker, where " in flat(done.output), done.output
    assert "debian-openmpi" not in re.sub(r"(?s).*TASK", "", done.output)
