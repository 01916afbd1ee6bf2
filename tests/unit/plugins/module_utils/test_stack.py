# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import copy

import pytest
from ansible_collections.hpclab.swarm.plugins.module_utils import _stack
from ansible_collections.hpclab.swarm.plugins.module_utils._stack import BadInput
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MOUNT = {"type": "volume", "source": "home", "target": "/home/mpiuser", "read_only": False, "propagation": None, "nocopy": False,
         "driver": None, "driver_options": None}
PARAMS = {
    "name": "lab", "state": "present", "image": "img:1", "pcs": None, "workers": None, "slots": None, "master": None, "cpus": None,
    "memory": None, "shm_size": "1g", "ssh_port": 2222, "members": "/etc/hpclab/members", "placement": [], "subnet": None, "mtu": None,
    "mounts": [], "environment": {}, "grace_period": 60, "timeout": 120,
}
KEYS = _stack.secrets("lab", {"user_key": b"very private", "user_key.pub": b"public"})
USER_KEY = "lab_user_key_263baead"


def params(**changes):
    return dict(PARAMS, **changes)


def node(name, state="ready", engine="20.10.24+dfsg1", **labels):
    return {"ID": "id-" + name, "Spec": {"Labels": labels, "Role": "worker", "Availability": "active"},
            "Description": {"Hostname": name, "Engine": {"EngineVersion": engine}}, "Status": {"State": state}}


def network(name, *subnets, **labels):
    return {"id": "net-" + name, "name": name, "labels": labels, "internal": True, "mtu": 0, "subnets": list(subnets)}


def service(name, labels=None, port=None, mode="host", on=None):
    return {"ID": "svc-" + name, "Spec": {
        "Name": name, "Labels": labels, "TaskTemplate": {"ContainerSpec": {}, "Placement": {"Constraints": ["node.hostname==" + on] if on else []}},
        "Mode": {"Replicated": {"Replicas": 1}}, "EndpointSpec": {"Ports": [{"PublishedPort": port, "PublishMode": mode}] if port else []}}}


def room(nodes=None, networks=(), services=(), size=24):
    return _stack.Room([node("bob"), node("alice"), node("falco", "down")] if nodes is None else nodes, "bob", list(networks), list(services), size)


def as_engine(want):
    """What the engine returns of it."""
    there = copy.deepcopy(want)
    there["service"] = {name: _stack.pruned(spec) for name, spec in there["service"].items()}
    for name, subnet in (("lab_mpi", "10.213.1.0/24"), ("lab_access", "10.213.2.0/24")):
        there["network"][name].setdefault("subnets", [subnet])
    return there


def wanted(**changes):
    return _stack.wanted(params(**changes), room(), KEYS, changes.get("subnet") or "10.213.1.0/24")


# bad input

