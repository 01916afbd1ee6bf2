# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked wrongly of the shared folder changes nothing; what is asked rightly loses nothing.

The tests build on each other, in this order: the last one leaves the lab as it was.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

NAS = {"name": "nas", "ssh_port": 2224, "pcs": ["alice"]}
EXPORT = "/srv/hpclab"


def flat(text):
    """Without the line breaks and quotes that the output's YAML puts in."""
    return " ".join(text.replace("''", "'").replace('\\"', '"').split())


@pytest.fixture(scope="module")
def before(lab):
    return lab.state()


def refused(lab, before, *sentences, **variables):
    play = lab.site(**variables)
    assert play.rc != 0, play.gist
    for sentence in sentences:
        assert sentence in flat(play.output), play.gist
    assert set(re.findall(r"TASK \[(.*)\] \*+\nchanged: ", play.output)) <= {"hpclab.swarm.sshfs_storage : Write down what this role changes"}, play.gist
    assert lab.state()["service"] == before["service"]


# Bad input

# tests/unit has the rest
def test_settings(lab, before):
    refused(
        lab, before,
        "sshfs_storage_path: '/srv/our lab' can't be exported; give an absolute path of letters, digits, '.', '_' and '-', without spaces, "
        "like /srv/hpclab",
        "sshfs_storage_options: cipher is no option of sshfs that can be set here; those are ",
        "sshfs_storage_delete: mpi is not the name of a cluster with state: absent; only the data of such a one is deleted",
        sshfs_storage_path="/srv/our lab", sshfs_storage_options={"cipher": "none", "max_conns": "4"}, sshfs_storage_delete="mpi")


def test_what_the_exporting_pc_says(lab, before):
    """A link out of the export, a file where a directory should be, a port in use, and no copy of what lies elsewhere."""
    bob = lab.pc("bob")
    bob.check_output("mkdir /srv/other /srv/third && touch /srv/third/mpiuser && ln -s /srv/third /srv/other/mpi")
    refused(
        lab, before,
        "bob: /srv/other/mpi is a link, which leads out of the export; put the directory itself there, or set sshfs_storage_path",
        "bob: /srv/other/mpi/mpiuser is no directory; move it away, or set sshfs_storage_path",
        "bob: port 22, sshfs_storage_port, is in use by sshd; choose another one",
        f"cluster mpi: its home lies on bob:2200:{EXPORT}, and bob:22:/srv/other has no copy of it; ",
        sshfs_storage_path="/srv/other", sshfs_storage_port=22)
    bob.check_output("rm -r /srv/other /srv/third")


def test_a_server_with_another_host_key_gets_no_data(lab):
    bob = lab.pc("bob")
    bob.check_output("cd /etc/hpclab/export && mv host_key right && ssh-keygen -q -t ed25519 -N '' -f wrong && mv wrong host_key && rm wrong.pub")
    try:
        bob.check_output("pkill -KILL -u hpclab-mpi")
        home = "timeout 20 stat /home/mpiuser/.hpclab/cluster; timeout 20 touch /home/mpiuser/written"
        # side by side, and of the play what asks the server: workers that lack their home for half a minute are replaced
        with ThreadPoolExecutor() as pool:
            asked = pool.map(lambda pc: lab.command(*lab.inside(pc, "sh", "-c", home)), lab.pcs)
            play = lab.site("--tags", "sshfs_storage_share")
        assert all(done.returncode != 0 for done in asked)
        assert "port 2200 shows another ssh host key than the one it is known by; it got no data." in flat(play.output), play.gist
        assert (play.changed, play.recap("failed")) == (0, len(lab.pcs)), play.gist
        # nobody got as far as that
        assert bob.run("pgrep -u hpclab-mpi").rc == 1
    finally:
        bob.check_output("cd /etc/hpclab/export && mv right host_key")
    assert not bob.file(f"{EXPORT}/mpi/mpiuser/written").exists
    assert lab.wait(lambda: set(lab.hostfile()[1]) == set(lab.pcs) and lab.student("mpirun /opt/mpi/mpi-home").returncode == 0, 180)


