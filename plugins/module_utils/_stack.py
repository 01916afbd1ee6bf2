# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: a cluster's parameters -> the resources wanted -> how they differ from those that exist.

Resources are {kind: {name: definition}} with the kinds "pc" (its label), "secret", "network" and "service" (the engine's Spec,
with networks and secrets by name).
"""
from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections import namedtuple

from ansible_collections.hpclab.swarm.plugins.module_utils._wait import by_name, constraints, node_name, off_reason, unmet

CLUSTER = "hpclab.cluster"
NAMESPACE = "com.docker.stack.namespace"
SHA256 = "hpclab.sha256"
SUBNET_LATER = "(from the Swarm's address pool)"
SSHD_PORT = 2222
SECOND = 10**9
OURS = ("MPI_ROLE", "MPI_CLUSTER", "MPI_WORKERS", "MPI_SUBNET", "MPI_SLOTS", "MPI_PC", "MPI_NUMBER")

Room = namedtuple("Room", "nodes manager networks services subnet_size")
Room.__doc__ = """What the engine says of the Swarm; manager is the name of the node asked."""


# What the module's options are where nothing is said
DEFAULTS = {
    "state": "present", "pcs": None, "workers": None, "slots": None, "master": None, "cpus": None, "memory": None, "shm_size": "1g",
    "ssh_port": 2222, "placement": [], "subnet": None, "mtu": None, "mounts": [], "environment": {}, "grace_period": 60, "timeout": 120,
}


class BadInput(Exception):
    """One sentence: the parameter, its value, what to do."""


# What is asked for

def size(text):
    """Bytes of 512m, 4g and the like."""
    match = re.match(r"^(\d+(?:\.\d+)?)([bkmgt]?)b?$", str(text).strip().lower())
    if not match:
        raise ValueError(text)
    return int(float(match.group(1)) * 1024 ** "bkmgt".index(match.group(2) or "b"))


def check_parameters(params):
    """What can be said without asking the engine."""
    name = params["name"]
    if not re.match(r"^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$", name):
        raise BadInput("name: {0!r} can't be a cluster's name; use at most 31 small letters, digits and hyphens, a letter first".format(name))
    if params["state"] == "absent":
        return
    if params["pcs"] == []:
        raise BadInput("pcs: the list is empty; name at least one PC, or leave pcs out for all of the Swarm's")
    for option in ("workers", "slots", "cpus", "mtu", "timeout", "grace_period"):
        least = {"cpus": 0.01, "mtu": 576, "grace_period": 0}.get(option, 1)
        if params[option] is not None and params[option] < least:
            raise BadInput("{0}: {1} is too little; give {2} or more".format(option, params[option], least))
    if not 1 <= params["ssh_port"] <= 65535:
        raise BadInput("ssh_port: {0} is no TCP port; give one from 1 to 65535".format(params["ssh_port"]))
    for option in ("memory", "shm_size"):
        try:
            if params[option] is not None and size(params[option]) < 4 * 1024**2:
                raise BadInput("{0}: {1} is too little; give 4m or more, for example 4g".format(option, params[option]))
        except ValueError:
            raise BadInput("{0}: {1!r} is no size; write a number with k, m or g behind it, for example 4g".format(
                option, params[option])) from None
    for constraint in params["placement"]:
        if not re.match(r"^(node|engine)\.[\w.-]+\s*(==|!=)\s*\S.*$", constraint):
            raise BadInput("placement: {0!r} is no constraint; write it like node.labels.room==b12".format(constraint))
    for variable, value in params["environment"].items():
        if variable in OURS:
            raise BadInput("environment: {0} is the module's to set; leave it out (slots has an option of its own)".format(variable))
        if not re.match(r"^[A-Za-z_][A-Za-z0-9_]*$", variable):
            raise BadInput("environment: {0!r} can't be a variable's name; use letters, digits and underscores".format(variable))
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise BadInput("environment: {0} is {1!r}, neither text nor a number; quote it".format(variable, value))
    check_mounts(params["mounts"])
    if params["subnet"]:
        try:
            network = ipaddress.ip_network(params["subnet"], strict=False)
        except ValueError:
            network = None
        if not network or network.version != 4 or str(network) != params["subnet"]:
            raise BadInput("subnet: {0!r} is no IPv4 network; write it like {1}".format(
                params["subnet"], network if network and network.version == 4 else "10.213.7.0/24"))


def check_mounts(mounts):
    targets = ["/dev/shm", "/etc/mpi/members", "/run/secrets"]
    for mount in mounts:
        source, target = mount["source"], mount["target"]
        if not target.startswith("/"):
            raise BadInput("mounts: target {0!r} is no absolute path; begin it with /".format(target))
        if target.rstrip("/") in targets:
            raise BadInput("mounts: something is mounted on {0} already; choose another target".format(target))
        targets.append(target.rstrip("/"))
        if mount["type"] == "bind" and not source.startswith("/"):
            raise BadInput("mounts: source {0!r} of the bind on {1} is no absolute path; begin it with /".format(source, target))
        if mount["type"] == "volume" and not re.match(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$", source):
            raise BadInput("mounts: source {0!r} can't be a volume's name; use letters, digits, '.', '_' and '-', "
                           "or type: bind for a directory".format(source))
        for option, kind in (("propagation", "bind"), ("nocopy", "volume"), ("driver", "volume"), ("driver_options", "volume")):
            if mount[option] and mount["type"] != kind:
                raise BadInput("mounts: {0} on {1} is for type {2} only; leave it out".format(option, target, kind))


PRIVATE = re.compile(r"^-----BEGIN [A-Z ]*PRIVATE KEY-----")
PUBLIC = re.compile(r"^(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/]+=* ?")


def check_private(option, path, private):
    """The text of a private key."""
    if PUBLIC.match(private):
        raise BadInput("{0}: {1} is a public key; give the path of the private one, which has the public one beside it as .pub".format(
            option, path))
    if not PRIVATE.match(private):
        raise BadInput("{0}: {1} is no private key; make one with ssh-keygen -t ed25519 -N '' -f {1}".format(option, path))


def check_public(option, path, private, public):
    """The text of the .pub beside it."""
    if PRIVATE.match(public):
        raise BadInput("{0}: {1}.pub is a private key; make the public one with ssh-keygen -y -f {1}".format(option, path))
    if not PUBLIC.match(public):
        raise BadInput("{0}: {1}.pub is no public key; make it with ssh-keygen -y -f {1}".format(option, path))
    if "OPENSSH" not in private.splitlines()[0]:
        return
    try:  # OpenSSH's own format holds the public key, and the cipher's name, in the clear
        blob = base64.b64decode("".join(private.split("-----")[2].split()))
        known = base64.b64decode(public.split()[1]) in blob
    except (IndexError, ValueError):
        raise BadInput("{0}: {1} or its .pub is damaged; make new ones with ssh-keygen -t ed25519 -N '' -f {1}".format(option, path)) from None
    if not blob.startswith(b"openssh-key-v1\0\0\0\0\4none"):
        raise BadInput("{0}: {1} has a passphrase, which nobody can type in a cluster; make one with ssh-keygen -t ed25519 -N '' -f {1}".format(
            option, path))
    if not known:
        raise BadInput("{0}: {1}.pub does not belong to {1}; make it with ssh-keygen -y -f {1}".format(option, path))


def check_room(params, room):
    """What the Swarm says to it."""
    cluster, nodes = params["name"], by_name(room.nodes)
    known = listed(nodes)
    for kind, items in (("network", [(item["name"], item["labels"]) for item in room.networks]),
                        ("service", [(item["Spec"]["Name"], item["Spec"].get("Labels") or {}) for item in room.services])):
        for name, labels in items:
            in_use = name in names(cluster) or labels.get(NAMESPACE) == cluster
            if in_use and labels.get(CLUSTER) != cluster:
                raise BadInput("name: {0} is in use, the {1} {2} was not made by this module; choose another name or remove it".format(
                    cluster, kind, name))
    unknown = [pc for pc in params["pcs"] or [] if pc not in nodes]
    if unknown:
        raise BadInput("pcs: {0} not in the Swarm; its PCs are {1}".format(are(unknown), known))
    master = params["master"] or room.manager
    if master not in nodes:
        raise BadInput("master: {0} is not in the Swarm; its PCs are {1}".format(master, known))
    if off_reason(nodes[master]):
        raise BadInput("master: {0} can't run it, {1}; bring it back or choose one of {2}".format(
            master, off_reason(nodes[master]), listed(name for name, node in nodes.items() if not off_reason(node))))
    candidates = [nodes[pc] for pc in chosen(params, room)]
    off = {node_name(node): off_reason(node) or unmet(node, params["placement"]) and "it does not meet placement" for node in candidates}
    if all(off.values()):
        raise BadInput("{0}: no PC can run a worker ({1}); bring one back or choose others".format(
            "workers" if params["workers"] else "pcs", "; ".join("{0}: {1}".format(*item) for item in sorted(off.items()))))
    for service in room.services:
        mode = ports(service["Spec"]).get(params["ssh_port"])
        here = mode == "ingress" or mode == "host" and not unmet(nodes[master], constraints(service["Spec"]))
        if here and service["Spec"]["Name"] != names(cluster)[1]:
            raise BadInput("ssh_port: {0} is published on {1} by the service {2}; choose another port".format(
                params["ssh_port"], master, service["Spec"]["Name"]))
    check_subnet(params, room)


def check_subnet(params, room):
    """Overlaps, and room for everybody."""
    own = next((item for item in room.networks if item["name"] == names(params["name"])[2]), None)
    if params["subnet"]:
        subnet = ipaddress.ip_network(params["subnet"])
        for item in room.networks:
            for other in item["subnets"] if item is not own else []:
                if ipaddress.ip_network(other).version == 4 and subnet.overlaps(ipaddress.ip_network(other)):
                    raise BadInput("subnet: {0} overlaps {1} of the network {2}; choose another".format(subnet, other, item["name"]))
        prefix = subnet.prefixlen
    else:
        prefix = int(own["subnets"][0].split("/")[1]) if own and own["subnets"] else room.subnet_size
    check_size(params, prefix, chosen(params, room), params["master"] or room.manager)


def check_size(params, prefix, pcs, master):
    """Room for the cluster in a network of this prefix length."""
    there, needed = 2 ** (32 - prefix), addresses(params, pcs, master)
    if there < needed:
        raise BadInput("subnet: {0} is too small, {1} workers and their master need {2} addresses and it has {3}; give a /{4} or larger".format(
            params["subnet"] or "a /{0} of the Swarm's pool".format(prefix), params["workers"] or len(pcs), needed, there,
            32 - (needed - 1).bit_length()))


def addresses(params, pcs, master, containers=1):
    """What a cluster takes of its network, with so many containers of each worker at a time: an address for each container, for each PC
    (Swarm's own endpoint there), for the gateway, and the two that no network gives away."""
    workers = params["workers"] or len(pcs)
    return 3 + 1 + containers * workers + min(1 + workers, len({master, *pcs}))


def listed(items):
    *most, last = sorted(items)
    return "{0} and {1}".format(", ".join(most), last) if most else last


def are(items):
    return "{0} {1}".format(listed(items), "is" if len(items) == 1 else "are")


# What is wanted

def names(cluster):
    """Worker service, master service, MPI network, access network."""
    return tuple("{0}_{1}".format(cluster, part) for part in ("worker", "master", "mpi", "access"))


def ports(spec):
    """What a service publishes: {port: mode}."""
    return {port.get("PublishedPort"): port.get("PublishMode") for port in (spec.get("EndpointSpec") or {}).get("Ports") or []}


def pc_label(cluster):
    return "{0}.{1}".format(CLUSTER, cluster)


def chosen(params, room):
    """The PCs that may run workers."""
    return sorted(set(params["pcs"] or by_name(room.nodes)))


def secrets(cluster, files):
    """{file: content} -> {secret: (file, content, sha256)}"""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {"{0}_{1}_{2}".format(cluster, name, digest[:8]): (name, files[name], digest) for name, digest in hashes.items()}


def healthcheck(room):
    """The image's. Engines from 25 on have a pace of their own for new containers, 5 s in some: theirs is a second, too."""
    version = by_name(room.nodes)[room.manager]["Description"]["Engine"].get("EngineVersion", "")
    return {"StartInterval": SECOND} if int(re.match(r"\d*", version)[0] or 0) >= 25 else {}


def wanted(params, room, keys, subnet):
    """The resources of a cluster; keys as secrets() gives them, subnet that of the MPI network."""
    cluster = params["name"]
    labels = {NAMESPACE: cluster, CLUSTER: cluster}
    worker, master, mpi, access = names(cluster)
    networks = {
        mpi: {"labels": labels, "internal": True, "mtu": params["mtu"] or 0},
        access: {"labels": labels, "internal": False, "mtu": params["mtu"] or 0},
    }
    if params["subnet"]:
        networks[mpi]["subnets"] = [params["subnet"]]
    environment = {"MPI_CLUSTER": cluster, "MPI_WORKERS": worker, "MPI_SUBNET": subnet, **params["environment"]}
    common = {"labels": labels, "keys": keys, "environment": environment, "healthcheck": healthcheck(room)}
    return {
        "pc": {} if params["workers"] else {pc: {"label": pc_label(cluster)} for pc in chosen(params, room)},
        "secret": {name: {"sha256": digest} for name, (unused, unused_too, digest) in keys.items()},
        "network": networks,
        "service": {
            worker: _worker(params, worker, mpi, common),
            master: _master(params, master, [mpi, access], params["master"] or room.manager, common),
        },
    }


def plan(params, room, keys, there):
    """(the difference, what is wanted)"""
    if params["state"] == "absent":
        return Plan(there, {}), {}
    mpi = names(params["name"])[2]
    subnets = [params["subnet"]] if params["subnet"] else there["network"].get(mpi, {}).get("subnets")
    want = wanted(params, room, keys, subnets[0] if subnets else SUBNET_LATER)
    found = Plan(there, want)
    if ("network", mpi) in found.drop and not params["subnet"]:  # that subnet goes with its network
        want = wanted(params, room, keys, SUBNET_LATER)
        found = Plan(there, want)
    return found, want


def _worker(params, name, network, common):
    slots = params["slots"] or (1 if params["workers"] else None)
    environment = dict(common["environment"], MPI_PC="{{.Node.Hostname}}", **({"MPI_SLOTS": slots} if slots else {}))
    if params["workers"]:
        environment["MPI_NUMBER"] = "{{.Task.Slot}}"
    spec = _service(params, name, dict(common, environment=environment), [network])
    if params["workers"]:
        spec["Mode"] = {"Replicated": {"Replicas": params["workers"]}}
        hostname, own = "{{.Node.Hostname}}-{{.Task.Slot}}", []
    else:
        spec["Mode"] = {"Global": {}}
        hostname, own = "{{.Node.Hostname}}", ["node.labels.{0}==true".format(pc_label(params["name"]))]
    template = spec["TaskTemplate"]
    template["ContainerSpec"]["Hostname"] = hostname
    template["Placement"]["Constraints"] = own + params["placement"]
    template["Resources"]["Limits"] = {
        "NanoCPUs": int(round((params["cpus"] or 0) * SECOND)),
        "MemoryBytes": size(params["memory"] or 0),
    }
    return spec


def _master(params, name, networks, pc, common):
    spec = _service(params, name, common, networks)
    spec["Mode"] = {"Replicated": {"Replicas": 1}}
    spec["EndpointSpec"]["Ports"] = [
        {"Protocol": "tcp", "TargetPort": SSHD_PORT, "PublishedPort": params["ssh_port"], "PublishMode": "host"}]
    template = spec["TaskTemplate"]
    template["ContainerSpec"]["Hostname"] = "{0}-master".format(params["name"])
    template["Placement"]["Constraints"] = ["node.hostname=={0}".format(pc)]
    if params["members"]:
        template["ContainerSpec"]["Mounts"].append(
            {"Type": "bind", "Source": params["members"], "Target": "/etc/mpi/members", "ReadOnly": True})
    return spec


def _service(params, name, common, networks):
    environment = dict(common["environment"], MPI_ROLE=name.split("_")[1])
    shm = {"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": {"SizeBytes": size(params["shm_size"])}}
    return {
        "Name": name,
        "Labels": dict(common["labels"], **{"com.docker.stack.image": params["image"]}),
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": params["image"],
                "Labels": common["labels"],
                "Env": ["{0}={1}".format(*item) for item in sorted(environment.items())],
                "Mounts": [shm] + [_mount(mount) for mount in params["mounts"]],
                "Secrets": [
                    {"SecretName": secret, "File": {"Name": file, "UID": "1000", "GID": "1000", "Mode": 0o400}}
                    for secret, (file, unused, unused_too) in sorted(common["keys"].items())
                ],
                "CapabilityDrop": ["ALL"],
                "Healthcheck": common["healthcheck"],
                "StopGracePeriod": params["grace_period"] * SECOND,
            },
            "Resources": {"Limits": {"NanoCPUs": 0, "MemoryBytes": 0}},
            "RestartPolicy": {"Condition": "any", "Delay": 2 * SECOND},
            "Placement": {"Constraints": []},
            "Networks": [{"Target": network} for network in networks],
        },
        # all at once: an MPI job spans every worker, so that none is of use while others still change
        "UpdateConfig": {"Parallelism": 0, "FailureAction": "pause"},
        "EndpointSpec": {"Mode": "dnsrr", "Ports": []},
    }


