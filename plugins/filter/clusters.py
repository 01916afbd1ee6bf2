# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the clusters asked for, and whose keys log in: asked on the controller, before any PC is touched."""
from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from ipaddress import ip_network
from pathlib import Path

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.hpclab.swarm.plugins.filter.images import image_findings
from ansible_collections.hpclab.swarm.plugins.module_utils import _stack

ACCOUNT = "hpclab-"  # as role sshfs_storage names them, and as many characters as Linux takes
ACCOUNT_LENGTH = 32
KEY_TYPES = re.compile(r"(sk-)?(ssh-(ed25519|rsa)|ecdsa-sha2-nistp\d+)(@openssh\.com)?")


def public_key(text, where):
    """One line of authorized_keys, checked; says where it stands when it is none, and never what it says."""
    if "PRIVATE KEY" in text:
        raise AnsibleFilterError(f"{where} is a private key; give the public one that lies beside it (its name ends in .pub)")
    kind, _sep, rest = text.strip().partition(" ")
    body = rest.split(" ")[0]
    try:
        # The body begins with the length of the type's name, and that name.
        if KEY_TYPES.fullmatch(kind) and base64.b64decode(body, validate=True)[4:4 + len(kind)] == kind.encode():
            return text.strip()
    except binascii.Error:
        pass
    raise AnsibleFilterError(f"{where} is no public ssh key; it should read like 'ssh-ed25519 AAAA… name'")


def public_keys(members):
    """The public keys of the members: each one a key itself, a .pub file, or a folder of them on the controller."""
    keys = []
    for number, member in enumerate(members, 1):
        member = str(member)
        if "PRIVATE KEY" in member or KEY_TYPES.match(member):
            keys.append(public_key(member, f"entry {number} of mpi_stack_members"))
            continue
        path = Path(member).expanduser()
        files = sorted(path.glob("*.pub")) if path.is_dir() else [path]
        if not files:
            raise AnsibleFilterError(f"mpi_stack_members: the folder {member} holds no .pub file; put the members' public keys there")
        for file in files:
            if not file.is_file():
                raise AnsibleFilterError(f"mpi_stack_members: {member} is neither a public ssh key nor a file or folder on this machine")
            keys += [public_key(line, str(file)) for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return sorted(set(keys))


def _plain(value):
    """Ansible's lists and dicts as Python's own: a copy of theirs copies all variables that there are."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _row_findings(row, options, pcs, manager, images):
    """What is wrong in one row, seen alone; options is the row's argument spec."""
    unknown = sorted(row.keys() - options.keys())
    if unknown:
        yield f"unknown key '{unknown[0]}'; known are {', '.join(sorted(options))}"
        return
    result = ArgumentSpecValidator(options).validate(row)
    if result.error_messages:
        yield from result.error_messages
        return
    given = result.validated_parameters
    params = {**_stack.DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
    try:
        _stack.check_parameters(params)
        if params["subnet"]:
            prefix = ip_network(params["subnet"]).prefixlen
            _stack.check_size(params, prefix, params["pcs"] or pcs, params["master"] or manager)
        public_keys(given["members"] or [])
    except (_stack.BadInput, AnsibleFilterError) as error:
        yield str(error)
    if given["state"] == "present":
        yield from image_findings(given, **images)
    if params["pcs"] and params["workers"]:
        yield "give pcs (one worker on each) or workers (so many anywhere), not both"
    for pc in sorted({*(params["pcs"] or []), params["master"] or manager} - {*pcs, ""}):
        yield f"there is no PC {pc} in the lab; there are {', '.join(sorted(pcs))}"


def cluster_findings(clusters, options, pcs, manager, variants, bases, default, members=(), exported=False):
    """What is wrong with mpi_stack_clusters: a list of sentences, empty if nothing is."""
    images = {"variants": variants, "bases": bases, "default": default}
    if not isinstance(clusters, list) or not clusters or not all(isinstance(row, dict) for row in clusters):
        hint = ", with True and False where it stands in an .ini file" if isinstance(clusters, str) else ""
        return [f"mpi_stack_clusters is {clusters!r}; give a list of clusters, at least [{{name: mpi}}]{hint}"]
    clusters, found = _plain(clusters), []
    for row in clusters:
        found += [f"cluster {row.get('name', '?')}: {finding}" for finding in _row_findings(row, options, pcs, manager, images)]
    for name, times in Counter(str(row.get("name")) for row in clusters).items():
        if times > 1:
            found.append(f"{times} clusters are called {name}; give each its own name")
    present = [row for row in clusters if row.get("state") != "absent"]
    found += [
        f"cluster {name}: name: {name!r} has {len(name)} characters, and on the PC that keeps its shared home its account is "
        f"{ACCOUNT}{name}; use at most {ACCOUNT_LENGTH - len(ACCOUNT)}"
        for name in (str(row.get("name")) for row in present) if exported and len(ACCOUNT + name) > ACCOUNT_LENGTH
    ]
    logins = Counter((str(row.get("master", manager)), str(row.get("ssh_port", 2222))) for row in present)
    for (pc, port), times in logins.items():
        if times > 1:
            found.append(f"{times} clusters want port {port} of {pc} for logins; give each its own ssh_port")
    if not found:
        subnets = [(row["name"], ip_network(row["subnet"])) for row in present if row.get("subnet")]
        found += [
            f"the subnets {net} of {name} and {other_net} of {other} overlap; give each cluster its own"
            for number, (name, net) in enumerate(subnets)
            for other, other_net in subnets[:number]
            if net.overlaps(other_net)
        ]
    try:
        public_keys(members)
    except AnsibleFilterError as error:
        found.append(str(error))
    return found


class FilterModule:
    def filters(self):
        return {"cluster_findings": cluster_findings, "public_keys": public_keys}