@pytest.mark.parametrize("changes, sentence", [
    ({"name": "Lab_1"}, "name: 'Lab_1' can't be a cluster's name; use"),
    ({"name": "x" * 32}, "can't be a cluster's name"),
    ({"name": "lab-"}, "can't be a cluster's name"),
    ({"name": "Lab_1", "state": "absent"}, "can't be a cluster's name"),
    ({"pcs": []}, "pcs: the list is empty; name at least one PC"),
    ({"workers": 0}, "workers: 0 is too little; give 1 or more"),
    ({"slots": -1}, "slots: -1 is too little"),
    ({"cpus": 0}, "cpus: 0 is too little; give 0.01 or more"),
    ({"mtu": 100}, "mtu: 100 is too little; give 576 or more"),
    ({"grace_period": -1}, "grace_period: -1 is too little; give 0 or more"),
    ({"ssh_port": 70000}, "ssh_port: 70000 is no TCP port; give one from 1 to 65535"),
    ({"memory": "4x"}, "memory: '4x' is no size; write"),
    ({"shm_size": "1"}, "shm_size: 1 is too little; give 4m or more"),
    ({"placement": ["room=b12"]}, "placement: 'room=b12' is no constraint; write it like node.labels.room==b12"),
    ({"environment": {"MPI_ROLE": "x"}}, "environment: MPI_ROLE is the module's to set; leave it out"),
    ({"environment": {"A B": "x"}}, "environment: 'A B' can't be a variable's name"),
    ({"environment": {"A": True}}, "environment: A is True, neither text nor a number; quote it"),
    ({"subnet": "10.213.7.0"}, "subnet: '10.213.7.0' is no IPv4 network; write it like 10.213.7.0/32"),
    ({"subnet": "10.213.7.9/24"}, "write it like 10.213.7.0/24"),
    ({"subnet": "many"}, "subnet: 'many' is no IPv4 network"),
    ({"subnet": "fd00::/64"}, "subnet: 'fd00::/64' is no IPv4 network"),
    ({"mounts": [dict(MOUNT, target="home")]}, "mounts: target 'home' is no absolute path; begin it with /"),
    ({"mounts": [dict(MOUNT, target="/dev/shm/")]}, "mounts: something is mounted on /dev/shm/ already; choose another target"),
    ({"mounts": [MOUNT, dict(MOUNT, source="two")]}, "mounts: something is mounted on /home/mpiuser already"),
    ({"mounts": [dict(MOUNT, type="bind")]}, "mounts: source 'home' of the bind on /home/mpiuser is no absolute path"),
    ({"mounts": [dict(MOUNT, source="/srv/home")]}, "mounts: source '/srv/home' can't be a volume's name; use"),
    ({"mounts": [dict(MOUNT, propagation="rslave")]}, "mounts: propagation on /home/mpiuser is for type bind only; leave it out"),
    ({"mounts": [dict(MOUNT, type="bind", source="/srv", nocopy=True)]}, "mounts: nocopy on /home/mpiuser is for type volume only"),
])
def test_bad_parameters(changes, sentence):
    with pytest.raises(BadInput) as error:
        _stack.check_parameters(params(**changes))
    assert sentence in str(error.value)


@pytest.mark.parametrize("changes", [
    {}, {"name": "a"}, {"workers": 15, "cpus": 1.5, "memory": "512m"}, {"subnet": "10.213.7.0/24"}, {"placement": ["node.labels.room == b12"]},
    {"mounts": [dict(MOUNT, type="bind", source="/srv", propagation="rslave"), dict(MOUNT, target="/data", driver="sshfs")]},
    {"environment": {"A": "x", "B": 1, "C": 1.5}}, {"state": "absent", "pcs": [], "image": None},
])
def test_good_parameters(changes):
    _stack.check_parameters(params(**changes))


@pytest.mark.parametrize("text, size", [("1g", 2**30), ("1.5G", 3 * 2**29), ("64mb", 2**26), ("4096", 4096), (0, 0)])
def test_size(text, size):
    assert _stack.size(text) == size


KEY = "PRIVATE KEY-----"  # apart, so that no line here reads like one


def openssh(public=b"public", cipher=b"\0\0\0\4none"):
    body = base64.b64encode(b"openssh-key-v1\0" + cipher + b"\0\0" + public).decode()
    return "-----BEGIN OPENSSH {1}\n{0}\n-----END OPENSSH {1}\n".format(body, KEY)


PUB = "ssh-ed25519 {0} me@bob\n".format(base64.b64encode(b"public").decode())
PEM = "-----BEGIN RSA {0}\nMII=\n-----END RSA {0}\n".format(KEY)


@pytest.mark.parametrize("private, public, sentence", [
    (PUB, PUB, "user_key: /k is a public key; give the path of the private one"),
    ("hello", PUB, "user_key: /k is no private key; make one with ssh-keygen"),
    ("", PUB, "user_key: /k is no private key"),
    (openssh(), openssh(), "user_key: /k.pub is a private key; make the public one with ssh-keygen -y -f /k"),
    (openssh(), "hello", "user_key: /k.pub is no public key; make it with"),
    (openssh(b"other"), PUB, "user_key: /k.pub does not belong to /k; make it with"),
    (openssh(cipher=b"\0\0\0\x0aaes256-ctr"), PUB, "user_key: /k has a passphrase"),
    ("-----BEGIN OPENSSH {0}\nx".format(KEY), PUB, "user_key: /k or its .pub is damaged"),
    (openssh(), PUB, None),
    (PEM, PUB, None),
])
def test_keys(private, public, sentence):
    def check():
        _stack.check_private("user_key", "/k", private)
        _stack.check_public("user_key", "/k", private, public)
    if sentence:
        with pytest.raises(BadInput) as error:
            check()
        assert sentence in str(error.value)
        assert "BEGIN" not in str(error.value)
    else:
        check()


