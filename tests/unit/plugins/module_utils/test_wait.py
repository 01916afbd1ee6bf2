# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.hpclab.swarm.plugins.module_utils import _wait

GLOBAL = {"Mode": {"Global": {}}, "TaskTemplate": {"ContainerSpec": {"Hostname": "{{.Node.Hostname}}"}, "Placement": {
    "Constraints": ["node.labels.hpclab.cluster.lab==true"]}}}


def replicated(replicas, hostname="{{.Node.Hostname}}-{{.Task.Slot}}"):
    return {"Mode": {"Replicated": {"Replicas": replicas}}, "TaskTemplate": {"ContainerSpec": {"Hostname": hostname}}}


def node(name, state="ready", availability="active", id_=None, **more):
    return {"ID": id_ or name, "Spec": {"Labels": {"hpclab.cluster.lab": "true"}, "Role": "worker", "Availability": availability},
            "Description": {"Hostname": name, "Engine": {}, "Resources": {}}, "Status": {"State": state, "Addr": "192.0.2.7"}, **more}


def task(place, state="running", desired="running", said=None, created=1):
    slot, on = (place, None) if isinstance(place, int) else (0, place)
    return {"ID": "t{0}".format(created), "Slot": slot, "NodeID": on, "CreatedAt": str(created), "DesiredState": desired,
            "Status": {"State": state, "Err": said} if said else {"State": state}, "Spec": {"ContainerSpec": {"Image": "img:1"}}}


def slot(number, on, *args, **kwargs):
    return dict(task(number, *args, **kwargs), NodeID=on)


def seen(spec, tasks, nodes):
    return [(place.pc, place.ready, place.off, place.reason) for place in _wait.places(spec, tasks, nodes)]


# the loop

def test_until_asks_at_once_and_stops_at_the_answer(clock):
    answers = iter([0, 0, "yes"])
    assert _wait.until(lambda: next(answers), 10) == "yes"
    assert clock.seconds == 1.0


def test_until_returns_the_last_answer_when_the_time_is_over(clock):
    asked = []
    assert _wait.until(lambda: asked.append(1), 2) is None
    assert (clock.seconds, len(asked)) == (2.0, 5)


def test_until_asks_once_without_time(clock):
    assert _wait.until(lambda: "yes", 0) == "yes"
    assert clock.seconds == 0


# nodes

@pytest.mark.parametrize("state, availability, why", [
    ("ready", "active", ""),
    ("unknown", "active", ""),  # the manager itself has just started
    ("down", "active", "the PC is down"),
    ("disconnected", "active", "the PC is down"),
    ("ready", "drain", "the PC is set to drain"),
])
def test_off(state, availability, why):
    assert _wait.off_reason(node("bob", state, availability)) == why


@pytest.mark.parametrize("order", [1, -1])
def test_a_pc_that_joined_again_counts_once(order):
    nodes = [node("bob", "down", id_="old"), node("bob", id_="new")][::order]
    assert _wait.by_name(nodes)["bob"]["ID"] == "new"
    assert seen(GLOBAL, [task("new")], nodes) == [("bob", True, False, "")]


@pytest.mark.parametrize("addr, manager, address", [
    ("192.0.2.7", {}, "192.0.2.7"),
    ("0.0.0.0", {"ManagerStatus": {"Addr": "192.0.2.5:2377"}}, "192.0.2.5"),
    ("127.0.0.1", {"ManagerStatus": {"Addr": "192.0.2.5:2377"}}, "192.0.2.5"),
    ("192.0.2.7", {"ManagerStatus": {"Addr": "192.0.2.5:2377"}}, "192.0.2.7"),
])
def test_address(addr, manager, address):
    assert _wait.address(dict(node("bob", **manager), Status={"Addr": addr})) == address


@pytest.mark.parametrize("constraint, met", [
    ("node.hostname==bob", True),
    ("node.hostname == BOB", True),
    ("node.hostname!=bob", False),
    ("node.id==bob", True),
    ("node.role==manager", False),
    ("node.labels.hpclab.cluster.lab==true", True),
    ("node.labels.room==b12", False),
    ("node.labels.room!=b12", True),
    ("engine.labels.gpu==yes", True),
    ("node.platform.os==linux", True),
    ("node.platform.arch!=x86_64", False),
])
def test_constraints(constraint, met):
    bob = node("bob")
    bob["Description"].update(Engine={"Labels": {"gpu": "yes"}}, Platform={"OS": "linux", "Architecture": "x86_64"})
    assert _wait.unmet(bob, ["node.hostname!=x", constraint]) == ("" if met else constraint)


# why not

