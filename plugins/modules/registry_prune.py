#!/usr/bin/python
# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_prune
short_description: Deletes the images of a registry that nothing uses
description:
  - Deletes from a registry on this machine all images but those that are named, with their tags.
  - Looks for them in the registry's storage, because the registry's API tells no digest that has lost its tag.
  - Managed plugins stay.
  - The disk space is free after C(docker-registry garbage-collect), which must not run while somebody pushes. RV(frees) tells whether
    it has anything to do.
author:
  - the hpclab.swarm authors (@hpclab)
version_added: 0.3.0
requirements:
  - Python 3.8 or newer
  - A registry of the distribution's package C(docker-registry) on this machine, which allows deleting
attributes:
  check_mode:
    description: Says what would be deleted.
    support: full
  diff_mode:
    description: Shows the images that are there.
    support: full
options:
  url:
    description: Where that registry answers without TLS.
    type: str
    default: http://127.0.0.1:5000
  path:
    description: Its storage, C(rootdirectory) in its settings.
    type: path
    default: /var/lib/hpclab/registry
  keep:
    description:
      - Images to keep, by digest or as C(repository:tag). What an image index names is kept with it.
    type: list
    elements: str
    required: true
seealso:
  - module: community.docker.docker_prune
"""

EXAMPLES = r"""
- name: Keep what runs
  hpclab.swarm.registry_prune:
    keep: ["sha256:9b4c29bcba9b49fbaf1065342dc1656834ae85c74245d77dc882603bd8b67e13", "course:latest"]
  register: pruned

- name: Show what it would free
  ansible.builtin.debug:
    msg: "{{ pruned.removed | length }} images, {{ pruned.frees }} bytes"
"""

RETURN = r"""
removed:
  description: The images that were deleted, or would be.
  returned: success
  type: list
  elements: dict
  contains:
    repository:
      description: Name of the repository.
      type: str
      sample: ubuntu-openmpi
    digest:
      description: Digest.
      type: str
      sample: sha256:9b4c29bcba9b49fbaf1065342dc1656834ae85c74245d77dc882603bd8b67e13
    tags:
      description: Its tags.
      type: list
      elements: str
      sample: ["4f2a9c01d7be"]
kept:
  description: How many images stay.
  returned: success
  type: int
  sample: 2
size:
  description: Bytes of all that is stored.
  returned: success
  type: int
  sample: 680000000
frees:
  description: Bytes of these that belong to no image that stays.
  returned: success
  type: int
  sample: 340000000
"""

import json
import os
import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule

PLUGIN = "application/vnd.docker.plugin.v1+json"


class Failed(Exception):
    pass


def listed(path):
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def blob(root, digest):
    """Where the storage keeps it."""
    kind, number = digest.split(":")
    return os.path.join(root, "blobs", kind, number[:2], number, "data")


def manifest(root, digest):
    try:
        with open(blob(root, digest), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):  # a push or a deletion that was cut off
        return {}


def images(root):
    """Every image that the storage has, {(repository, digest): [tag]}."""
    found = {}
    top = os.path.join(root, "repositories")
    for folder, folders, dummy in os.walk(top):
        if "_manifests" not in folders:
            continue
        repository = os.path.relpath(folder, top)
        # what a repository has of its own begins with _, and has no repositories in it
        folders[:] = [name for name in folders if not name.startswith("_")]
        revisions = os.path.join(folder, "_manifests", "revisions", "sha256")
        own = {"sha256:" + number: [] for number in listed(revisions) if os.path.exists(os.path.join(revisions, number, "link"))}
        tags = os.path.join(folder, "_manifests", "tags")
        for tag in listed(tags):
            try:
                with open(os.path.join(tags, tag, "current", "link"), encoding="ascii") as stream:
                    own.get(stream.read().strip(), []).append(tag)
            except OSError:
                continue
        found.update({(repository, digest): names for digest, names in own.items()})
    return found


def parts(content):
    """The digests of what an image, or an index, is made of."""
    return [entry["digest"] for entry in [content.get("config") or {}] + (content.get("layers") or []) + (content.get("manifests") or [])
            if "digest" in entry]


def kept(found, contents, keep):
    """Those of the images that stay."""
    stay = {key for key, tags in found.items()
            if key[1] in keep or any("{0}:{1}".format(key[0], tag) in keep for tag in tags)
            or (contents[key[1]].get("config") or {}).get("mediaType") == PLUGIN}
    inner = {(repository, entry["digest"]) for repository, digest in stay for entry in contents[digest].get("manifests") or []}
    return stay | inner & set(found)


def sizes(root):
    """Bytes of each blob."""
    found = {}
    for folder, dummy, files in os.walk(os.path.join(root, "blobs", "sha256")):
        if "data" in files:
            found["sha256:" + os.path.basename(folder)] = os.path.getsize(os.path.join(folder, "data"))
    return found


def delete(url, repository, digest):
    """Its tags go with it."""
    request = urllib.request.Request("{0}/v2/{1}/manifests/{2}".format(url, repository, digest), method="DELETE")
    # it is on this machine: no proxy
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(request, timeout=60).close()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return
        raise Failed("{0}: the registry does not delete {1}@{2} ({3} {4}); see storage.delete in its settings".format(
            url, repository, digest, error.code, error.reason)) from error
    except OSError as error:
        raise Failed("{0}: the registry does not answer ({1}); start it".format(url, getattr(error, "reason", error))) from error


def prune(url, path, keep, check_mode):
    root = os.path.join(path, "docker", "registry", "v2")
    found = images(root)
    contents = {digest: manifest(root, digest) for dummy, digest in found}
    stay = kept(found, contents, set(keep))
    removed = sorted(set(found) - stay)
    stored = sizes(root)
    needed = {digest for dummy, digest in stay} | {digest for dummy, image in stay for digest in parts(contents[image])}
    if not check_mode:
        for repository, digest in removed:
            delete(url, repository, digest)
    return {
        "changed": bool(removed),
        "removed": [{"repository": key[0], "digest": key[1], "tags": found[key]} for key in removed],
        "kept": len(stay),
        "size": sum(stored.values()),
        "frees": sum(size for digest, size in stored.items() if digest not in needed),
        "diff": {"before": "".join("{0}@{1}\n".format(*key) for key in sorted(found)),
                 "after": "".join("{0}@{1}\n".format(*key) for key in sorted(stay))},
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:5000"},
            "path": {"type": "path", "default": "/var/lib/hpclab/registry"},
            "keep": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = prune(module.params["url"].rstrip("/"), module.params["path"], module.params["keep"], module.check_mode)
    except Failed as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
