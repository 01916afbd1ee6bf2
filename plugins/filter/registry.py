# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab registry's mirror in an engine's settings, what of its images nothing uses, and whether a PC has room for one."""
from __future__ import annotations

import json
import re
from os.path import commonprefix

DAEMON = "/etc/docker/daemon.json"
KEY = "registry-mirrors"
# Times the compressed size: unpacked, where nobody knows; and what is surely enough for both, so that nobody needs to look closer
UNPACKED = 3
SURELY = 10


# The mirror

def _mirrors(text):
    """The settings and their mirrors; says what is wrong with them by ValueError."""
    settings = json.loads(text) if text.strip() else {}
    if not isinstance(settings, dict):
        raise ValueError("it is no object")
    mirrors = settings.get(KEY, [])
    if not isinstance(mirrors, list) or not all(isinstance(mirror, str) for mirror in mirrors):
        raise ValueError(f"{KEY} is no list of addresses")
    return settings, mirrors


def registry_findings(text, pc, engine, mirrors, gone):
    """What keeps an engine from a change of its mirrors.

    text: what its daemon.json says; engine: the mirrors that it uses now; mirrors, gone: those of the lab, and those that were.
    """
    try:
        there = _mirrors(text)[1]
    except ValueError as error:
        return [f"{pc}: {DAEMON} can't be read ({error}); correct it, Docker would not start with it either"]
    strange = sorted({mirror.rstrip("/") for mirror in engine} - {mirror.rstrip("/") for mirror in [*there, *mirrors, *gone]})
    if mirrors and strange:
        return [f"{pc}: Docker has the mirror {', '.join(strange)} from its command line, and takes none from {DAEMON} then; move it "
                "there (or restart Docker if it was taken out there), or set lab_registry_mirror=false"]
    return []


def registry_daemon(text, mirrors, gone, loading=False):
    """daemon.json with the lab's mirrors behind those that are there, without those that are gone; as it is where that is so already.

    loading: for an engine that reads it anew, and keeps its mirrors where the file says nothing of them.
    """
    settings, there = _mirrors(text)
    wanted = [mirror for mirror in there if mirror.rstrip("/") not in gone]
    wanted += [mirror for mirror in mirrors if mirror not in [one.rstrip("/") for one in wanted]]
    if wanted == there and (KEY in settings or not loading):
        return text
    settings[KEY] = wanted
    if not wanted and not loading:
        del settings[KEY]
    return json.dumps(settings, indent=4) + "\n" if settings else ""


# What nothing uses

def _digest(reference):
    return reference.partition("@")[2]


def _short(reference):
    """Without the registry, and with no more of a digest than one needs to know it again."""
    return re.sub(r"@sha256:(.{12}).*", r"@\1", reference.partition("/")[2])


def registry_unused(hosts, services, prefixes):
    """What the lab registry keeps, {keep: [digest, or repository:tag]}, and what each PC does not, {pcs: {pc: {references, names}}}.

    hosts: {pc: {images, containers}}, services: as the engines say it; prefixes: under which names the PCs have the registry's images.
    """
    own = tuple(prefix + "/" for prefix in prefixes)
    named = [spec["TaskTemplate"]["ContainerSpec"]["Image"]
             for service in services for spec in (service["Spec"], service.get("PreviousSpec")) if spec]
    digests = {_digest(name) for name in named} - {""}
    tags = {name if ":" in name.rpartition("/")[2] else name + ":latest" for name in named if not _digest(name)}
    images = [(pc, image.get("RepoTags") or [], image.get("RepoDigests") or [], image["Id"] in {one["ImageID"] for one in host["containers"]})
              for pc, host in hosts.items() for image in host["images"]]
    for _pc, tagged, digested, used in images:
        if used or tags & set(tagged):
            digests.update(_digest(name) for name in digested)
    pcs = {pc: {"references": [], "names": []} for pc in hosts}
    for pc, tagged, digested, used in images:
        # the tags first: with the last one the engine takes the digest away, too
        references = [name for name in tagged + digested if name.startswith(own)]
        if references and not used and not tags & set(tagged) and not digests & {_digest(name) for name in digested}:
            pcs[pc]["references"] += references
            pcs[pc]["names"].append(_short(references[0]))
    return {"keep": sorted(digests | {name.partition("/")[2] for name in tags if name.startswith(own)}), "pcs": pcs}


# Room

def _size(number):
    return f"{number / 10**9:.1f} GB" if number >= 10**9 else f"{number / 10**6:.0f} MB"


def registry_room(disks, image, manifest, unpacked=0, layers=(), images=None):
    """Which PCs have no room for an image, {pc: sentence}; without images, which of them may have none.

    disks: {pc: {path, free}}; manifest: as the registry says it; unpacked: bytes, and layers: digests of its layers unpacked, as the
    manager's engine says it, where that has the image; images: {pc: [layers of each that it has]}.
    """
    compressed = [layer["size"] for layer in manifest.get("layers", [])]
    ratio = max(1, unpacked / sum(compressed)) if unpacked and sum(compressed) else UNPACKED
    short = {}
    for pc, disk in disks.items():
        need = sum(compressed) * SURELY
        if images is not None:
            # a layer is shared where all below it are the same
            have = max((len(commonprefix([list(layers), list(other)])) for other in images[pc]), default=0)
            # the engine keeps what it fetched until it is unpacked
            need = int(sum(compressed[have:]) * (1 + ratio))
        if need > disk["free"]:
            short[pc] = (f"{pc}: the image {_short(image)} needs {_size(need)} in {disk['path']}, where {_size(disk['free'])} are free; make room "
                         "there, for instance with the playbook prune, which removes images that no cluster uses")
    return short


class FilterModule:
    def filters(self):
        return {function.__name__: function for function in (registry_findings, registry_daemon, registry_unused, registry_room)}