OURS = {_stack.NAMESPACE: "lab", _stack.CLUSTER: "lab"}


@pytest.mark.parametrize("changes, where, sentence", [
    ({"pcs": ["bob", "alicia"]}, {}, "pcs: alicia is not in the Swarm; its PCs are alice, bob and falco"),
    ({"pcs": ["x", "y"]}, {}, "pcs: x and y are not in the Swarm"),
    ({"master": "alicia"}, {}, "master: alicia is not in the Swarm; its PCs are alice, bob and falco"),
    ({"master": "falco"}, {}, "master: falco can't run it, the PC is down; bring it back or choose one of alice and bob"),
    ({"pcs": ["falco"]}, {}, "pcs: no PC can run a worker (falco: the PC is down); bring one back"),
    ({"workers": 3, "placement": ["node.labels.room==b12"]}, {}, "workers: no PC can run a worker (alice: it does not meet placement; bob:"),
    ({}, {"services": [service("lab_master")]}, "name: lab is in use, the service lab_master was not made by this module; choose another"),
    ({}, {"services": [service("lab_web", {_stack.NAMESPACE: "lab"})]}, "name: lab is in use, the service lab_web was not"),
    ({}, {"networks": [network("lab_mpi")]}, "name: lab is in use, the network lab_mpi was not"),
    ({}, {"services": [service("web", port=2222, on="bob")]}, "ssh_port: 2222 is published on bob by the service web; choose another port"),
    ({}, {"services": [service("web", port=2222)]}, "ssh_port: 2222 is published on bob by the service web"),
    ({}, {"services": [service("web", port=2222, mode="ingress", on="alice")]}, "ssh_port: 2222 is published on bob by the service web"),
    ({"subnet": "10.1.0.0/16"}, {"networks": [network("bridge"), network("lan", "fd00::/64", "10.1.2.0/24")]},
     "subnet: 10.1.0.0/16 overlaps 10.1.2.0/24 of the network lan; choose another"),
    ({"subnet": "10.1.0.0/28", "workers": 10}, {"nodes": [node("bob"), node("alice"), node("falco")]},
     "subnet: 10.1.0.0/28 is too small, 10 workers and their master need 17 addresses and it has 16; give a /27 or larger"),
    ({"subnet": "10.1.0.0/29", "pcs": ["alice", "bob"], "master": "bob"}, {}, None),  # 3 + 3 tasks + 2 PCs
    ({"subnet": "10.1.0.0/29", "pcs": ["alice", "falco"], "master": "bob"}, {}, "2 workers and their master need 9 addresses and it has 8"),
    ({"workers": 252}, {}, "subnet: a /24 of the Swarm's pool is too small, 252 workers and their master need 259 addresses"),
    ({"workers": 252}, {"size": 23}, None),
    ({"workers": 252}, {"networks": [network("lab_mpi", "10.213.0.0/23", **OURS)]}, None),
    ({"subnet": "10.1.0.0/28", "workers": 9}, {"nodes": [node("bob"), node("alice"), node("falco")]}, None),  # full: seen to work
    ({"subnet": "10.1.0.0/24"}, {"networks": [network("lab_mpi", "10.1.0.0/24", **OURS)]}, None),
    ({}, {"services": [service("lab_master", OURS, port=2222, on="bob")]}, None),
    ({}, {"services": [service("web", port=2222, on="alice")]}, None),
    ({"pcs": ["bob", "falco"]}, {}, None),  # one is off, the other is not
])
def test_what_the_swarm_says(changes, where, sentence):
    if sentence is None:
        _stack.check_room(params(**changes), room(**where))
        return
    with pytest.raises(BadInput) as error:
        _stack.check_room(params(**changes), room(**where))
    assert sentence in str(error.value)


