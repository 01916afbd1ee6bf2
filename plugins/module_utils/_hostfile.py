# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MPI host files: who writes one, the engine's side or the cluster's own, writes the same text.

Pure, and of the standard library alone: the image carries a copy of this file.
"""
from __future__ import annotations

from collections import namedtuple
from ipaddress import ip_address

Host = namedtuple("Host", "address pc slots")

LINES = {
    "openmpi": "{0.address} slots={0.slots} # {0.pc}\n",
    "mpich": "# {0.pc}\n{0.address}:{0.slots}\n",  # Hydra takes no comment behind a host
}


def render(hosts, dialect):
    """The host file in Open MPI's or MPICH's dialect: sorted by address as a number, one host a line; no hosts, no text."""
    return "".join(LINES[dialect].format(host) for host in sorted(hosts, key=lambda host: ip_address(host.address)))


def pc_name(node, slot=None):
    """A worker's name: its PC's without a domain (dots make MPI take two hosts for one), numbered where a PC has several."""
    short = node.split(".")[0]
    return "{0}-{1}".format(short, slot) if slot else short


def slots_of(spec, node):
    """Slots of a worker on this node: what the service says, else the physical cores that the worker may use."""
    for variable in spec["TaskTemplate"]["ContainerSpec"].get("Env") or []:
        if variable.startswith("MPI_SLOTS="):
            return int(variable.split("=")[1])
    cpus = node["Description"]["Resources"]["NanoCPUs"] // 10**9
    cores = int((node["Spec"].get("Labels") or {}).get("hpclab.cores", cpus))
    limit = ((spec["TaskTemplate"].get("Resources") or {}).get("Limits") or {}).get("NanoCPUs")
    return min(cores, max(1, limit // 10**9)) if limit else cores


def workers(spec, places, network):
    """The workers that are ready, as the modules return them: PC, address on this network, slots, task."""
    found = []
    for place in places:
        for attachment in place.tasks[0].get("NetworksAttachments") or [] if place.ready else []:
            if attachment["Network"]["Spec"]["Name"] == network:
                found.append({
                    "pc": place.pc,
                    "address": attachment["Addresses"][0].split("/")[0],
                    "slots": slots_of(spec, place.node),
                    "task": place.tasks[0]["ID"],
                })
    return sorted(found, key=lambda worker: ip_address(worker["address"]))