# A server that is no PC of the room

@pytest.fixture(scope="module")
def nas(lab):
    """Somebody's machine with ssh: its name, address and the knobs that name it."""
    name = f"{lab.name}.nas"
    image = lab.command("docker", "inspect", "-f", "{{.Config.Image}}", f"{lab.name}-bob").stdout.strip()
    lab.command("docker", "rm", "-f", name)
    script = ("ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; useradd -m -p '*' lab; install -d -o lab /data /data/lab; "
              "install -d -o lab -m 0700 /home/lab/.ssh; mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -h /etc/ssh/ssh_host_ed25519_key")
    started = lab.command("docker", "run", "-d", "--name", name, "--network", lab.name, "--entrypoint", "sh", image, "-c", script)
    assert started.returncode == 0, started.stderr
    address = lab.command("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name).stdout.strip()
    key = lab.wait(lambda: lab.command("docker", "exec", name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout, 30)
    yield name, {"sshfs_storage_host": address, "sshfs_storage_port": 22, "sshfs_storage_user": "lab", "sshfs_storage_path": "/data/lab",
                 "sshfs_storage_host_key": " ".join(key.split()[:2])}
    lab.command("docker", "rm", "-f", name)


@pytest.mark.long
def test_a_nas(lab, nas):
    name, knobs = nas
    before = lab.state()
    refused(lab, before, f"the shared folder's server {knobs['sshfs_storage_host']} port 2299 can't be reached",
            mpi_stack_clusters=[{**NAS, "name": "far"}], **{**knobs, "sshfs_storage_port": 2299})
    refused(lab, before, f"lab at {knobs['sshfs_storage_host']} port 22 refuses this PC's key; authorize it there: restrict ssh-ed25519 ",
            mpi_stack_clusters=[NAS], **knobs)
    keys = "".join(f"restrict {lab.pc(pc).file('/etc/hpclab/storage/id_ed25519.pub').content_string}" for pc in lab.pcs)
    lab.command("docker", "exec", "-i", name, "sh", "-c", "cat >/home/lab/.ssh/authorized_keys; chown -R lab: /home/lab/.ssh", stdin=keys)
    wrong = lab.pc("bob").check_output("cat /etc/ssh/ssh_host_ed25519_key.pub")
    refused(lab, before, f"{knobs['sshfs_storage_host']} port 22 shows another ssh host key than the one it is known by; it got no data.",
            mpi_stack_clusters=[NAS], **{**knobs, "sshfs_storage_host_key": " ".join(wrong.split()[:2])})
    done = lab.site(mpi_stack_clusters=[NAS], **knobs)
    assert done.rc == 0, done.gist
    again = lab.site(mpi_stack_clusters=[NAS], **knobs)
    assert (again.rc, again.changed) == (0, 0), again.gist
    said = lab.student("echo text >file; mpirun cat file .hpclab/cluster", cluster="nas", port=2224)
    assert set(said.stdout.split()) == {"text", "nas"}, said.stderr
    assert lab.command("docker", "exec", name, "cat", "/data/lab/nas/file").stdout == "text\n"


@pytest.mark.long
def test_back_again(lab, nas):
    name, _knobs = nas
    done = lab.site(mpi_stack_clusters=[{"name": "mpi"}, {**NAS, "state": "absent"}])
    assert done.rc == 0, done.gist
    assert lab.command("docker", "exec", name, "cat", "/data/lab/nas/file").stdout == "text\n"
    assert set(lab.hello()) == set(lab.pcs)
    again = lab.site(mpi_stack_clusters=[{"name": "mpi"}, {**NAS, "state": "absent"}])
    assert (again.rc, again.changed) == (0, 0), again.gist
