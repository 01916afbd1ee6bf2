# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler

import pytest
import yaml
from ansible_collections.hpclab.swarm.plugins.modules import pc_info

ROUTES = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.12
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
        |-- 192.0.2.12
           /32 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
"""
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 0100007F:0949 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 0100007F:0949 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 333 1
"""
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  100: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 444 2 0 0
"""
DPKG = """\
Package: docker.io
Status: install ok installed
Priority: optional
Version: 20.10.24+dfsg1-1
Description: container runtime
 Version: not this one

Package: docker-cli
Status: deinstall ok config-files
Version: 26.1.5

Package: docker.io-doc
Status: install ok installed
Version: 1
"""
INFO = {
    "ID": "GJNJ:WUA7", "Name": "bob", "DockerRootDir": "/srv/docker", "Driver": "overlay2", "CgroupVersion": "2",
    "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"], "RegistryConfig": {"Mirrors": ["https://mirror.example/"]},
    "HttpProxy": "http://me:secret@proxy:3128",
    "Swarm": {
        "NodeID": "n1", "NodeAddr": "192.0.2.11", "LocalNodeState": "active", "ControlAvailable": True, "Error": "",
        "RemoteManagers": [{"NodeID": "n1", "Addr": "192.0.2.11:2377"}],
        "Cluster": {"ID": "c1", "DefaultAddrPool": ["10.213.0.0/16"], "SubnetSize": 24,
                    "Spec": {"CAConfig": {"NodeCertExpiry": 63072000000000000}}},
    },
}
NODES = [{
    "ID": "n1", "Spec": {"Labels": {"hpclab.cores": "4"}, "Role": "manager", "Availability": "active"},
    "Description": {"Hostname": "bob"}, "Status": {"State": "ready", "Addr": "192.0.2.11"},
}]


def test_routes_sorts_default_routes_by_metric():
    found = pc_info.routes(ROUTES)
    assert [route["interface"] for route in found if route["cidr"] == "0.0.0.0/0"] == ["eth0", "wlan0"]
    assert {"interface": "docker0", "cidr": "172.17.0.0/16"} in found
    assert {"interface": "eth0", "cidr": "192.0.2.0/24"} in found


def test_no_routes_no_network():
    assert pc_info.routes("") == []
    assert pc_info.network([]) == {"interface": None, "address": None, "cidr": None, "mtu": 0}


def test_network_of_loopback():
    found = pc_info.network([{"interface": "lo", "cidr": "0.0.0.0/0"}])
    assert (found["address"], found["cidr"]) == ("127.0.0.1", "127.0.0.0/8")
    assert found["mtu"] >= 1500


def test_interface_without_address():
    assert pc_info.interface_address("nosuchif0") == (None, None)


def test_addresses():
    assert pc_info.addresses(TRIE) == ["127.0.0.1", "192.0.2.12"]


def test_sockets():
    assert list(pc_info.sockets("tcp", TCP, {2377, 22})) == [(22, "tcp", "111"), (2377, "tcp", "222")]
    assert list(pc_info.sockets("udp", UDP, {4789})) == [(4789, "udp", "444")]
    assert list(pc_info.sockets("udp", "", {4789})) == []


def test_listeners_names_the_process():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with open("/proc/self/comm", encoding="utf-8") as stream:
            process = stream.read().strip()
        assert pc_info.listeners({port}) == [{"port": port, "protocol": "tcp", "process": process}]
    assert pc_info.listeners({port}) == []


def test_installed():
    assert pc_info.installed(DPKG, ["docker.io", "docker-cli", "nope"]) == {"docker.io": "20.10.24+dfsg1-1"}


@pytest.mark.parametrize("text, wanted", [
    ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', {"id": "debian", "version": "12", "codename": "bookworm"}),
    ("ID=arch\n", {"id": "arch", "version": "", "codename": ""}),
    ("", {"id": "", "version": "", "codename": ""}),
])
def test_operating_system(text, wanted):
    assert pc_info.operating_system(text) == wanted


def test_cores_counts_siblings_once(tmp_path):
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        topology = tmp_path / ("cpu%d" % cpu) / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings + "\n")
    assert pc_info.cores({0, 1, 2, 3}, str(tmp_path)) == 2
    assert pc_info.cores({0, 2}, str(tmp_path)) == 1
    assert pc_info.cores({2}, str(tmp_path)) == 1
    assert pc_info.cores({0, 7, 8}, str(tmp_path)) == 3  # no topology: each is a core


def test_engine_keeps_the_proxy_to_itself():
    found = pc_info.engine(INFO, {"Version": "26.1.5", "ApiVersion": "1.45"})
    assert found["rootless"] is True
    assert found["mirrors"] == ["https://mirror.example/"]
    assert found["http_proxy"] is True
    assert "secret" not in json.dumps(found)
    assert pc_info.engine(None, None) is None


def test_swarm():
    found = pc_info.swarm(INFO, NODES)
    assert found["cluster_id"] == "c1"
    assert found["remote_managers"] == ["192.0.2.11:2377"]
    assert found["nodes"] == [{"id": "n1", "name": "bob", "state": "ready", "role": "manager", "availability": "active",
                               "address": "192.0.2.11", "labels": {"hpclab.cores": "4"}}]


@pytest.mark.parametrize("info", [None, {}, {"Swarm": {"LocalNodeState": "inactive", "RemoteManagers": None}}])
def test_no_swarm(info):
    found = pc_info.swarm(info, None)
    assert (found["state"], found["manager"], found["nodes"], found["remote_managers"]) == ("inactive", False, [], [])


def test_disk_of_a_directory_that_is_not_there_yet(tmp_path):
    found = pc_info.disk(str(tmp_path / "var/lib/docker"))
    assert 0 <= found["free"] <= found["total"]
    assert found["path"].endswith("/var/lib/docker")


def test_records_leaves_out_what_is_broken(tmp_path):
    (tmp_path / "swarm_init.json").write_text('{"swarm": "joined"}')
    (tmp_path / "broken.json").write_text("{")
    assert pc_info.records(str(tmp_path)) == {"swarm_init": {"swarm": "joined"}}
    assert pc_info.records(str(tmp_path / "nothing")) == {}


@pytest.fixture
def engine_socket(tmp_path):
    """An HTTP server on a unix socket, which answers /info, fails on /fail and talks nonsense on /nonsense."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503 if self.path == "/fail" else 200)
            self.end_headers()
            self.wfile.write(b"<html>" if self.path == "/nonsense" else json.dumps(INFO).encode())

        def address_string(self):
            return "unix"

        def log_message(self, *args):
            pass

    path = str(tmp_path / "docker.sock")
    with socketserver.UnixStreamServer(path, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_ask(engine_socket):
    assert pc_info.ask("/info", engine_socket) == INFO
    assert pc_info.ask("/fail", engine_socket) is None
    assert pc_info.ask("/nonsense", engine_socket) is None
    assert pc_info.ask("/info", engine_socket + ".gone") is None


@pytest.mark.parametrize("check", [False, True])
def test_module_changes_nothing_and_returns_what_it_documents(check):
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"packages": ["dpkg"], "_ansible_check_mode": check}})
    run = subprocess.run([sys.executable, "-m", pc_info.__name__], input=arguments, capture_output=True, text=True, check=False,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer.pop("changed") is False
    answer.pop("invocation")
    assert set(answer) == set(yaml.safe_load(pc_info.RETURN))
    assert answer["hostname"] == os.uname().nodename
    assert answer["cores"] <= answer["cpus"] == len(os.sched_getaffinity(0))


def test_files_tells_only_what_everybody_may_read(tmp_path):
    for name, mode, content in (("open", 0o644, b"hola\n"), ("secret", 0o600, b"key"), ("binary", 0o644, b"\xff"), ("large", 0o644, b"x" * 70000)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    found = pc_info.files([str(tmp_path / name) for name in ("open", "secret", "binary", "large", "nothing")] + [str(tmp_path)])
    assert {path.rsplit("/", 1)[1]: (file["mode"], file["content"]) for path, file in found.items() if path != str(tmp_path)} == {
        "open": ("0644", "hola\n"), "secret": ("0600", ""), "binary": ("0644", ""), "large": ("0644", "")}
    assert (found[str(tmp_path)]["type"], found[str(tmp_path)]["content"]) == ("directory", "")
    (tmp_path / "away").symlink_to(tmp_path / "open")
    assert [pc_info.files([str(tmp_path / name)])[str(tmp_path / name)]["type"] for name in ("open", "away")] == ["file", "link"]
