# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""push.py REGISTRY NAME TAG TEXT [SIZE] [KIND]: pushes an image of one file that says TEXT; prints its digest, and its layer's.

SIZE is what its manifest claims of the layer, KIND what it claims to be. Runs on a PC and beside it alike.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
import urllib.request

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(method, url, data=None, kind="application/octet-stream"):
    return OPENER.open(urllib.request.Request(url, data, {"Content-Type": kind}, method=method), timeout=30)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def blob(base, content):
    where = ask("POST", base + "/blobs/uploads/", b"").headers["Location"]
    ask("PUT", where + ("&" if "?" in where else "?") + "digest=" + digest(content), content)
    return {"digest": digest(content), "size": len(content)}


def main(registry, name, tag, text, size=0, kind="application/vnd.docker.container.image.v1+json"):
    base = "{0}/v2/{1}".format(registry, name)
    files = io.BytesIO()
    with tarfile.open(fileobj=files, mode="w") as archive:
        entry = tarfile.TarInfo("text")
        entry.size = len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))
    layer = blob(base, gzip.compress(files.getvalue(), mtime=0))
    config = blob(base, json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/none"]},
                                    "rootfs": {"type": "layers", "diff_ids": [digest(files.getvalue())]}}).encode())
    version = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": version, "config": {"mediaType": kind, **config},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", **layer, **({"size": int(size)} if int(size) else {})}]})
    ask("PUT", "{0}/manifests/{1}".format(base, tag), manifest.encode(), version)
    print(digest(manifest.encode()), layer["digest"])


main(*sys.argv[1:])
