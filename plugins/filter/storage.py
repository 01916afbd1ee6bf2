# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clusters' shared folder over sshfs: what is wrong with what is asked for, who may connect, and how a home is mounted."""
from __future__ import annotations

import hashlib
import re

from ansible.errors import AnsibleFilterError
from ansible_collections.hpclab.swarm.plugins.filter.clusters import public_key
from ansible_collections.hpclab.swarm.plugins.module_utils._stack import listed

DRIVERS = ("vieux/sshfs", "host")
EXPORT = "/etc/hpclab/export"  # on the PC that exports: its sshd and who may connect
KEYS = "/etc/hpclab/storage"  # on every PC: its own key, the server's, what systemd mounts
HOMES = "/var/lib/hpclab/homes"  # the driver host's mount points
HOME = "/home/mpiuser"
MARKER = ".hpclab/cluster"
# MPI-IO's shared file pointer rests on locks, which hold on one PC alone: half of what 6 ranks on 3 PCs wrote was lost without a word.
# This one keeps all, in any order, and refuses what it can't do.
ENVIRONMENT = {"MPI_SHARED_HOME": "1", "OMPI_MCA_sharedfp": "individual"}
PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")

# Every file is mpiuser's, whoever owns it on the server. A server that is lost is noticed after 15 s. The cipher is the fastest
# where the processor has AES, names and attributes are looked up anew so that no PC sees old ones: docs/storage.md has figures. Not
# auto_cache: sftp knows whole seconds, and what changes twice in one, to the same size, would stay old on other PCs for ever. attr_timeout: who
# opened a file before it was written elsewhere knows its old length so long (1 s by default); 0 makes small reads 6 times slower.
OPTIONS = {
    "allow_other": "", "default_permissions": "", "uid": "1000", "gid": "1000", "cache": "no", "attr_timeout": "0.1",
    "ServerAliveInterval": "5", "ServerAliveCountMax": "3", "ConnectTimeout": "10", "Compression": "no", "Ciphers": "aes128-gcm@openssh.com",
}
# sshfs's own options and ssh's that make sense here: none that weakens the checks, and none that the role sets for itself
TUNABLE = {
    *OPTIONS, "auto_cache", "cache_timeout", "dcache_clean_interval", "dcache_dir_timeout", "dcache_link_timeout", "dcache_max_size",
    "dcache_min_clean_interval", "dcache_stat_timeout", "dcache_timeout", "dir_cache", "direct_io", "disable_hardlink", "entry_timeout",
    "follow_symlinks", "kernel_cache", "max_conns", "max_read", "negative_timeout", "no_readahead", "ro", "sshfs_sync", "sync_readdir",
    "transform_symlinks", "umask", "workaround", "AddressFamily", "BindAddress", "BindInterface", "HostKeyAlgorithms", "IPQoS",
    "KexAlgorithms", "MACs", "ProxyJump", "RekeyLimit", "TCPKeepAlive",
} - {"allow_other", "default_permissions", "uid", "gid"}


def account(cluster):
    """Who a cluster is on a PC that exports its folder."""
    return f"hpclab-{cluster}"


