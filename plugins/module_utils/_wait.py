# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Predicates on what the engine says of nodes and tasks, and the one loop that waits."""
from __future__ import annotations

import re
import time
from collections import namedtuple

from ansible_collections.hpclab.swarm.plugins.module_utils._hostfile import pc_name

ENDED = ("complete", "failed", "rejected", "orphaned")
HOPELESS = 3  # as many tries in a row that ended alike

# What the engine's words mean to who reads them; {image} is the task's.
MEANINGS = (
    (r"no such image|manifest unknown|pull access denied|failed to resolve reference|not found: manifest|repository .* not found",
     "image {image} not found"),
    (r"address already in use|port is already allocated|host-mode port already in use", "port in use"),
    (r"no suitable node", "no PC may run it"),
    (r"non-zero exit \(72\)", "its shared folder is away"),  # mpi-node; the health check that found it fails as well
    (r"unhealthy container", "unhealthy, its health check fails"),
    (r"bind source path does not exist", "directory missing"),
    (r"error creating vxlan interface: file exists", "its PC's engine does not get over an old network, reboot that PC"),
    (r"could not find an available ip|no available (ip )?addresses|address.* exhausted", "addresses used up"),
)

# What a task is at that has no word from the engine
STATES = {
    "new": "waits for an address, the network has none left",
    "pending": "not placed yet",
    "preparing": "preparing, the image is being pulled",
    "starting": "starting, its health check has not passed yet",
    "complete": "its container ended of itself, or because its health check failed",
}

Place = namedtuple("Place", "pc node tasks ready off reason")
Place.__doc__ = """Where a task of a service should run: its tries, one that runs before newer ones; off says that the PC is, reason why it is not ready."""


def until(ask, timeout, interval=0.5):
    """Asks until the answer is true or the time is over; returns the last answer."""
    end = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer or time.monotonic() >= end:
            return answer
        time.sleep(interval)


# nodes

def node_name(node):
    return node["Description"]["Hostname"]


def is_down(node):
    return node["Status"]["State"] in ("down", "disconnected")


def off_reason(node):
    """Why Swarm gives this node no task, or nothing."""
    if is_down(node):
        return "the PC is down"
    if node["Spec"]["Availability"] != "active":
        return "the PC is set to {0}".format(node["Spec"]["Availability"])
    return ""


def address(node):
    """A manager may know itself by another address than the others do."""
    known = node["Status"].get("Addr", "")
    manager = node.get("ManagerStatus", {}).get("Addr", "")
    return manager.rsplit(":", 1)[0] if known in ("", "0.0.0.0", "127.0.0.1") and manager else known


def by_name(nodes):
    """Nodes by host name; a PC that joined again left a dead node of the same name, which does not count."""
    return {node_name(node): node for node in sorted(nodes, key=lambda node: not off_reason(node))}


def constraints(spec):
    return (spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or []


def unmet(node, wanted):
    """The first placement constraint that the node does not meet, or nothing."""
    description = node["Description"]
    platform = description.get("Platform") or {}
    known = {
        "node.id": node["ID"],
        "node.hostname": node_name(node),
        "node.role": node["Spec"]["Role"],
        "node.ip": node["Status"].get("Addr", ""),
        "node.platform.os": platform.get("OS", ""),
        "node.platform.arch": platform.get("Architecture", ""),
    }
    for prefix, labels in (("node.labels.", node["Spec"].get("Labels")), ("engine.labels.", description["Engine"].get("Labels"))):
        known.update({prefix + key: value for key, value in (labels or {}).items()})
    for constraint in wanted:
        key, operator, value = re.split(r"\s*(==|!=)\s*", constraint.strip(), maxsplit=1)
        if (known.get(key, "").lower() == value.lower()) != (operator == "=="):
            return constraint
    return ""


# tasks

def reason(task):
    """Why a task does not run yet: what it means, then what the engine said."""
    state, said = task["Status"]["State"], task["Status"].get("Err")
    if not said:
        return STATES.get(state, state)
    for pattern, meaning in MEANINGS:
        if re.search(pattern, said, re.I):
            return "{0} ({1})".format(meaning.format(image=task["Spec"]["ContainerSpec"]["Image"]), said)
    return "{0} ({1})".format(state, said)


def cause(task):
    """The engine's words without the ids in them, which differ from try to try."""
    return re.sub(r"[0-9a-z]{25}|[0-9a-f]{12,}", "", task["Status"].get("Err", "") or task["Status"]["State"])


def runs(task):
    return task["Status"]["State"] == task["DesiredState"] == "running"


def newest_first(tasks):
    """But before all others one that runs: its replacement may start beside it."""
    return sorted(tasks, key=lambda task: (runs(task), task["CreatedAt"]), reverse=True)


def hopeless(tasks):
    """The last tries of a place (newest first) ended alike, so that more of them won't help."""
    ended = [task for task in tasks if task["Status"]["State"] in ENDED][:HOPELESS]
    return len(ended) == HOPELESS and len({cause(task) for task in ended}) == 1


def _place(pc, node, tasks, off=""):
    tasks = newest_first(tasks)
    state = tasks[0]["Status"]["State"] if tasks else None
    if not off and tasks and runs(tasks[0]):
        return Place(pc, node, tasks, True, False, "")
    # while the next try starts, what the last one died of says more
    telling = tasks if state == "new" else [task for task in tasks if task["Status"].get("Err") or task["Status"]["State"] in ENDED] or tasks
    why = off or (reason(telling[0]) if telling else STATES["pending"])
    return Place(pc, node, tasks, False, bool(off), why)


def places(spec, tasks, nodes):
    """Every place where the service should have a task, with that task, in the order of their names."""
    tasks = [task for task in tasks if task["DesiredState"] != "remove"]
    found = []
    if "Global" in spec["Mode"]:
        for node in by_name(nodes).values():
            own = [task for task in tasks if task.get("NodeID") == node["ID"]]
            off = off_reason(node)
            if off.endswith("pause") and own:  # a paused PC keeps what it has
                off = ""
            if not unmet(node, constraints(spec)):
                found.append(_place(pc_name(node_name(node)), node, own, off))
        return sorted(found, key=lambda place: place.pc)
    ids = {node["ID"]: node for node in nodes}
    numbered = ".Task.Slot" in spec["TaskTemplate"]["ContainerSpec"].get("Hostname", "")
    slots = sorted({task["Slot"] for task in tasks})
    for slot in slots:
        own = newest_first(task for task in tasks if task["Slot"] == slot)
        node = ids.get(own[0].get("NodeID"))
        found.append(_place(pc_name(node_name(node), slot if numbered else None) if node else "task {0}".format(slot), node, own))
    lacking = spec["Mode"]["Replicated"]["Replicas"] - len(slots)
    return found + [_place("a task", None, []) for unused in range(lacking)]