# what is wanted

def env(spec):
    return dict(item.split("=", 1) for item in spec["TaskTemplate"]["ContainerSpec"]["Env"])


def test_workers_on_pcs():
    want = wanted(pcs=["bob", "alice", "bob"])
    assert want["pc"] == {"alice": {"label": "hpclab.cluster.lab"}, "bob": {"label": "hpclab.cluster.lab"}}
    worker = want["service"]["lab_worker"]
    assert worker["Mode"] == {"Global": {}}
    assert worker["TaskTemplate"]["Placement"]["Constraints"] == ["node.labels.hpclab.cluster.lab==true"]
    assert worker["TaskTemplate"]["ContainerSpec"]["Hostname"] == "{{.Node.Hostname}}"
    assert env(worker) == {
        "MPI_ROLE": "worker", "MPI_CLUSTER": "lab", "MPI_WORKERS": "lab_worker", "MPI_SUBNET": "10.213.1.0/24", "MPI_PC": "{{.Node.Hostname}}"}
    assert [item["Target"] for item in worker["TaskTemplate"]["Networks"]] == ["lab_mpi"]


def test_a_number_of_workers():
    want = wanted(workers=15, cpus=1.5, memory="4g", placement=["node.labels.room==b12"])
    assert want["pc"] == {}
    worker = want["service"]["lab_worker"]
    assert worker["Mode"] == {"Replicated": {"Replicas": 15}}
    assert worker["TaskTemplate"]["Placement"]["Constraints"] == ["node.labels.room==b12"]
    assert worker["TaskTemplate"]["ContainerSpec"]["Hostname"] == "{{.Node.Hostname}}-{{.Task.Slot}}"
    assert (env(worker)["MPI_SLOTS"], env(worker)["MPI_NUMBER"]) == ("1", "{{.Task.Slot}}")
    assert worker["TaskTemplate"]["Resources"]["Limits"] == {"NanoCPUs": 1500000000, "MemoryBytes": 2**32}


def test_slots_and_environment():
    want = wanted(slots=3, environment={"OMPI_MCA_x": 1})["service"]
    assert (env(want["lab_worker"])["MPI_SLOTS"], env(want["lab_worker"])["OMPI_MCA_x"]) == ("3", "1")
    assert "MPI_SLOTS" not in env(want["lab_master"])  # else a change of slots would log users out
    assert env(want["lab_master"])["OMPI_MCA_x"] == "1"


def test_master():
    master = wanted(ssh_port=2223, grace_period=5)["service"]["lab_master"]
    assert master["EndpointSpec"] == {"Mode": "dnsrr", "Ports": [
        {"Protocol": "tcp", "TargetPort": 2222, "PublishedPort": 2223, "PublishMode": "host"}]}
    template = master["TaskTemplate"]
    assert template["Placement"]["Constraints"] == ["node.hostname==bob"]
    assert [item["Target"] for item in template["Networks"]] == ["lab_mpi", "lab_access"]
    assert template["ContainerSpec"]["Hostname"] == "lab-master"
    assert template["ContainerSpec"]["StopGracePeriod"] == 5 * 10**9
    assert template["ContainerSpec"]["CapabilityDrop"] == ["ALL"]
    assert template["ContainerSpec"]["Mounts"][-1] == {
        "Type": "bind", "Source": "/etc/hpclab/members", "Target": "/etc/mpi/members", "ReadOnly": True}


@pytest.mark.parametrize(("engine", "asked"), [("20.10.24+dfsg1", {}), ("26.1.5+dfsg1", {"StartInterval": 10**9}), ("", {})])
def test_how_often_a_new_container_is_asked(engine, asked):
    there = room([node("bob", engine=engine), node("alice", engine="20.10.24")])
    for service_wanted in _stack.wanted(params(), there, KEYS, "10.213.1.0/24")["service"].values():
        assert service_wanted["TaskTemplate"]["ContainerSpec"]["Healthcheck"] == asked