def _mount(mount):
    spec = {"Type": mount["type"], "Source": mount["source"], "Target": mount["target"], "ReadOnly": mount["read_only"]}
    if mount["propagation"]:
        spec["BindOptions"] = {"Propagation": mount["propagation"]}
    volume = {"NoCopy": bool(mount["nocopy"])}
    if mount["driver"] or mount["driver_options"]:
        options = {key: str(value) for key, value in (mount["driver_options"] or {}).items()}
        volume["DriverConfig"] = {"Name": mount["driver"] or "local", "Options": options}
    if pruned(volume):
        spec["VolumeOptions"] = volume
    return spec


# What is there

def existing(cluster, room, secret_list):
    """The cluster's resources among all that the Swarm has, in the shape of wanted()."""
    networks = {item["id"]: item["name"] for item in room.networks}
    primary = by_name(room.nodes)
    label = pc_label(cluster)
    return {
        "pc": {
            # what a PC left behind when it joined again is never wanted
            node_name(node) if primary[node_name(node)] is node else node["ID"]: {"label": label}
            for node in room.nodes if label in (node["Spec"].get("Labels") or {})
        },
        "secret": {item["Spec"]["Name"]: {"sha256": item["Spec"]["Labels"].get(SHA256)} for item in secret_list},
        "network": {item["name"]: {key: value for key, value in item.items() if key not in ("id", "name")}
                    for item in room.networks if item["labels"].get(CLUSTER) == cluster},
        "service": {item["Spec"]["Name"]: by_names(item["Spec"], networks)
                    for item in room.services if (item["Spec"].get("Labels") or {}).get(CLUSTER) == cluster},
    }