@pytest.mark.parametrize("state, said, why", [
    ("new", None, "waits for an address, the network has none left"),
    ("preparing", None, "preparing, the image is being pulled"),
    ("starting", None, "starting, its health check has not passed yet"),
    ("complete", None, "its container ended of itself, or because its health check failed"),
    ("ready", None, "ready"),
    ("rejected", "No such image: img:1", "image img:1 not found"),
    ("preparing", "manifest unknown: manifest unknown", "image img:1 not found"),
    ("rejected", "invalid mount config for type \"bind\": bind source path does not exist: /srv/x", "directory missing"),
    ("pending", "no suitable node (scheduling constraints not satisfied on 3 nodes)", "no PC may run it"),
    ("pending", "no suitable node (host-mode port already in use on 1 node)", "port in use"),
    ("failed", "starting container failed: driver failed programming external connectivity: listen tcp4 0.0.0.0:22: bind: address already in use",
     "port in use"),
    ("failed", "task: non-zero exit (137): dockerexec: unhealthy container", "unhealthy, its health check fails"),
    ("failed", "task: non-zero exit (72)", "its shared folder is away"),
    ("failed", "task: non-zero exit (72): dockerexec: unhealthy container", "its shared folder is away"),
    ("new", "could not find an available IP while allocating", "addresses used up"),
    ("rejected", 'network sandbox join failed: subnet sandbox join failed for "10.213.2.0/24": error creating vxlan interface: file exists',
     "its PC's engine does not get over an old network, reboot that PC"),
    ("failed", "task: non-zero exit (3)", "failed"),
])
def test_reason(state, said, why):
    assert _wait.reason(task("bob", state, said=said)) == why + (" ({0})".format(said) if said else "")


ENDPOINT = "endpoint gateway_830c9ad6eb1d (08807458d571b02d0dc0e309810c228ce728034519a471bfa3a1e0c6d36cd947) in use"


@pytest.mark.parametrize("tries, lost", [
    ([("failed", "exit (3)")] * 3, True),
    ([("starting", None)] + [("failed", "exit (3)")] * 3, True),
    ([("complete", None)] * 3, True),
    ([("failed", ENDPOINT), ("failed", ENDPOINT.replace("830c", "94d1").replace("0880", "ab12")), ("failed", ENDPOINT)], True),
    ([("failed", "exit (3)")] * 2, False),
    ([("failed", "exit (3)"), ("failed", "exit (4)"), ("failed", "exit (3)")], False),
    ([("failed", "exit (4)")] + [("failed", "exit (3)")] * 3, False),
    ([("pending", "no suitable node")] * 3, False),
])
def test_hopeless(tries, lost):
    assert _wait.hopeless([task("bob", state, said=said) for state, said in tries]) is lost


# places

def test_global_service():
    nodes = [node("falco"), node("bob"), node("alice", "down"), node("eve"), node("dora", availability="drain"), node("carl.lab")]
    nodes[3]["Spec"]["Labels"] = {}
    tasks = [task("bob"), task("falco", "starting"), task("alice")]
    assert seen(GLOBAL, tasks, nodes) == [
        ("alice", False, True, "the PC is down"),
        ("bob", True, False, ""),
        ("carl", False, False, "not placed yet"),
        ("dora", False, True, "the PC is set to drain"),
        ("falco", False, False, "starting, its health check has not passed yet"),
    ]


def test_a_paused_pc_keeps_its_worker():
    assert seen(GLOBAL, [task("bob")], [node("bob", availability="pause")]) == [("bob", True, False, "")]
    assert seen(GLOBAL, [], [node("bob", availability="pause")]) == [("bob", False, True, "the PC is set to pause")]


def test_newest_task_counts_and_the_last_failure_tells():
    running = task("bob", desired="shutdown", created=1)
    assert seen(GLOBAL, [running, task("bob", "ready", "ready", created=2)], [node("bob")])[0][1:3] == (False, False)
    failed = task("bob", "failed", "shutdown", "exit (3)", created=2)
    assert seen(GLOBAL, [task("bob", "starting", created=3), failed], [node("bob")]) == [("bob", False, False, "failed (exit (3))")]
    assert seen(GLOBAL, [task("bob", "new", created=3), failed], [node("bob")])[0][3].startswith("waits for an address")
    assert seen(GLOBAL, [task("bob", created=3), failed], [node("bob")]) == [("bob", True, False, "")]


@pytest.mark.parametrize("place", ["bob", 1])
def test_a_worker_counts_until_its_replacement_runs(place):
    spec = GLOBAL if place == "bob" else replicated(1)
    name = "bob" if place == "bob" else "bob-1"
    old, new = dict(task(place, created=1), NodeID="bob"), dict(task(place, "starting", created=2), NodeID="alice" if place == 1 else "bob")
    nodes = [node("bob")] if place == "bob" else [node("bob"), node("alice")]
    assert seen(spec, [new, old], nodes) == [(name, True, False, "")]
    new["Status"]["State"] = "running"
    assert [found.tasks[0] for found in _wait.places(spec, [old, new], nodes)] == [new]
    old["DesiredState"] = "shutdown"  # but its PC is slow to end it
    new["Status"]["State"] = "starting"
    assert not _wait.places(spec, [old, new], nodes)[0].ready


def test_replicated_service():
    tasks = [slot(2, "bob"), slot(9, "alice.lab"), slot(3, None, "pending", said="no suitable node (x)"), slot(4, "bob", desired="remove")]
    assert seen(replicated(4), tasks, [node("bob"), node("alice.lab")]) == [
        ("bob-2", True, False, ""),
        ("task 3", False, False, "no PC may run it (no suitable node (x))"),
        ("alice-9", True, False, ""),
        ("a task", False, False, "not placed yet"),
    ]


def test_a_host_name_without_number_gives_none():
    assert seen(replicated(1, "lab-master"), [slot(1, "bob")], [node("bob")]) == [("bob", True, False, "")]