def test_secrets_are_named_by_their_content():
    assert sorted(KEYS) == ["lab_user_key.pub_efa1f375", USER_KEY]
    spec = wanted()["service"]["lab_worker"]["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert spec[1] == {"SecretName": USER_KEY, "File": {"Name": "user_key", "UID": "1000", "GID": "1000", "Mode": 0o400}}


@pytest.mark.parametrize("mount, spec", [
    (MOUNT, {"Type": "volume", "Source": "home", "Target": "/home/mpiuser", "ReadOnly": False}),
    (dict(MOUNT, type="bind", source="/srv", read_only=True, propagation="rslave"),
     {"Type": "bind", "Source": "/srv", "Target": "/home/mpiuser", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}}),
    (dict(MOUNT, nocopy=True, driver="sshfs", driver_options={"sshcmd": "bob:/srv"}),
     {"Type": "volume", "Source": "home", "Target": "/home/mpiuser", "ReadOnly": False, "VolumeOptions": {
         "NoCopy": True, "DriverConfig": {"Name": "sshfs", "Options": {"sshcmd": "bob:/srv"}}}}),
])
def test_mounts(mount, spec):
    assert wanted(mounts=[mount])["service"]["lab_worker"]["TaskTemplate"]["ContainerSpec"]["Mounts"][1] == spec


# what is there

def test_existing_takes_only_the_cluster_s():
    label = {"hpclab.cluster.lab": "true"}
    other = dict.fromkeys(OURS, "other")
    mine = service("lab_worker", OURS)
    mine["Spec"]["TaskTemplate"].update(
        Networks=[{"Target": "net-lab_mpi"}, {"Target": "gone"}], ContainerSpec={"Secrets": [{"SecretID": "s", "SecretName": "k"}]})
    there = _stack.existing("lab", room(
        nodes=[node("bob", **label), dict(node("alice", "down", **label), ID="stale"), node("alice", **label), node("falco")],
        networks=[network("lab_mpi", "10.1.0.0/24", **OURS), network("other_mpi", **other), network("bridge")],
        services=[mine, service("other_worker", other), service("web")],
    ), [{"ID": "s", "Spec": {"Name": "k", "Labels": {_stack.SHA256: "abc"}}}])
    assert sorted(there["pc"]) == ["alice", "bob", "stale"]
    assert there["secret"] == {"k": {"sha256": "abc"}}
    assert there["network"] == {"lab_mpi": {"labels": OURS, "internal": True, "mtu": 0, "subnets": ["10.1.0.0/24"]}}
    template = there["service"]["lab_worker"]["TaskTemplate"]
    assert template["Networks"] == [{"Target": "lab_mpi"}, {"Target": "gone"}]
    assert template["ContainerSpec"]["Secrets"] == [{"SecretName": "k"}]
    assert mine["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"] == [{"SecretID": "s", "SecretName": "k"}]


# how they differ

def plan(before, **changes):
    there = as_engine(wanted(**before)) if before is not None else {kind: {} for kind in ("pc", "secret", "network", "service")}
    return _stack.plan(params(**changes), room(), KEYS, there)[0]


def test_new_cluster():
    found = plan(None)
    assert found.changed and not found.drop and not found.update and not found.rebuilds
    assert [kind for kind, unused in found.make] == ["pc"] * 3 + ["secret"] * 2 + ["network"] * 2 + ["service"] * 2
    assert found.diff["before"] == {}
    assert "MPI_SUBNET=(from the Swarm's address pool)" in found.diff["after"]["service lab_worker"]["TaskTemplate"]["ContainerSpec"]["Env"]
    assert "very private" not in str((found.diff, found.actions))


def test_absent():
    found = plan({}, state="absent")
    assert len(found.drop) == 9 and not found.make and not found.update
    assert found.diff["after"] == {}


