# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PID 1 of a cluster's container: what it can be asked outside of one."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
import threading
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
from ansible_collections.hpclab.swarm.plugins.module_utils import _hostfile

IMAGE = Path(__file__).parents[2] / "roles/mpi_stack/files/image"
SUBNET = ipaddress.IPv4Network("10.213.1.0/24")


@pytest.fixture
def node(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "hostfile", _hostfile)
    loader = SourceFileLoader("mpi_node", str(IMAGE / "mpi-node"))
    module = module_from_spec(spec_from_loader("mpi_node", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "RUN", tmp_path)
    return module


def test_a_file_is_replaced_in_one_step_and_only_if_it_changes(node, tmp_path):
    node.write("hostfile", "a\n")
    first = (tmp_path / "hostfile").stat()
    node.write("hostfile", "a\n")
    assert (tmp_path / "hostfile").stat().st_ino == first.st_ino
    node.write("hostfile", "b\n")
    assert (tmp_path / "hostfile").stat().st_ino != first.st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["hostfile"]


def test_a_core_counts_once(node, tmp_path):
    for cpu in os.sched_getaffinity(0):
        topology = tmp_path / f"cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text("0-999\n")
    assert node.physical_cores(tmp_path) == 1
    assert node.physical_cores(tmp_path / "nothing") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("files", "limit"), [
    ({"cpu.max": "150000 100000\n"}, 1.5),
    ({"cpu.max": "max 100000\n"}, float("inf")),
    ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
    ({}, float("inf")),
])
def test_cpu_limit(node, tmp_path, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert node.cpu_limit(tmp_path) == limit


def test_slots(node, monkeypatch):
    monkeypatch.setattr(node, "physical_cores", lambda: 8)
    for limit, slots in ((float("inf"), 8), (2.5, 2), (0.5, 1)):
        monkeypatch.setattr(node, "cpu_limit", lambda limit=limit: limit)
        assert node.slots() == slots
    monkeypatch.setenv("MPI_SLOTS", "3")
    assert node.slots() == 3


@pytest.mark.parametrize(("subnet", "pattern"), [
    ("10.213.1.0/24", "10.213.1.*"), ("10.213.1.128/26", "10.213.1.*"), ("10.213.0.0/20", "10.213.*.*"), ("10.0.0.0/8", "10.*.*.*")])
def test_ssh_knows_workers_by_name_and_address(node, tmp_path, subnet, pattern):
    host = _hostfile.Host("10.213.1.5", "alice", 2)
    config = tmp_path / "config"
    config.write_text(node.ssh_config(ipaddress.IPv4Network(subnet), [host] if subnet == "10.213.1.0/24" else []))
    assert f"Match host {pattern}\n" in config.read_text()
    for name in ("alice", "10.213.1.5") if subnet == "10.213.1.0/24" else ():
        said = subprocess.run(["ssh", "-G", "-F", config, name], capture_output=True, text=True, check=True).stdout
        assert "hostname 10.213.1.5\n" in said and "port 2222\n" in said
        assert "stricthostkeychecking true" in said and "connecttimeout 15\n" in said
    elsewhere = subprocess.run(["ssh", "-G", "-F", config, "github.com"], capture_output=True, text=True, check=True).stdout
    assert "port 22\n" in elsewhere


def test_a_value_that_ssh_could_not_quote_is_left_out(node, monkeypatch):
    monkeypatch.setattr(node.Path, "read_text", lambda self: "")
    monkeypatch.setattr(node, "slots", lambda: 2)
    config = node.sshd_config("master", "bob", {"A": "b c", "B": 'say "hi"', "C": "two\nlines"})
    assert 'SetEnv A="b c"\n' in config
    assert "VersionAddendum pc=bob slots=2\n" in config
    assert "AuthorizedKeysFile /etc/mpi/members/authorized_keys /run/secrets/user_key.pub\n" in config
    assert "/etc/mpi/members" not in node.sshd_config("worker", "bob", {})


def test_mpich_is_told_the_interface_and_the_host_file(node, tmp_path):
    """By its name on this container, which follows no order: found by its address."""
    loopback = ipaddress.IPv4Network("127.0.0.0/8")
    assert node.mpi_environment("mpich", loopback) == {
        "HYDRA_IFACE": "lo", "MPI_ADDRESS": "127.0.0.1", "HYDRA_HOST_FILE": str(tmp_path / "hostfile")}
    with pytest.raises(SystemExit, match="MPI_SUBNET=203.0.113.0/24"):
        node.mpi_environment("mpich", ipaddress.IPv4Network("203.0.113.0/24"))


@pytest.mark.parametrize(("prterun", "names"), [
    ("/usr/bin/prterun", {"OMPI_MCA_btl_tcp_if_include"}), (None, {"OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_oob_tcp_if_include"})])
def test_open_mpi_is_told_the_subnet(node, monkeypatch, prterun, names):
    monkeypatch.setattr(node.shutil, "which", lambda name: prterun if name == "prterun" else None)
    assert node.mpi_environment("openmpi", SUBNET) == dict.fromkeys(names, "10.213.1.0/24")


LOGIN = {
    "openmpi": ("mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n", "10.213.1.5 slots=2 # a:9\n10.213.1.6 slots=3 # b\n"),
    "mpich": ("HYDRA build details:\n    Version:                                 5.0.2\n    Release Date:       a day\n",
              "# a\n10.213.1.5:2\n# b:7\n10.213.1.6:3\n"),
}


@pytest.mark.parametrize(("dialect", "said"), [("openmpi", "mpirun (Open MPI) 5.0.11"), ("mpich", "mpirun (MPICH) 5.0.2")])
def test_login_message(tmp_path, dialect, said):
    """Both dialects' host files and version lines: what a student reads is the same."""
    version, hosts = LOGIN[dialect]
    (tmp_path / "mpirun").write_text(f"#!/bin/sh\ncat <<'END'\n{version}END\n")
    (tmp_path / "mpirun").chmod(0o755)
    (tmp_path / "hostfile").write_text(hosts)
    script = (IMAGE / "login.sh").read_text().replace("/run/mpi/hostfile", str(tmp_path / "hostfile"))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MPI_ROLE": "master", "MPI_CLUSTER": "mpi", "HOME": str(tmp_path)}
    message = subprocess.run(["bash", "--norc", "-i"], input=script, env=env, capture_output=True, text=True, check=True).stdout
    assert message.startswith(f"Cluster mpi: 2 workers, 5 slots, {said}.\n")


class Worker(threading.Thread):
    """Greets whoever connects, as sshd does."""

    def __init__(self, greeting):
        super().__init__(daemon=True)
        self.greeting, self.socket = greeting, socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.start()

    def run(self):
        while True:
            self.socket.accept()[0].sendall(self.greeting)


def test_greeting(node, monkeypatch):
    monkeypatch.setattr(node, "SSH_PORT", Worker(b"SSH-2.0-OpenSSH_9.2p1 Debian-2 pc=alice slots=4\r\n").port)
    assert node.greeting("127.0.0.1") == _hostfile.Host("127.0.0.1", "alice", 4)
    monkeypatch.setattr(node, "SSH_PORT", Worker(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n").port)
    assert node.greeting("127.0.0.1") is None
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setattr(node, "SSH_PORT", closed.getsockname()[1])
    assert node.greeting("127.0.0.1") is None


def test_the_host_file_follows_the_answers(node, monkeypatch, tmp_path):
    both, one = {"10.213.1.6", "10.213.1.5"}, {"10.213.1.5"}
    hosts = node.HostFile("mpi_worker", SUBNET, "openmpi")
    asked = []
    five, six = "10.213.1.5 slots=2 # pc5\n", "10.213.1.6 slots=2 # pc6\n"
    for listed, greet, text in [
        (both, one, five), (both, both, five + six), (both, set(), five + six),
        (one, both, five + six), (set(), both, five + six),  # who is no longer listed, but greets, stays
        (one, one, five), (one, both, five), (set(), set(), ""),
    ]:
        monkeypatch.setattr(node, "addresses", lambda service, subnet, listed=listed: listed)
        monkeypatch.setattr(node, "greeting", lambda address, greet=greet: asked.append(address) or (
            _hostfile.Host(address, "pc" + address[-1], 2) if address in greet else None))
        hosts.look()
        assert (tmp_path / "hostfile").read_text() == text
    # whoever is known and listed is not asked; who is asked at once comes in any order
    assert {address: asked.count(address) for address in both} == {"10.213.1.5": 3, "10.213.1.6": 5}


def test_of_a_worker_and_its_successor_the_successor_counts(node, monkeypatch, tmp_path):
    hosts = node.HostFile("mpi_worker", SUBNET, "openmpi")
    old, new = "10.213.1.6", "10.213.1.5"
    monkeypatch.setattr(node, "greeting", lambda address: None if address in silent else _hostfile.Host(address, "alice", 2))
    for listed, silent, address in [
        ({old}, {}, old), ({old, new}, {}, new), ({old, new}, {new}, old), ({old, new}, {}, new),
        ({old, new}, {old}, new), ({new}, {old}, new), ({new}, {new}, new),
    ]:
        monkeypatch.setattr(node, "addresses", lambda service, subnet, listed=listed: listed)
        hosts.look()
        assert (tmp_path / "hostfile").read_text() == f"{address} slots=2 # alice\n"
        assert f"HostName {address}\n" in (tmp_path / "ssh_config").read_text()


def test_an_address_may_become_another_pcs(node, monkeypatch, tmp_path):
    """Never unlisted meanwhile: alice's 5 is bob's, whose old 6 is gone, and she has 7."""
    hosts = node.HostFile("mpi_worker", SUBNET, "openmpi")
    for workers in ({"5": "alice", "6": "bob"}, {"5": "bob", "7": "alice"}, {"5": "bob", "7": "alice"}):
        listed = {f"10.213.1.{octet}": pc for octet, pc in workers.items()}
        monkeypatch.setattr(node, "addresses", lambda service, subnet, listed=listed: set(listed))
        monkeypatch.setattr(node, "greeting", lambda address, listed=listed: _hostfile.Host(address, listed[address], 2) if address in listed else None)
        hosts.look()
    assert (tmp_path / "hostfile").read_text() == "10.213.1.5 slots=2 # bob\n10.213.1.7 slots=2 # alice\n"


@pytest.mark.parametrize(("answers", "ends"), [([set(), {"10.213.1.6"}, {"10.213.1.5"}], False), ([set(), {"10.213.1.6"}], True)])
def test_a_worker_that_is_never_listed_ends(node, monkeypatch, tmp_path, answers, ends):
    """Its time begins when it is healthy, which takes a PC that is busy longer."""
    healthy, slept = tmp_path / "healthy", []
    now = iter(range(0, 1000, 40))
    given, killed = iter(answers + [answers[-1]] * 9), []
    monkeypatch.setattr(node, "addresses", lambda service, subnet: next(given))
    monkeypatch.setattr(node, "interface_in", lambda subnet: ("eth0", "10.213.1.5"))
    monkeypatch.setattr(node.time, "monotonic", lambda: healthy.exists() and next(now))
    monkeypatch.setattr(node.time, "sleep", lambda seconds: slept.append(seconds) or len(slept) == 200 and healthy.touch())
    monkeypatch.setattr(node.os, "kill", lambda pid, number: killed.append(number))
    node.leave_unless_listed("mpi_worker", SUBNET)
    assert killed == ([node.signal.SIGTERM] if ends else [])


@pytest.mark.parametrize(("role", "check", "code"), [("worker", "true", 143), ("worker", "false", 72), ("master", "false", 143)])
def test_a_stopped_worker_says_that_its_shared_folder_is_away(node, monkeypatch, role, check, code):
    monkeypatch.setattr(node, "HOME_CHECK", check)
    assert node.exit_code(role) == code


def test_only_work_is_waited_for(node):
    rank = subprocess.Popen(["sleep", "60"])
    shell = subprocess.Popen(["sh"], stdin=subprocess.PIPE)
    try:
        names = node.working()
        assert "sleep" in names
        assert not {"sh", "bash", "sshd"} & set(names)
    finally:
        rank.kill()
        rank.wait()
        shell.communicate()
