# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be said of a managed plugin without asking anybody: its reference, its settings, its mounts, who uses them."""
from __future__ import annotations

import re
from collections import namedtuple

from ansible_collections.hpclab.swarm.plugins.module_utils._stack import BadInput

REFERENCE = re.compile(r"(?P<where>[a-z0-9](?:[a-z0-9._:/-]*?[a-z0-9])?)(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?", re.A)
RUNS = ("running", "paused", "restarting")


class Reference(namedtuple("Reference", "where tag digest")):
    """Where a plugin comes from; Docker Hub's prefix is left out, and a tag is there unless a digest is."""

    @property
    def tagged(self):
        return "{0}:{1}".format(self.where, self.tag)

    @property
    def remote(self):
        """What an engine is asked for; with a tag, it forgets the digest."""
        return self.tagged if self.tag else str(self)

    def __str__(self):
        return self.where + (":" + self.tag if self.tag else "") + ("@" + self.digest if self.digest else "")


def reference(text, option="source"):
    found = REFERENCE.fullmatch(text or "")
    if not found:
        raise BadInput("{0}: {1} is no plugin's name; write it as in vieux/sshfs:latest or registry:5000/vieux/sshfs:1@sha256:…".format(option, text))
    tag = found["tag"] or (None if found["digest"] else "latest")
    return Reference(re.sub(r"^docker\.io/", "", found["where"]), tag, found["digest"])


def fits(wanted, plugin):
    """Whether the installed plugin is the wanted one. The digest decides where one is wanted, else the name it was installed by."""
    if wanted.digest:
        return plugin["digest"] == wanted.digest
    return bool(plugin["reference"]) and reference(plugin["reference"])[:2] == wanted[:2]


# settings

def texts(settings):
    """Values as the engine writes them."""
    return {key: str(value).lower() if isinstance(value, bool) else "" if value is None else str(value) for key, value in settings.items()}


def settings_of(inspected):
    """By the names that `docker plugin set` knows. What is mounted is in Config: Settings keeps old sources after the engine's restart."""
    found = dict(item.split("=", 1) for item in inspected["Settings"].get("Env") or [])
    found.update({mount["Name"] + ".source": mount.get("Source") or "" for mount in inspected["Config"].get("Mounts") or []})
    return found


def check_known(settings, known, name):
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise BadInput("settings: {0} has no {1}; it knows {2}".format(name, ", ".join(unknown), ", ".join(sorted(known))))


# mounts and their users

def sshfs_mounts(mountinfo):
    """(device, mount point) of each sshfs in a /proc/*/mountinfo."""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "fuse.sshfs":
            yield fields[2], re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])


def _volumes(container, driver):
    return {mount["Name"] for mount in container.get("Mounts") or []
            if mount.get("Type") == "volume" and mount.get("Driver") in (driver.tagged, driver.where)}


def mounted(containers, driver):
    """The driver's volumes that containers have."""
    return {volume for container in containers for volume in _volumes(container, driver)}


def users(containers, driver, volumes=None, states=None):
    """Containers that have one of the volumes, or any of the driver's, in one of the states, or in any."""
    return sorted(
        container["Names"][0].lstrip("/") for container in containers
        if (not states or container["State"] in states)
        and (_volumes(container, driver) if volumes is None else _volumes(container, driver) & set(volumes)))
