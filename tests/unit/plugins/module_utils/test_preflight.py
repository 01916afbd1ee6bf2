# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import ipaddress

import pytest
from ansible_collections.hpclab.swarm.plugins.module_utils._preflight import findings
from hypothesis import given
from hypothesis import strategies as st

PCS = ("bob", "alice", "falco")
SETTINGS = {
    "group": "lab", "pcs": list(PCS), "managers_group": "managers", "managers": ["bob"], "manager": "bob", "holder": "",
    "address_pool": "10.213.0.0/16", "subnet_size": 24, "cert_days": 730, "min_free_gb": 5, "proxy": "", "require_all": False,
}
INACTIVE = {"state": "inactive", "error": "", "node_id": "", "address": "", "manager": False, "remote_managers": [], "cluster_id": "",
            "address_pool": [], "subnet_size": 0, "cert_expiry": 0, "nodes": []}


def bare(number, name):
    """A PC on which nothing was done yet."""
    address = "192.0.2.%d" % (11 + number)
    return {
        "hostname": name, "machine_id": "machine%d" % number, "os": {"id": "debian", "version": "12", "codename": "bookworm"},
        "disk": {"path": "/var/lib/docker", "free": 50 * 2**30, "total": 100 * 2**30}, "addresses": ["127.0.0.1", address],
        "routes": [{"interface": "eth0", "cidr": "192.0.2.0/24"}], "listeners": [], "snap": [], "rootless": [], "dockerd": "",
        "engine": None, "swarm": copy.deepcopy(INACTIVE), "wanted": {"address": address, "data_path_address": address},
    }


def engine(number, name):
    return {"id": "engine%d" % number, "name": name, "version": "20.10.24+dfsg1", "data_root": "/var/lib/docker", "rootless": False}


@pytest.fixture
def room():
    return {name: bare(number, name) for number, name in enumerate(PCS)}


@pytest.fixture
def swarm():
    """The three PCs in one Swarm."""
    infos = {name: bare(number, name) for number, name in enumerate(PCS)}
    for number, (name, info) in enumerate(infos.items()):
        info["engine"] = engine(number, name)
        info["listeners"] = [{"port": 7946, "protocol": "tcp", "process": "dockerd"}, {"port": 4789, "protocol": "udp", "process": ""}]
        info["swarm"].update(state="active", node_id="node%d" % number, address=info["wanted"]["address"],
                             remote_managers=["192.0.2.11:2377"])
    infos["bob"]["swarm"].update(
        manager=True, cluster_id="c1", address_pool=["10.213.0.0/16"], subnet_size=24,
        nodes=[{"id": "node%d" % number, "name": name, "state": "ready", "role": "worker", "labels": {}}
               for number, name in enumerate(PCS)])
    return infos


def only(infos, *words, **settings):
    """The one finding, in which the words are."""
    found = findings(infos, {**SETTINGS, **settings})
    assert len(found) == 1, found
    for word in words:
        assert word in found[0], found[0]
    assert found[0].endswith(".") and "\n" not in found[0]


def test_nothing_to_say(room, swarm):
    assert findings(room, SETTINGS) == []
    assert findings(swarm, SETTINGS) == []


@pytest.mark.parametrize("system, version", [("debian", "11"), ("debian", "14"), ("ubuntu", "20.04"), ("fedora", "40"), ("", "")])
def test_unknown_system(room, system, version):
    room["alice"]["os"] = {"id": system, "version": version, "codename": ""}
    only(room, "alice: runs", system, version, "Debian 12 or 13")


@pytest.mark.parametrize("system, version", [("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")])
def test_known_system(room, system, version):
    room["alice"]["os"] = {"id": system, "version": version, "codename": ""}
    assert findings(room, SETTINGS) == []


def test_snap(room):
    room["falco"]["snap"] = ["/snap/docker", "/var/snap/docker"]
    only(room, "falco: ", "snap (/snap/docker)", "volume plugins", "snap remove docker")


def test_engine_of_snap(swarm):
    swarm["falco"]["engine"]["data_root"] = "/var/snap/docker/common/var-lib-docker"
    only(swarm, "falco: ", "/var/snap/docker/common")