def by_names(spec, networks):
    """A service's Spec with its networks by name and its secrets by name alone."""
    template = dict(spec["TaskTemplate"])
    template["Networks"] = [dict(item, Target=networks.get(item["Target"], item["Target"])) for item in template.get("Networks") or []]
    template["ContainerSpec"] = dict(template["ContainerSpec"], Secrets=[
        {key: value for key, value in item.items() if key != "SecretID"} for item in template["ContainerSpec"].get("Secrets") or []])
    return dict(spec, TaskTemplate=template)


# How they differ

def pruned(value):
    """Without what is empty: the engine leaves it out of what it returns."""
    if isinstance(value, dict):
        clean = {key: pruned(item) for key, item in value.items()}
        return {key: item for key, item in clean.items() if item or isinstance(item, dict)}
    if isinstance(value, list):
        return [pruned(item) for item in value]
    return value


def comparable(there, want):
    """What is there, as far as we set it: what others set beside it is theirs."""
    if isinstance(want, dict):
        there = there or {}
        return {key: there.get(key) if key == "Mode" and key in there else comparable(there.get(key), item)
                for key, item in want.items()}
    return there


def merged(there, want):
    """What is wanted laid over what is there; lists are replaced."""
    if isinstance(there, dict) and isinstance(want, dict):
        return {**there, **{key: merged(there.get(key), item) for key, item in want.items()}}
    return want


