# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands between a room of PCs and a Swarm: pure, from what pc_info says of each PC."""

from __future__ import annotations

import ipaddress
import re

SYSTEMS = {("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")}
OLDEST_ENGINE = (20, 10)
PORTS = {(7946, "tcp"), (7946, "udp"), (4789, "udp")}
MANAGER_PORTS = {(2377, "tcp")}
PLUGINS = "volume plugins, which bring the shared folder, break in it"


def findings(infos, settings):
    """One sentence per obstacle.

    infos: per PC what pc_info returned, with `wanted` (address, data_path_address) added; a PC that is off has `unreachable`,
    one that could not be asked has `failed` and `msg`.
    settings: group, pcs (those in it), managers_group, managers, manager (the one in use), holder (the one that earlier runs used),
    address_pool, subnet_size, cert_days, min_free_gb, proxy, require_all.
    """
    on = {pc: info for pc, info in infos.items() if not info.get("failed") and not info.get("unreachable")}
    found = list(_settings(settings))
    found += _managers(infos, settings)
    found += _asked(infos, settings)
    for pc, info in on.items():
        found += _system(pc, info, settings)
        found += _ports(pc, info, settings)
        found += _address(pc, info)
    found += _pool(on, settings)
    found += _twins(on)
    if settings["manager"] in on:
        found += _swarm(on, settings)
    return found


def _network(text):
    """The IPv4 network that the text names, or None."""
    try:
        return ipaddress.IPv4Network(text, strict=False) if "/" in str(text) else None
    except ValueError:
        return None


def _settings(settings):
    pool, size = _network(settings["address_pool"]), settings["subnet_size"]
    if pool is None:
        yield "swarm_init_address_pool: %s is not an IPv4 network: write one like 10.213.0.0/16." % settings["address_pool"]
    elif str(pool) != settings["address_pool"]:
        yield "swarm_init_address_pool: %s has host bits set: write %s." % (settings["address_pool"], pool)
    elif not pool.prefixlen + 2 <= size:
        yield ("swarm_init_subnet_size: the pool %s has no room for four networks of size /%d: make it /%d or more, or the pool larger."
               % (pool, size, pool.prefixlen + 2))
    # a worker and a load balancer's address for each PC; master, gateway, network and broadcast
    needed = 2 * len(settings["pcs"]) + 4
    if size > 30 or 2 ** (32 - size) < needed:
        fits = 32 - (needed - 1).bit_length()
        yield "swarm_init_subnet_size: a /%d is too small for %d PCs: make it /%d or less." % (size, len(settings["pcs"]), fits)
    if not 1 <= settings["cert_days"] <= 36500:
        yield "swarm_init_cert_days: %d is not between 1 and 36500: 730 is a good value." % settings["cert_days"]
    if settings["proxy"] and not re.fullmatch(r"https?://[^\s\"'\\]+", settings["proxy"]):
        yield "swarm_init_proxy: %s is not a URL: write it like http://proxy.example.org:3128." % settings["proxy"].rpartition("@")[2]


def _managers(infos, settings):
    group, managers = settings["managers_group"], settings["managers"]
    if not settings["pcs"]:
        yield "The group %s has no PC: name the lab's PCs in it in the inventory." % settings["group"]
    if not managers:
        yield "The group %s has no PC: name one of the lab's PCs in it, it will manage the Swarm." % group
        return
    strangers = [pc for pc in managers if pc not in settings["pcs"]]
    if strangers:
        yield "%s: in the group %s, but not in %s: make it a PC of the lab." % (", ".join(strangers), group, settings["group"])
    if len(managers) % 2 == 0:
        yield ("The group %s has %d PCs (%s): a Swarm votes, so that an even number is no safer than one less: make it %d or %d."
               % (group, len(managers), ", ".join(managers), len(managers) - 1, len(managers) + 1))
    holder = settings["holder"]
    if holder and "hostname" not in infos.get(holder, {}):
        yield ("%s: is off or not part of this run, and keeps the lab's registry and the clusters' keys: switch it on; if it is gone for good, "
               "run `docker node update --label-rm hpclab.manager %s` on another manager, and all of that is made anew there." % (holder, holder))
    if not settings["manager"]:
        absent = [pc for pc in managers if pc not in infos]
        if absent:
            yield "%s: no manager is part of this run: name one in --limit as well." % ", ".join(absent)
        elif not any(infos[pc].get("failed") and not infos[pc].get("unreachable") for pc in managers):
            yield "%s: no manager is on: switch one on." % ", ".join(managers)