def test_rootless(room):
    room["falco"]["rootless"] = ["/run/user/1000/docker.sock"]
    only(room, "falco: ", "rootless (/run/user/1000/docker.sock)", "volume plugins")
    room["falco"]["dockerd"] = "/usr/sbin/dockerd"  # somebody's own, beside the PC's
    assert findings(room, SETTINGS) == []


def test_rootless_engine(swarm):
    swarm["falco"]["engine"]["rootless"] = True
    only(swarm, "falco: ", "rootless")


@pytest.mark.parametrize("version, old", [("19.03.15", True), ("20.9.0", True), ("20.10.0", False), ("28.2.2", False)])
def test_old_engine(swarm, version, old):
    swarm["alice"]["engine"]["version"] = version
    if old:
        only(swarm, "alice: ", version, "20.10")
    else:
        assert findings(swarm, SETTINGS) == []


def test_disk(room):
    room["alice"]["disk"]["free"] = 3 * 2**30
    only(room, "alice: /var/lib/docker has 3.0 GB free", "swarm_init_min_free_gb is 5")
    assert findings(room, {**SETTINGS, "min_free_gb": 3}) == []


def test_other_host_name(room):
    room["alice"]["hostname"] = "debian"
    only(room, "alice: its host name is debian", "hostnamectl set-hostname alice")


def test_engine_with_an_old_name(swarm):
    swarm["alice"]["engine"]["name"] = "debian"
    only(swarm, "alice: ", "debian", "systemctl restart docker")


@pytest.mark.parametrize("port, protocol, process, pc, bad", [
    (7946, "tcp", "consul", "alice", True),
    (7946, "udp", "consul", "alice", True),
    (4789, "udp", "", "alice", True),
    (2377, "tcp", "nginx", "bob", True),
    (2377, "tcp", "nginx", "alice", False),  # a worker does not need it
    (2377, "udp", "nginx", "bob", False),
    (7946, "tcp", "dockerd", "alice", False),
])
def test_port(room, port, protocol, process, pc, bad):
    room[pc]["listeners"] = [{"port": port, "protocol": protocol, "process": process}]
    if bad:
        only(room, pc + ": ", "%d/%s" % (port, protocol), process or "kernel")
    else:
        assert findings(room, SETTINGS) == []


@pytest.mark.parametrize("pool, words", [
    ("10.213/16", ["10.213/16 is not an IPv4 network"]),
    ("nonsense", ["nonsense is not"]),
    ("10.213.0.0", ["10.213.0.0 is not"]),
    ("fd00::/16", ["fd00::/16 is not"]),
    ("10.213.5.0/16", ["host bits", "write 10.213.0.0/16"]),
    ("10.213.0.0/24", ["no room", "/26 or more"]),
])
def test_bad_pool(room, pool, words):
    only(room, "swarm_init_", *words, address_pool=pool)


def test_pool_overlaps_a_route(room):
    for pc in ("bob", "alice"):
        room[pc]["routes"].append({"interface": "tun0", "cidr": "10.213.7.0/24"})
    only(room, "bob, alice: ", "10.213.0.0/16 overlaps the route to 10.213.7.0/24 (tun0)")


def test_pool_around_the_bridge_of_the_engine(swarm):
    swarm["bob"]["routes"].append({"interface": "docker_gwbridge", "cidr": "172.18.0.0/16"})
    swarm["bob"]["swarm"]["address_pool"] = ["172.16.0.0/12"]
    only(swarm, "docker_gwbridge", address_pool="172.16.0.0/12")


@given(st.ip_addresses(v=4), st.integers(8, 22), st.ip_addresses(v=4), st.integers(8, 32))
def test_pool_overlaps_as_addresses_do(pool_address, pool_size, route_address, route_size):
    pool = ipaddress.ip_network("%s/%d" % (pool_address, pool_size), strict=False)
    route = ipaddress.ip_network("%s/%d" % (route_address, route_size), strict=False)
    infos = {"bob": bare(0, "bob")}
    infos["bob"]["routes"] = [{"interface": "eth1", "cidr": str(route)}]
    found = findings(infos, {**SETTINGS, "pcs": ["bob"], "address_pool": str(pool)})
    assert bool(found) == (pool[0] <= route[-1] and route[0] <= pool[-1])