untimed = settings(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
choices = st.fixed_dictionaries({
    "pcs": st.none() | st.lists(st.sampled_from(["bob", "alice", "falco"]), min_size=1),
    "slots": st.none() | st.integers(1, 64),
    "cpus": st.none() | st.floats(0.01, 64),
    "memory": st.none() | st.sampled_from(["512m", "4g"]),
    "mtu": st.none() | st.integers(576, 9000),
    "subnet": st.none() | st.just("10.9.0.0/24"),
    "members": st.none() | st.just("/m"),
    "placement": st.lists(st.sampled_from(["node.labels.a==b", "node.role==worker"])),
    "environment": st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["", "x=y", 1])),
    "grace_period": st.integers(0, 600),
    "mounts": st.sampled_from([[], [MOUNT], [dict(MOUNT, nocopy=True, driver="d", driver_options={"a": "b"})]]),
}) | st.fixed_dictionaries({"workers": st.integers(1, 200)})


@untimed
@given(choices)
def test_second_run_changes_nothing(chosen):
    assert not plan(chosen, **chosen).changed


@untimed
@given(choices, choices)
def test_after_the_change_nothing_differs(before, after):
    """A service that was updated in place, over what the engine had, is what was wanted."""
    there = as_engine(wanted(**before))
    found, want = _stack.plan(params(**after), room(), KEYS, there)
    for kind, name in found.drop:
        del there[kind][name]
    for kind, name in found.make:
        there[kind][name] = want[kind][name]
    for kind, name in found.update:
        there[kind][name] = _stack.merged(there[kind][name], want[kind][name])
    made = {"service": {name: _stack.pruned(spec) for name, spec in there["service"].items()}}
    assert not _stack.Plan(dict(there, **made), want).changed


@pytest.mark.parametrize("before, after, update, keys, restarts", [
    ({}, {"image": "img:2"}, ["lab_master", "lab_worker"], "Image", True),
    ({}, {"slots": 2}, ["lab_worker"], "Env", True),
    ({}, {"ssh_port": 2223}, ["lab_master"], "Ports", True),
    ({}, {"members": "/elsewhere"}, ["lab_master"], "Mounts", True),
    ({}, {"master": "alice"}, ["lab_master"], "Constraints", True),
    ({"cpus": 2.0}, {}, ["lab_worker"], "NanoCPUs", True),
    ({"environment": {"A": "1"}}, {}, ["lab_master", "lab_worker"], "Env", True),
    ({"workers": 3}, {"workers": 15}, ["lab_worker"], "Replicas", False),
    ({}, {"grace_period": 5}, ["lab_master", "lab_worker"], "StopGracePeriod", True),
])
def test_changes_in_place(before, after, update, keys, restarts):
    found = plan(before, **after)
    assert [name for unused, name in found.update] == update
    assert not found.make and not found.drop and not found.rebuilds
    effect = found.diff["after"]["service " + update[0]]["effect"]
    assert keys in effect and ("its tasks restart" in effect) is restarts
    assert sorted(found.diff["before"]) == ["service " + name for name in update]


def test_pcs_come_and_go_without_touching_services():
    found = plan({"pcs": ["alice", "bob"]}, pcs=["bob", "falco"])
    assert (found.make, found.drop, found.update) == ([("pc", "falco")], [("pc", "alice")], [])


@pytest.mark.parametrize("before, after, why", [
    ({}, {"workers": 3}, "service lab_worker: Swarm can't change a global service into a replicated one"),
    ({"workers": 3}, {}, "service lab_worker: Swarm can't change a replicated service into a global one"),
])
def test_change_of_mode(before, after, why):
    found = plan(before, **after)
    assert found.rebuilds == [why]
    assert ("service", "lab_worker") in found.drop and ("service", "lab_worker") in found.make
    assert not [item for item in found.drop + found.make + found.update if item[1] == "lab_master"]
    assert why.split(": ")[1] in found.diff["after"]["service lab_worker"]["effect"]
    assert found.diff["before"]["service lab_worker"]["Mode"] != found.diff["after"]["service lab_worker"]["Mode"]