def _asked(infos, settings):
    for pc, info in infos.items():
        if info.get("failed") and not info.get("unreachable"):
            reason = " ".join(str(info.get("msg") or info.get("module_stderr") or "no reason given").split())
            yield "%s: can't be asked (%s): see to it, or take it out of the inventory." % (pc, reason.rstrip("."))
    off = [pc for pc, info in infos.items() if info.get("unreachable")]
    if off and settings["require_all"]:
        yield "%s: off, and swarm_init_require_all is set: switch it on, or do without this setting." % ", ".join(off)


def _system(pc, info, settings):
    system, engine = info["os"], info["engine"]
    if (system["id"], system["version"]) not in SYSTEMS:
        yield ("%s: runs %s %s: install Debian 12 or 13, or Ubuntu 22.04 or 24.04."
               % (pc, system["id"] or "an unknown system", system["version"]))
    if info["snap"] or engine and engine["data_root"].startswith("/var/snap"):
        yield "%s: its Docker is from snap (%s); %s: remove it (snap remove docker)." % (
            pc, (info["snap"] or [engine["data_root"]])[0], PLUGINS)
    elif engine and engine["rootless"] or info["rootless"] and not info["dockerd"]:
        yield "%s: its Docker is rootless (%s); %s: remove it (dockerd-rootless-setuptool.sh uninstall)." % (
            pc, ", ".join(info["rootless"]) or engine["data_root"], PLUGINS)
    if engine:
        version = tuple(int(number) for number in re.findall(r"\d+", engine["version"])[:2])
        if version < OLDEST_ENGINE:
            yield "%s: its Docker engine is %s: upgrade it to 20.10 or newer." % (pc, engine["version"])
        if engine["name"] != info["hostname"]:
            yield "%s: its Docker engine still calls it %s: run `systemctl restart docker` on it." % (pc, engine["name"])
    if info["hostname"] != pc:
        yield ("%s: its host name is %s: run `hostnamectl set-hostname %s` on it, or call it %s in the inventory."
               % (pc, info["hostname"], pc, info["hostname"]))
    free = info["disk"]["free"] / 2**30
    if free < settings["min_free_gb"]:
        yield ("%s: %s has %.1f GB free, swarm_init_min_free_gb is %s: make room on it."
               % (pc, info["disk"]["path"], free, settings["min_free_gb"]))


def _ports(pc, info, settings):
    ports = PORTS | (MANAGER_PORTS if pc in settings["managers"] else set())
    for listener in info["listeners"]:
        # sockets of a Swarm are dockerd's, and its VXLAN's the kernel's
        ours = listener["process"] == "dockerd" or not listener["process"] and info["swarm"]["state"] != "inactive"
        if (listener["port"], listener["protocol"]) in ports and not ours:
            yield ("%s: port %d/%s, which Swarm needs, is in use by %s: stop that."
                   % (pc, listener["port"], listener["protocol"], listener["process"] or "the kernel (another VXLAN?)"))


def _address(pc, info):
    for name, knob in (("address", "swarm_init_address"), ("data_path_address", "swarm_init_data_path_address")):
        address = info["wanted"][name]
        if not address and name == "address":
            yield "%s: has no default route that would tell its address: set swarm_init_address for it." % pc
        elif address and address not in info["addresses"]:
            yield ("%s: %s is %s, which is none of its addresses (%s): name one of these."
                   % (pc, knob, address, ", ".join(own for own in info["addresses"] if not own.startswith("127."))))


def _pool(on, settings):
    pool = _network(settings["address_pool"])
    if pool is None:
        return
    overlaps = {}
    for pc, info in on.items():
        for route in info["routes"]:
            if pool.overlaps(ipaddress.IPv4Network(route["cidr"])):
                overlaps.setdefault((route["cidr"], route["interface"]), []).append(pc)
    for (cidr, interface), pcs in overlaps.items():
        yield ("%s: swarm_init_address_pool %s overlaps the route to %s (%s): choose a network that no PC has a route to."
               % (", ".join(pcs), pool, cidr, interface))


