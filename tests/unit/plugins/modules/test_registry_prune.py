# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a storage as docker-registry writes it, with a registry that only notes what it shall delete."""
from __future__ import annotations

import hashlib
import http.server
import json
import threading

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.hpclab.swarm.plugins.modules import registry_prune


class Storage:
    def __init__(self, path):
        self.path, self.root = path, path / "docker/registry/v2"

    def blob(self, content):
        number = hashlib.sha256(content).hexdigest()
        folder = self.root / "blobs/sha256" / number[:2] / number
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data").write_bytes(content)
        return "sha256:" + number

    def manifest(self, repository, content, *tags):
        digest = self.blob(json.dumps(content).encode())
        here = self.root / "repositories" / repository / "_manifests"
        for folder in [here / "revisions/sha256" / digest[7:], *(here / "tags" / tag / "current" for tag in tags)]:
            folder.mkdir(parents=True)
            (folder / "link").write_text(digest)
        return digest

    def image(self, repository, *tags, layers=(b"base",), kind="application/vnd.docker.container.image.v1+json"):
        config = {"mediaType": kind, "digest": self.blob(f"config of {repository} {tags} {layers}".encode())}
        return self.manifest(repository, {"config": config, "layers": [{"digest": self.blob(layer)} for layer in layers]}, *tags)


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_DELETE(self):
        self.server.deleted.append(self.path)
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *unused):
        pass


@pytest.fixture
def server():
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as found:
        found.deleted, found.answer = [], 202
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def run(storage, server, capsys):
    def run_module(*keep, check=False, **changed):
        args = {"url": f"http://127.0.0.1:{server.server_port}/", "path": str(storage.path), "keep": list(keep), **changed}
        with patch_module_args(dict(args, _ansible_check_mode=check, _ansible_diff=True)), pytest.raises(SystemExit):
            registry_prune.main()
        return json.loads(capsys.readouterr().out)
    return run_module


@pytest.mark.parametrize("check", [False, True], ids=["real", "check"])
def test_deletes_what_is_not_kept(storage, server, run, check):
    stays = storage.image("ubuntu-openmpi", "new", layers=[b"base", b"own"])
    goes = storage.image("ubuntu-openmpi", "old", "older", layers=[b"base", b"what only the old one has"])
    untagged = storage.image("our/course")
    result = run(stays, check=check)
    assert result["changed"]
    assert result["removed"] == [{"repository": "our/course", "digest": untagged, "tags": []},
                                 {"repository": "ubuntu-openmpi", "digest": goes, "tags": ["old", "older"]}]
    assert result["kept"] == 1
    assert server.deleted == ([] if check else [f"/v2/our/course/manifests/{untagged}", f"/v2/ubuntu-openmpi/manifests/{goes}"])
    assert goes in result["diff"]["before"] and goes not in result["diff"]["after"] and stays in result["diff"]["after"]


@pytest.mark.parametrize("check", [False, True], ids=["real", "check"])
def test_nothing_to_do(storage, server, run, check):
    result = run(storage.image("ubuntu-openmpi", "new"), check=check)
    assert (result["changed"], result["removed"], result["frees"], server.deleted) == (False, [], 0, [])


def test_an_empty_registry(run):
    result = run()
    assert (result["changed"], result["kept"], result["size"], result["frees"]) == (False, 0, 0, 0)


def test_frees_what_no_image_that_stays_has(storage, run):
    """Also what an earlier run, or a push that was cut off, left; shared layers stay."""
    stays = storage.image("a", "1", layers=[b"shared"])
    before = run(stays)
    assert (before["changed"], before["frees"]) == (False, 0)
    storage.blob(b"x" * 1000)
    assert run(stays)["frees"] == 1000
    storage.image("b", "1", layers=[b"shared", b"y" * 1000])
    after = run(stays)
    assert after["size"] - after["frees"] == before["size"]


def test_kept_by_tag(storage, run):
    storage.image("course", "latest", layers=[b"1"])
    other = storage.image("course", "old", layers=[b"2"])
    assert [image["digest"] for image in run("course:latest")["removed"]] == [other]


def test_plugins_stay(storage, run):
    storage.image("vieux/sshfs", "from-1", kind=registry_prune.PLUGIN)
    assert not run()["changed"]


def test_an_index_keeps_its_images(storage, run):
    inner, other = storage.image("a", layers=[b"amd64"]), storage.image("a", layers=[b"other"])
    index = storage.manifest("a", {"manifests": [{"digest": inner}, {"digest": "sha256:" + "0" * 64}]}, "latest")
    result = run(index)
    assert [image["digest"] for image in result["removed"]] == [other]
    assert result["kept"] == 2


def test_a_manifest_that_is_broken_is_no_obstacle(storage, run):
    digest = storage.image("a", "1")
    (storage.root / "blobs/sha256" / digest[7:9] / digest[7:] / "data").write_text("{")
    assert [image["digest"] for image in run()["removed"]] == [digest]


@pytest.mark.parametrize("answer, words", [(405, ["does not delete a@sha256:", "405", "storage.delete"]), (404, None)])
def test_what_the_registry_says(storage, server, run, answer, words):
    storage.image("a", "1")
    server.answer = answer
    result = run()
    if words is None:  # gone already
        assert result["changed"]
    else:
        assert result["failed"] and all(word in result["msg"] for word in words)


def test_no_registry(storage, run):
    storage.image("a", "1")
    result = run(url="http://127.0.0.1:1")
    assert result["failed"] and "http://127.0.0.1:1: the registry does not answer" in result["msg"] and result["msg"].endswith("start it")