@pytest.mark.parametrize("before, after, networks", [
    ({}, {"subnet": "10.9.0.0/24"}, ["lab_mpi"]),
    ({}, {"mtu": 1400}, ["lab_access", "lab_mpi"]),
    ({"mtu": 1400}, {}, ["lab_access", "lab_mpi"]),
])
def test_change_of_a_network_takes_the_services_along(before, after, networks):
    found = plan(before, **after)
    items = [("network", name) for name in networks] + [("service", "lab_master"), ("service", "lab_worker")]
    assert found.drop == found.make == items and not found.update
    assert len(found.rebuilds) == len(networks)
    assert found.diff["after"]["service lab_master"]["effect"] == "with its network {0}".format(_stack.listed(networks))


def test_a_subnet_that_was_given_once_is_kept():
    there = as_engine(wanted(subnet="10.9.0.0/24"))
    assert not _stack.plan(params(), room(), KEYS, there)[0].changed


def test_new_key_makes_a_new_secret_and_restarts():
    there = as_engine(wanted())
    keys = _stack.secrets("lab", {"user_key": b"new", "user_key.pub": b"public"})
    found, unused = _stack.plan(params(), room(), keys, there)
    assert found.make == [("secret", "lab_user_key_11507a0e")] and found.drop == [("secret", USER_KEY)]
    assert [name for unused, name in found.update] == ["lab_master", "lab_worker"]


SSHFS = dict(MOUNT, driver="vieux/sshfs:latest", driver_options={"port": 2200})


@pytest.mark.parametrize("before, after, subnet, order", [
    ({}, {"image": "img:2"}, "10.213.1.0/24", "start-first"),
    ({}, {"image": "img:2"}, "10.213.1.0/28", "start-first"),  # 3 of the network, the master, twice 3 workers, 3 PCs: 13
    ({}, {"workers": 4}, "10.213.1.0/28", "start-first"),  # 3 + 1 + 8 + 3
    ({}, {"workers": 5}, "10.213.1.0/28", "stop-first"),  # 3 + 1 + 10 + 3
    ({}, {"workers": 124}, "10.213.1.0/24", "start-first"),  # 3 + 1 + 248 + 3
    ({}, {"workers": 125}, "10.213.1.0/24", "stop-first"),
    ({"mounts": [MOUNT]}, {"mounts": []}, "10.213.1.0/24", "start-first"),
    ({"mounts": [SSHFS]}, {"mounts": [SSHFS]}, "10.213.1.0/24", "start-first"),
    ({"mounts": [SSHFS]}, {"mounts": [dict(SSHFS, source="home2")]}, "10.213.1.0/24", "stop-first"),
    ({"mounts": []}, {"mounts": [SSHFS]}, "10.213.1.0/24", "stop-first"),
])
def test_workers_start_beside_the_old_where_they_can(before, after, subnet, order):
    old, new = (_stack.wanted(params(**changes), room(), KEYS, subnet)["service"] for changes in (before, after))
    assert _stack.update_order(old["lab_worker"], new["lab_worker"], params(**after), room()) == order
    assert _stack.update_order(old["lab_master"], new["lab_master"], params(**after), room()) == "stop-first"  # its port is the PC's


@pytest.mark.parametrize("part, setting", [("Resources", {"Reservations": {"MemoryBytes": 2**30}}), ("Placement", {"MaxReplicas": 1})])
def test_what_a_pc_has_once_is_waited_for(part, setting):
    old, new = wanted()["service"]["lab_worker"], wanted(image="img:2")["service"]["lab_worker"]
    new["TaskTemplate"][part].update(setting)
    assert _stack.update_order(old, new, params(), room()) == "stop-first"


def test_what_others_set_is_theirs():
    there = as_engine(wanted())
    spec = there["service"]["lab_worker"]
    spec["TaskTemplate"].update(ForceUpdate=3, LogDriver={"Name": "journald"})
    spec["Labels"]["room"] = "b12"
    found, want = _stack.plan(params(), room(), KEYS, there)
    assert not found.changed
    laid_over = _stack.merged(spec, want["service"]["lab_worker"])
    assert laid_over["TaskTemplate"]["LogDriver"] == {"Name": "journald"} and laid_over["Labels"]["room"] == "b12"