def _twins(on):
    remedies = (
        ("host name", lambda info: info["hostname"], "give each its own (hostnamectl set-hostname)"),
        ("machine id", lambda info: info["machine_id"],
         "the disks were cloned; on all but one run `rm /etc/machine-id && systemd-machine-id-setup` and restart"),
        ("Docker engine id", lambda info: info["engine"] and info["engine"]["id"],
         "the disks were cloned; on all but one stop docker, remove /etc/docker/key.json and engine-id in its data root, and start it"),
    )
    for what, value_of, remedy in remedies:
        pcs_of = {}
        for pc, info in on.items():
            pcs_of.setdefault(value_of(info), []).append(pc)
        for value, pcs in pcs_of.items():
            if value and len(pcs) > 1:
                yield "%s: have the same %s %s: %s." % (", ".join(pcs), what, value, remedy)


def _swarm(on, settings):
    manager = settings["manager"]
    head = on[manager]["swarm"]
    leave = "run `docker swarm leave --force` on it"
    if head["state"] == "active" and not head["manager"]:
        yield ("%s: shall manage the lab's Swarm, but is a worker of one (managers %s): name one of those in the group %s, or %s."
               % (manager, ", ".join(head["remote_managers"]), settings["managers_group"], leave))
        return
    if head["state"] == "pending" or head["state"] == "active" and not head["nodes"]:
        yield ("%s: its Swarm has no leader (%s): switch on more than half of its managers and run this again."
               % (manager, head["error"] or "it is still starting"))
        return
    if head["state"] == "locked":
        yield "%s: its Swarm is locked: run `docker swarm unlock` on it." % manager
        return
    if head["state"] == "error":
        yield ("%s: its Swarm is broken (%s): mend that, or %s and on every other PC, which ends that Swarm."
               % (manager, head["error"] or "no error given", leave))
        return
    if on[manager]["dockerd"] and not on[manager]["engine"] and any(info["swarm"]["state"] != "inactive" for info in on.values()):
        yield "%s: its Docker engine does not answer, so that its Swarm is not known: run `systemctl start docker` on it." % manager
        return
    if head["state"] == "active" and (settings["address_pool"] not in head["address_pool"] or settings["subnet_size"] != head["subnet_size"]):
        yield ("%s: its Swarm has the address pool %s with networks of size /%d, not %s and /%d, and that can't be changed: set"
               " swarm_init_address_pool and swarm_init_subnet_size so, or let every PC leave it (docker swarm leave --force)."
               % (manager, ", ".join(head["address_pool"]), head["subnet_size"], settings["address_pool"], settings["subnet_size"]))
    members = {node["id"]: node for node in head["nodes"]}
    for pc, info in on.items():
        swarm = info["swarm"]
        if swarm["state"] == "inactive":
            continue
        where = "cluster id %s" % swarm["cluster_id"] if swarm["cluster_id"] else "managers %s" % (
            ", ".join(swarm["remote_managers"]) or "unknown")
        if swarm["state"] == "locked":
            yield "%s: its Swarm is locked: run `docker swarm unlock` on it." % pc
        elif head["state"] == "inactive":
            yield ("%s: is in a Swarm (%s), while the manager %s is in none: %s, or name a manager of that Swarm in the group %s."
                   % (pc, where, manager, leave, settings["managers_group"]))
        elif swarm["state"] == "error":
            if not lost(pc, head["nodes"]):
                yield "%s: its Swarm is not this one or broken (%s): %s." % (pc, swarm["error"] or "no error given", leave)
        elif swarm["node_id"] not in members:
            yield "%s: is in another Swarm (%s) than the manager %s: %s." % (pc, where, manager, leave)
        elif swarm["address"] != info["wanted"]["address"]:
            yield ("%s: the Swarm knows it as %s, but its address is %s: give it the old one back, or set swarm_init_address, or %s."
                   % (pc, swarm["address"], info["wanted"]["address"], leave))


def lost(pc, nodes):
    """Whether the Swarm has a node of this name that it does not hear of."""
    return any(node["name"] == pc and node["state"] != "ready" for node in nodes)
