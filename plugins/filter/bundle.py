# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle, the one file of which a room without internet is made: what is in it, and whether it is what the room needs."""
from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

FORMAT = 1
# A bundle is a tar archive with a last line behind its end, which tar does not read: the hash of every byte before it. Hashes of the files
# alone would say nothing of the manifest that holds them.
SEAL = b"hpclab bundle sha256:"
SEAL_LENGTH = len(SEAL) + 64 + 1
MANIFEST = "manifest.json"
IMAGE = ("name", "variant", "mpi_from", "packages", "pip", "course", "image")  # what a row says of its image


def _sealed(file, length):
    """The hash of a file's first bytes."""
    whole = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(length, 1 << 20))):
        whole.update(chunk)
        length -= len(chunk)
    return whole.hexdigest()


def bundle_manifest(path):
    """What a bundle says of itself once every byte of it has been checked; else {findings: [what is wrong, in a sentence]}."""
    file = Path(path).expanduser()
    if not file.is_file():
        return {"findings": [f"bundle: there is no file {path} on this machine; correct the path, or make one with `make bundle`"]}
    length = file.stat().st_size - SEAL_LENGTH
    with file.open("rb") as stream:
        if not stream.read(512).startswith(MANIFEST.encode() + b"\0"):
            return {"findings": [f"bundle: {path} is no bundle; give one that `make bundle` has made"]}
        stream.seek(max(length, 0))
        seal = stream.read()
        if length <= 0 or not seal.startswith(SEAL):
            return {"findings": [f"bundle: {path} is cut short, its end is missing; copy it again"]}
        stream.seek(0)
        if seal != SEAL + _sealed(stream, length).encode() + b"\n":
            return {"findings": [f"bundle: {path} is damaged, it is not what it was when it was made (sha256); copy it again"]}
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            manifest = json.load(archive.extractfile(MANIFEST))
    if manifest["format"] != FORMAT:
        return {"findings": [f"bundle: {path} has format {manifest['format']} (hpclab.swarm {manifest['collection']}), and format {FORMAT} is read here; "
                             "make it with the version that you use"]}
    return {**manifest, "findings": []}


def bundle_findings(manifest, file, images, clusters, driver, plugin, through_registry, docker_source):
    """What the room asks for and the bundle does not have, in sentences.

    manifest: of bundle_manifest; images, clusters: of image_plan; the others: knobs of the roles.
    """
    if manifest["findings"]:
        return manifest["findings"]
    found = []
    missing = [image["key"] for image in images if image["key"] not in manifest["images"]]
    if missing:
        who = [name for name, key in clusters.items() if key in missing] or list(clusters)
        found.append(f"bundle: {file} has no image {missing[-1]}, which the cluster {who[0]} needs; make it again with this inventory and "
                     f"this version of the collection (it was made with {manifest['collection']})")
    had = manifest["plugin"]
    if driver == "vieux/sshfs" and had.get("source") != plugin:
        found.append(f"bundle: {file} has {'the plugin ' + had['source'] if had else 'no plugin'}, and sshfs_storage_plugin is {plugin}; "
                     "make it again with this inventory")
    if driver == "vieux/sshfs" and not through_registry:
        found.append("bundle: sshfs_storage_plugin_through_registry is false, and without internet the plugin is in the lab registry alone; set it to true")
    if docker_source != "distribution":
        found.append(f"bundle: swarm_init_docker_source is {docker_source}, and a bundle brings the distribution's Docker; leave it out (an engine "
                     "that is there is kept)")
    return found


def bundle_pc_findings(manifest, file, pcs):
    """The PCs that the bundle is not for, in a sentence; pcs: per PC what pc_info returned, those that are off without `os`."""
    def runs(what):
        return f"{what['os']['id']} {what['os']['version']} on {what['architecture']}"

    wanted, others = runs(manifest), {}
    for pc, info in pcs.items():
        if info.get("os") and runs(info) != wanted:
            others.setdefault(runs(info), []).append(pc)
    return [f"bundle: {file} is for {wanted}, and {', '.join(names)} {'runs' if len(names) == 1 else 'run'} {other}; make one for that"
            for other, names in others.items()]


def bundle_rows(rows):
    """Rows that need the same images on one PC: without what else they say, and each image once."""
    kept, seen = [], []
    for row in rows:
        image = {key: row[key] for key in IMAGE[1:] if row.get(key)}
        if row.get("state", "present") == "present" and image not in seen:
            seen.append(image)
            kept.append({"name": row["name"], **image, "ssh_port": 2222 + len(kept)})
    return kept


class FilterModule:
    def filters(self):
        return {function.__name__: function for function in (bundle_manifest, bundle_findings, bundle_pc_findings, bundle_rows)}