@pytest.mark.parametrize("size, pcs, bad", [(28, 6, False), (28, 7, True), (24, 126, False), (24, 127, True), (31, 1, True), (33, 1, True)])
def test_subnet_size(room, size, pcs, bad):
    found = findings(room, {**SETTINGS, "subnet_size": size, "pcs": list(PCS) + ["pc%d" % number for number in range(pcs - 3)]})
    assert [("/%d is too small for" % size) in sentence for sentence in found] == [True] * bad


@given(st.integers(1, 2000), st.integers(18, 33))
def test_the_subnet_size_proposed_fits(pcs, size):
    settings = {**SETTINGS, "pcs": ["bob"] + ["pc%d" % number for number in range(pcs - 1)], "address_pool": "10.0.0.0/8"}
    found = findings({"bob": bare(0, "bob")}, {**settings, "subnet_size": size})
    if found:
        better = int(found[0].split("make it /")[1].split()[0])
        assert better < size
        assert findings({"bob": bare(0, "bob")}, {**settings, "subnet_size": better}) == []


@pytest.mark.parametrize("days", [0, -1, 200000])
def test_cert_days(room, days):
    only(room, "swarm_init_cert_days: %d" % days, cert_days=days)


@pytest.mark.parametrize("proxy, bad", [
    ("proxy:3128", True), ("http://a b", True), ('http://a"', True), ("http://proxy:3128", False), ("https://me:p%40ss@proxy", False)])
def test_proxy(room, proxy, bad):
    if bad:
        only(room, "swarm_init_proxy: " + proxy, proxy=proxy)
    else:
        assert findings(room, {**SETTINGS, "proxy": proxy}) == []


def test_password_of_the_proxy_is_not_said(room):
    found = findings(room, {**SETTINGS, "proxy": "me:secret@proxy:3128"})
    assert len(found) == 1 and "secret" not in found[0]


def test_groups(room):
    only(room, "managers has 2 PCs (bob, alice)", "1 or 3", managers=["bob", "alice"])
    only(room, "managers has no PC", managers=[], manager="")
    only(room, "dora: in the group managers, but not in lab", managers=["bob", "dora", "alice"])
    assert [sentence for sentence in findings({}, {**SETTINGS, "pcs": [], "managers": [], "manager": ""}) if "lab has no PC" in sentence]


def test_no_manager_on(room):
    room["bob"] = {"unreachable": True, "msg": "no route to host"}
    only(room, "bob: no manager is on", manager="")


def test_no_manager_in_the_run(room):
    del room["bob"]
    only(room, "bob: ", "--limit", manager="")


def test_a_pc_off(room):
    room["alice"] = {"unreachable": True, "msg": "no route to host"}
    assert findings(room, SETTINGS) == []
    only(room, "alice: off", "swarm_init_require_all", require_all=True)


def test_a_pc_that_fails(room):
    room["alice"] = {"failed": True, "msg": "Missing sudo\npassword."}
    only(room, "alice: can't be asked (Missing sudo password)")
    room["alice"] = {"failed": True}
    only(room, "alice: can't be asked (no reason given)")


def test_the_manager_fails(room):
    room["bob"] = {"failed": True, "msg": "Missing sudo password"}
    only(room, "bob: can't be asked", manager="")


@pytest.mark.parametrize("name", ["address", "data_path_address"])
def test_foreign_address(room, name):
    room["alice"]["wanted"][name] = "198.51.100.9"
    only(room, "alice: swarm_init_%s is 198.51.100.9" % name, "192.0.2.12")


def test_no_address(room):
    room["alice"]["wanted"] = {"address": "", "data_path_address": ""}
    only(room, "alice: ", "set swarm_init_address")


def test_twins(swarm):
    swarm["falco"]["machine_id"] = swarm["alice"]["machine_id"]
    only(swarm, "alice, falco: have the same machine id machine1", "cloned")
    swarm["falco"]["machine_id"] = "other"
    swarm["falco"]["engine"]["id"] = swarm["alice"]["engine"]["id"]
    only(swarm, "alice, falco: have the same Docker engine id engine1")