def storage_findings(settings):
    """What is wrong with the settings, before any PC is touched: a list of sentences.

    settings: driver, host, pcs, clusters (rows), path, user, host_key, options, delete; each as the role's knob has it.
    """
    found = []
    outside = bool(settings["host"]) and settings["host"] not in settings["pcs"]
    if settings["driver"] not in DRIVERS:
        found.append(f"sshfs_storage_driver: there is no {settings['driver']}; choose {' or '.join(DRIVERS)}")
    path = settings["path"]
    if not PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        found.append(f"sshfs_storage_path: {path!r} can't be exported; give an absolute path of letters, digits, '.', '_' and '-', "
                     "without spaces, like /srv/hpclab")
    for option, value in settings["options"].items():
        if option not in TUNABLE:
            found.append(f"sshfs_storage_options: {option} is no option of sshfs that can be set here; those are {listed(TUNABLE)}")
        elif re.search(r"[\s,\"'\\]", str(value)):
            found.append(f"sshfs_storage_options: {option} is {value!r}; it may have neither spaces nor commas, quotes or backslashes")
    if outside:
        for knob in ("user", "host_key"):
            if not settings[knob]:
                found.append(f"sshfs_storage_{knob}: missing; {settings['host']} is no PC of the lab, so that it has to be said")
        try:
            public_key(settings["host_key"] or "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "sshfs_storage_host_key")
        except AnsibleFilterError as error:
            found.append(str(error))
    names = {row["name"]: row.get("state", "present") for row in settings["clusters"] if isinstance(row, dict) and row.get("name")}
    delete = settings["delete"]
    if delete and names.get(delete) != "absent":
        found.append(f"sshfs_storage_delete: {delete} is not the name of a cluster with state: absent; only the data of such a one is deleted")
    if delete and outside:
        found.append(f"sshfs_storage_delete: {settings['host']} is no PC of the lab; delete {path}/{delete} there by hand")
    return found


def storage_options(driver, options):
    """sshfs's options for a driver; an empty value is a flag. The plugin's have no white space: the engine keeps each of them."""
    found = {**OPTIONS, **{name: str(value) for name, value in options.items()}}
    if driver == "host":  # sshfs ends with its connection, systemd mounts anew
        return {**found, "ssh_command": f"ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityFile={KEYS}/id_ed25519 -o "
                f"GlobalKnownHostsFile=none -o UserKnownHostsFile={KEYS}/known_hosts -o StrictHostKeyChecking=yes"}
    # Its StrictHostKeyChecking=no comes first; only in the command a yes wins
    return {**found, "reconnect": "", "ssh_command": "ssh -oStrictHostKeyChecking=yes"}


def storage_servers(clusters, inside, address, port, path, user):
    """Where each cluster's home lies, as {cluster: {user, address, port, path}}; inside tells a PC of the lab, where it is a chroot's."""
    return {cluster: {"user": account(cluster) if inside else user, "address": address, "port": port,
                      "path": "/mpiuser" if inside else f"{path}/{cluster}"} for cluster in clusters}


def storage_look_at(clusters, path, exports):
    """Files that tell how far a PC is, for pc_info."""
    found = [f"{KEYS}/{name}" for name in ("id_ed25519", "id_ed25519.pub", "known_hosts")]
    found += [f"/etc/systemd/system/hpclab-{name}" for name in ("home@.service", "plugin.service", "plugin.timer")]
    for cluster in clusters:
        found += [f"{KEYS}/{cluster}.env", f"{HOMES}/{cluster}/mpiuser/{MARKER}"]
    if exports:
        found += [f"{EXPORT}/{name}" for name in ("host_key", "host_key.pub", "sshd_config")]
        found += ["/etc/passwd", "/etc/systemd/system/hpclab-storage.socket", "/etc/systemd/system/hpclab-storage@.service", path]
        for cluster in clusters:
            home = f"{path}/{cluster}/mpiuser"
            found += [f"{EXPORT}/keys/{account(cluster)}", f"{path}/{cluster}", home, f"{home}/{MARKER}"]
    return found


def storage_state(files, clusters, path):
    """How far a PC is, of what pc_info says of the files of storage_look_at.

    Returns key (its public one; empty if it has none, or its private one is not root's alone), known_hosts, units ({cluster: environment}),
    mounted (clusters whose marker is seen), accounts, complete (clusters whose folder has everything), authorized ({cluster: text}) and let_in
    (the PCs named there).
    """
    texts = {name: file["content"] for name, file in files.items()}
    accounts = re.findall(r"(?m)^hpclab-([^:]+):", texts.get("/etc/passwd", ""))
    authorized = {cluster: texts.get(f"{EXPORT}/keys/{account(cluster)}", "") for cluster in clusters}
    return {
        "key": texts.get(f"{KEYS}/id_ed25519.pub", "").strip() if files.get(f"{KEYS}/id_ed25519", {}).get("mode") == "0600" else "",
        "known_hosts": texts.get(f"{KEYS}/known_hosts", ""),
        "units": {cluster: texts[f"{KEYS}/{cluster}.env"] for cluster in clusters if f"{KEYS}/{cluster}.env" in texts},
        "mounted": [cluster for cluster in clusters if texts.get(f"{HOMES}/{cluster}/mpiuser/{MARKER}") == f"{cluster}\n"],
        "accounts": accounts,
        "complete": [cluster for cluster in clusters if cluster in accounts and texts.get(f"{path}/{cluster}/mpiuser/{MARKER}") == f"{cluster}\n"],
        "authorized": authorized,
        "let_in": sorted({line.split()[-1] for text in authorized.values() for line in text.splitlines()}),
    }


def storage_room_findings(lab):
    """What the PCs say to it, before anything is changed: a list of sentences.

    lab: pc (the one that exports, or empty), off (names), files, listeners (what pc_info says of it), clusters (those wanted), path, port, server,
    homes (what the manager wrote down before, as {cluster: server}).
    """
    pc, files, path = lab["pc"], lab["files"], lab["path"]
    if pc in lab["off"]:
        return [f"{pc}: the PC with the shared folder is off; switch it on"]
    found = []
    for where in [path] + [f"{path}/{cluster}{home}" for cluster in lab["clusters"] for home in ("", "/mpiuser")] if pc else []:
        kind = files.get(where, {}).get("type", "directory")
        if kind == "link":
            found.append(f"{pc}: {where} is a link, which leads out of the export; put the directory itself there, or set sshfs_storage_path")
        elif kind != "directory":
            found.append(f"{pc}: {where} is no directory; move it away, or set sshfs_storage_path")
    for listener in lab["listeners"]:
        if (listener["port"], listener["protocol"]) == (lab["port"], "tcp") and listener["process"] != "systemd":
            found.append(f"{pc}: port {lab['port']}, sshfs_storage_port, is in use by {listener['process'] or 'another program'}; choose another one")
    for cluster in lab["clusters"]:
        before = lab["homes"].get(cluster, lab["server"])
        if before != lab["server"] and not (pc and files.get(f"{path}/{cluster}/mpiuser/{MARKER}", {}).get("content") == f"{cluster}\n"):
            found.append(f"cluster {cluster}: its home lies on {before}, and {lab['server']} has no copy of it; copy it there with all "
                         "that is in it (docs/storage.md), or set the sshfs_storage_ knobs back")
    return found


def storage_homes(servers, driver, options):
    """{cluster: {mounts, environment}} as the module mpi_stack takes them.

    servers: {cluster: {user, address, port, path}}, where the home lies.
    """
    homes = {}
    for cluster, server in servers.items():
        if driver == "host":
            # the parent: a mount that comes back shows in containers that run
            mount = {"type": "bind", "source": f"{HOMES}/{cluster}", "target": HOME.rpartition("/")[0], "propagation": "rslave"}
        else:
            every = {"sshcmd": f"{server['user']}@{server['address']}:{server['path']}", "port": str(server["port"]),
                     **storage_options(driver, options)}
            # a volume's options never change once it is there: others, another name
            digest = hashlib.sha256(repr(sorted(every.items())).encode()).hexdigest()[:8]
            mount = {"type": "volume", "source": f"{cluster}_home_{digest}", "target": HOME,
                     "driver": "vieux/sshfs:latest", "driver_options": every, "nocopy": True}
        homes[cluster] = {"mounts": [mount], "environment": {**ENVIRONMENT}}
    return homes


def storage_unit(server, options):
    """The environment of a systemd unit that mounts a home."""
    every = ",".join(f"{name}={value}" if value else name for name, value in sorted(storage_options("host", options).items()))
    return f"SOURCE={server['user']}@{server['address']}:{server['path']}\nOPTIONS=\"port={server['port']},{every}\"\n"


def storage_authorized(keys, before, pcs):
    """authorized_keys of the lab's PCs, as {cluster: text}: the keys of those that are on, and of the others what the text before has."""
    new = {pc: f"restrict {' '.join(key.split()[:2])} {pc}" for pc, key in keys.items() if key}
    found = {}
    for cluster, text in before.items():
        known = {line.split()[-1]: line for line in text.splitlines() if line.startswith("restrict ")} | new
        found[cluster] = "".join(f"{known[pc]}\n" for pc in sorted(pcs) if pc in known)
    return found


def storage_refusal(said, pc, server, key):
    """What ssh or sftp said when a PC could not reach its folder, as one sentence."""
    where = f"{server['address']} port {server['port']}"
    said = " ".join(line.strip() for line in said.splitlines() if line.strip() and not line.startswith(("sftp>", "@", "Warning: Permanently")))
    if "verification failed" in said or "IDENTIFICATION HAS CHANGED" in said:
        return f"{pc}: {where} shows another ssh host key than the one it is known by; it got no data. See who answers there, then set its key"
    if "Permission denied (" in said:
        return f"{pc}: {server['user']} at {where} refuses this PC's key; authorize it there: restrict {' '.join(key.split()[:2])} {pc}"
    if re.search(r"not found|No such file|ot a directory|anonicalize", said):
        return f"{pc}: {server['path']} is no directory at {where}; make it there, or set sshfs_storage_path"
    reason = re.sub(r"^.*?(ssh: |connect to )|Connection closed\W*$", "", said).strip() or "no answer"
    return f"{pc}: the shared folder's server {where} can't be reached ({reason}); switch it on, or see to its ssh server and firewall"


class FilterModule:
    def filters(self):
        return {function.__name__: function for function in (
            storage_findings, storage_room_findings, storage_look_at, storage_state, storage_servers, storage_homes, storage_unit,
            storage_authorized, storage_refusal)}