def update_order(old, new, params, room):
    """The order in which an update of a service from one Spec to another starts and stops containers.

    New ones start first where they can: when a PC's last container leaves a network and the next one joins at once, the other PCs may
    hear of it half a minute late (seen on 20.10). They can't where the old ones have the port or the addresses, what somebody reserved
    for them or allows a PC only once, or other volumes of a driver: vieux/sshfs mounts two of one folder at one place.
    """
    template = new["TaskTemplate"]
    prefix, = (int(item.split("/")[1]) for item in template["ContainerSpec"]["Env"] if item.startswith("MPI_SUBNET="))
    needed = addresses(params, chosen(params, room), params["master"] or room.manager, containers=2)
    held = ports(new) or pruned(template["Resources"].get("Reservations")) or template["Placement"].get("MaxReplicas")
    return "stop-first" if held or 2 ** (32 - prefix) < needed or _driven(old) != _driven(new) else "start-first"


def _driven(spec):
    return {mount.get("Source") for mount in spec["TaskTemplate"]["ContainerSpec"].get("Mounts") or []
            if (mount.get("VolumeOptions") or {}).get("DriverConfig")}


def changed_keys(before, after):
    """The names of the settings that differ, for a sentence."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [name for key in sorted({*before, *after}) for name in changed_keys(before.get(key), after.get(key)) or (
            [key] if before.get(key) != after.get(key) else [])]
    return []


class Plan:
    """Collects the differences; feeds changed, diff and message alike.

    make, drop and update hold (kind, name); rebuilds the reasons why services are made anew.
    """

    def __init__(self, there, want):
        self.make, self.drop, self.update, self.rebuilds = [], [], [], []
        self.actions, self._before, self._after = [], {}, {}
        self._rebuilt = self._find_rebuilds(there, want)
        for kind in ("pc", "secret", "network", "service"):
            for name in sorted({*there[kind], *want.get(kind, {})}):
                self._compare(kind, name, there[kind].get(name), want.get(kind, {}).get(name))

    def _find_rebuilds(self, there, want):
        """(kind, name) -> why it can't be changed in place."""
        found = {}
        for name, definition in want.get("network", {}).items():
            old = there["network"].get(name)
            if old:
                keys = changed_keys(comparable(old, definition), definition)
                if keys:
                    found["network", name] = "a network's {0} can't be changed".format(listed(keys))
        for name, definition in want.get("service", {}).items():
            old = there["service"].get(name)
            if old and set(old["Mode"]) != set(definition["Mode"]):
                found["service", name] = "Swarm can't change a {0} service into a {1} one".format(
                    *(next(iter(spec["Mode"])).lower() for spec in (old, definition)))
        self.rebuilds = ["{0} {1}: {2}".format(kind, name, why) for (kind, name), why in found.items()]
        networks = [name for kind, name in found if kind == "network"]
        if networks:
            why = "with its network {0}".format(listed(networks))
            found.update((("service", name), found.get(("service", name), why)) for name in there["service"])
        return found

    def _compare(self, kind, name, old, new):
        item = (kind, name)
        title = "{0} {1}".format(kind, name)
        before = pruned(comparable(old, new) if old and new else old)
        after = pruned(new)
        if new is None:
            self.drop.append(item)
            self._note(title, "removes", before, None)
        elif old is None:
            self.make.append(item)
            self._note(title, "adds", None, after)
        elif item in self._rebuilt:
            self.drop.append(item)
            self.make.append(item)
            self._note(title, "replaces", before, after, self._rebuilt[item])
        elif before != after:
            self.update.append(item)
            keys = listed(changed_keys(before, after))
            restart = any(before.get(part) != after.get(part) for part in ("TaskTemplate", "EndpointSpec"))
            self._note(title, "changes", before, after, "{0}; its tasks {1}".format(keys, "restart" if restart else "go on running"))

    def _note(self, title, verb, before, after, why=None):
        self.actions.append("{0} {1}{2}".format(verb, title, " ({0})".format(why) if why else ""))
        if before is not None:
            self._before[title] = before
        if after is not None:
            self._after[title] = dict(after, effect=why) if why else after

    @property
    def changed(self):
        return bool(self.actions)

    @property
    def diff(self):
        return {"before": self._before, "after": self._after}