def test_same_host_name(room):
    room["falco"]["hostname"] = "alice"
    found = findings(room, SETTINGS)
    assert len(found) == 2
    assert found[1].startswith("alice, falco: have the same host name alice")


def test_in_a_swarm_while_the_manager_is_in_none(room, swarm):
    room["alice"]["engine"], room["alice"]["swarm"] = swarm["alice"]["engine"], swarm["alice"]["swarm"]
    only(room, "alice: is in a Swarm (managers 192.0.2.11:2377)", "manager bob is in none", "docker swarm leave")


def test_in_another_swarm(swarm):
    swarm["alice"]["swarm"].update(node_id="elsewhere", remote_managers=["198.51.100.1:2377"])
    only(swarm, "alice: is in another Swarm (managers 198.51.100.1:2377)")
    swarm["alice"]["swarm"].update(manager=True, cluster_id="c2")
    only(swarm, "alice: is in another Swarm (cluster id c2)")


def test_joins_later(swarm):
    swarm["alice"]["swarm"] = copy.deepcopy(INACTIVE)
    swarm["alice"]["listeners"] = []
    swarm["falco"].update(bare(2, "falco"))
    assert findings(swarm, SETTINGS) == []


def test_manager_is_a_worker_elsewhere(swarm):
    swarm["bob"]["swarm"].update(manager=False, nodes=[], cluster_id="")
    only(swarm, "bob: shall manage", "192.0.2.11:2377", "docker swarm leave")


@pytest.mark.parametrize("state, remedy", [
    ("error", "ends that Swarm"), ("locked", "docker swarm unlock"), ("pending", "more than half"), ("active", "more than half")])
def test_manager_does_not_answer(swarm, state, remedy):
    swarm["bob"]["swarm"].update(state=state, error="bad luck", nodes=[])
    only(swarm, "bob: ", remedy)


def test_engine_of_the_manager_is_stopped(swarm):
    swarm["bob"].update(engine=None, swarm=copy.deepcopy(INACTIVE), listeners=[], dockerd="/usr/sbin/dockerd")
    only(swarm, "bob: ", "systemctl start docker")


def test_worker_lost_or_broken(swarm):
    swarm["alice"]["swarm"].update(state="error", error="certificate expired", node_id="")
    only(swarm, "alice: ", "certificate expired", "docker swarm leave")
    swarm["bob"]["swarm"]["nodes"][1]["state"] = "down"  # then the Swarm takes it back
    assert findings(swarm, SETTINGS) == []


def test_locked(swarm):
    swarm["alice"]["swarm"]["state"] = "locked"
    only(swarm, "alice: ", "docker swarm unlock")


def test_pool_of_the_swarm_that_is_there(swarm):
    swarm["bob"]["swarm"].update(address_pool=["10.0.0.0/8"])
    only(swarm, "bob: ", "10.0.0.0/8", "/24", "can't be changed")
    swarm["bob"]["swarm"].update(address_pool=["10.213.0.0/16"], subnet_size=26)
    only(swarm, "/26")


def test_address_changed(swarm):
    swarm["alice"]["addresses"].append("192.0.2.99")
    swarm["alice"]["wanted"]["address"] = "192.0.2.99"
    only(swarm, "alice: the Swarm knows it as 192.0.2.12, but its address is 192.0.2.99")


def test_all_findings_at_once(room):
    room["alice"]["os"]["version"] = "11"
    room["falco"]["disk"]["free"] = 0
    found = findings(room, {**SETTINGS, "managers": ["bob", "alice"], "address_pool": "x"})
    assert len(found) == 4


def test_the_manager_that_keeps_keys_and_registry_is_off(swarm):
    head = swarm["bob"]["swarm"]
    swarm["alice"]["swarm"].update({key: head[key] for key in ("manager", "cluster_id", "address_pool", "subnet_size", "nodes")})
    swarm["bob"] = {"unreachable": True}
    managers = {"managers": ["bob", "alice", "falco"], "manager": "alice"}
    only(swarm, "bob: is off", "keeps the lab's registry", "--label-rm hpclab.manager bob", holder="bob", **managers)
    assert findings(swarm, {**SETTINGS, **managers, "holder": "alice"}) == []
