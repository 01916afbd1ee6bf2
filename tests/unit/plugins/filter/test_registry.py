# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.hpclab.swarm.plugins.filter import registry

MIRROR, OLD = "https://registry.hpclab.internal:5444", "https://registry.hpclab.internal:5555"
CAMPUS = "https://mirror.example.org/"
PULL, PUSH = "registry.hpclab.internal:5443", "127.0.0.1:5000"


# The mirror

@pytest.mark.parametrize("text, mirrors, gone, wanted", [
    ("", [MIRROR], [], {"registry-mirrors": [MIRROR]}),
    ('{"debug": true}', [MIRROR], [], {"debug": True, "registry-mirrors": [MIRROR]}),
    (json.dumps({"registry-mirrors": [CAMPUS]}), [MIRROR], [], {"registry-mirrors": [CAMPUS, MIRROR]}),
    (json.dumps({"registry-mirrors": [OLD + "/", CAMPUS]}), [MIRROR], [OLD], {"registry-mirrors": [CAMPUS, MIRROR]}),
    (json.dumps({"registry-mirrors": [CAMPUS, MIRROR]}), [], [MIRROR], {"registry-mirrors": [CAMPUS]}),
    (json.dumps({"debug": True, "registry-mirrors": [MIRROR]}), [], [MIRROR], {"debug": True}),
])
def test_daemon(text, mirrors, gone, wanted):
    changed = registry.registry_daemon(text, mirrors, gone)
    assert json.loads(changed) == wanted
    assert registry.registry_daemon(changed, mirrors, gone) == changed


@pytest.mark.parametrize("text, mirrors, gone", [
    ("", [], [MIRROR]),
    ('{"debug":true}', [], [OLD]),
    ('{ "registry-mirrors" : ["%s/"] }' % MIRROR, [MIRROR], [OLD]),
])
def test_daemon_stays_to_the_letter(text, mirrors, gone):
    assert registry.registry_daemon(text, mirrors, gone) == text


@pytest.mark.parametrize("text, wanted", [
    ("", {"registry-mirrors": []}),
    (json.dumps({"debug": True, "registry-mirrors": [MIRROR]}), {"debug": True, "registry-mirrors": []}),
])
def test_an_engine_that_reads_it_anew_is_told_that_there_is_none(text, wanted):
    changed = registry.registry_daemon(text, [], [MIRROR], loading=True)
    assert json.loads(changed) == wanted
    assert registry.registry_daemon(changed, [], [MIRROR], loading=True) == changed


def test_of_the_mirrors_alone_nothing_is_left():
    assert registry.registry_daemon(json.dumps({"registry-mirrors": [MIRROR]}), [], [MIRROR]) == ""


@pytest.mark.parametrize("text, engine, mirrors, words", [
    ('{"debug": true,}', [], [MIRROR], ["bob", "/etc/docker/daemon.json", "line 1 column", "correct it"]),
    ("[]", [], [MIRROR], ["bob", "it is no object"]),
    ('{"registry-mirrors": "%s"}' % CAMPUS, [], [MIRROR], ["registry-mirrors is no list"]),
    ('{"registry-mirrors": [1]}', [], [MIRROR], ["registry-mirrors is no list"]),
    ("", [CAMPUS], [MIRROR], ["bob", "https://mirror.example.org ", "command line", "lab_registry_mirror=false"]),
])
def test_bad_daemon(text, engine, mirrors, words):
    finding, = registry.registry_findings(text, "bob", engine, mirrors, [])
    for word in words:
        assert word in finding


@pytest.mark.parametrize("text, engine, mirrors, gone", [
    ("", [], [MIRROR], []),
    ("", [OLD + "/"], [MIRROR], [OLD]),
    (json.dumps({"registry-mirrors": [CAMPUS]}), [CAMPUS], [MIRROR], []),
    ("", [CAMPUS], [], [MIRROR]),
])
def test_good_daemon(text, engine, mirrors, gone):
    assert registry.registry_findings(text, "bob", engine, mirrors, gone) == []


# What nothing uses

def digest(letter):
    return "sha256:" + letter * 64


def image(letter, *tags, repository="course", prefixes=(PULL,)):
    return {"Id": "id" + letter, "RepoTags": list(tags) or None,
            "RepoDigests": [f"{prefix}/{repository}@{digest(letter)}" for prefix in prefixes] or None}


def service(now, before=None):
    def spec(name):
        return {"TaskTemplate": {"ContainerSpec": {"Image": name}}}
    return {"Spec": spec(now), **({"PreviousSpec": spec(before)} if before else {})}


def unused(images, containers=(), services=(), others=()):
    hosts = {"bob": {"images": images, "containers": [{"ImageID": one} for one in containers]},
             "alice": {"images": [], "containers": []}, **dict(others)}
    return registry.registry_unused(hosts, list(services), [PULL, PUSH])


def test_of_no_use():
    found = unused([image("a")])
    assert found == {"keep": [], "pcs": {"bob": {"references": [f"{PULL}/course@{digest('a')}"], "names": ["course@aaaaaaaaaaaa"]},
                                         "alice": {"references": [], "names": []}}}


def test_the_manager_has_it_by_both_names_and_tags_go_first():
    found = unused([image("a", f"{PUSH}/course:1", prefixes=(PULL, PUSH))])
    assert found["pcs"]["bob"] == {
        "references": [f"{PUSH}/course:1", f"{PULL}/course@{digest('a')}", f"{PUSH}/course@{digest('a')}"], "names": ["course:1"]}


@pytest.mark.parametrize("services", [
    [service(f"{PULL}/course@{digest('a')}")],
    [service(f"{PULL}/course:1@{digest('a')}")],
    [service(f"{PULL}/course@{digest('b')}", f"{PULL}/course@{digest('a')}")],
], ids=["now", "with a tag", "before"])
def test_a_service_has_it(services):
    found = unused([image("a"), image("c")], services=services)
    assert digest("a") in found["keep"] and digest("c") not in found["keep"]
    assert found["pcs"]["bob"]["names"] == ["course@cccccccccccc"]


@pytest.mark.parametrize("name", [f"{PULL}/course:latest", f"{PULL}/course"])
def test_a_service_has_it_by_tag(name):
    """On any PC, and if that is off, in the registry."""
    found = unused([image("a", f"{PULL}/course:latest")], services=[service(name)])
    assert found == {"keep": ["course:latest", digest("a")], "pcs": dict.fromkeys(["bob", "alice"], {"references": [], "names": []})}


def test_a_container_has_it_on_one_pc():
    """Also where another PC has it for nothing: that costs nothing, and one digest is in use or not."""
    found = unused([image("a")], containers=["ida"], others={"falco": {"images": [image("a"), image("b")], "containers": []}})
    assert found["keep"] == [digest("a")]
    assert found["pcs"]["bob"]["names"] == [] and found["pcs"]["falco"]["names"] == ["course@bbbbbbbbbbbb"]


def test_others_images_are_left_alone():
    mine = {"Id": "x", "RepoTags": ["debian:12"], "RepoDigests": [f"registry.hpclab.internal:54433/course@{digest('a')}"]}
    untagged = {"Id": "y", "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
    assert unused([mine, untagged])["pcs"]["bob"]["references"] == []
    # only our name of an image goes that somebody gave another
    assert unused([image("a", "mine:1")])["pcs"]["bob"]["references"] == [f"{PULL}/course@{digest('a')}"]


# Room

IMAGE = f"{PULL}/course@{digest('a')}"
MANIFEST = {"layers": [{"size": 100_000_000}, {"size": 50_000_000}]}


def disk(free):
    return {"path": "/var/lib/docker", "free": free}


def test_who_has_plenty_is_not_asked():
    assert list(registry.registry_room({"bob": disk(1_500_000_000), "alice": disk(1_499_999_999)}, IMAGE, MANIFEST)) == ["alice"]
    assert registry.registry_room({"bob": disk(0)}, "busybox", {}) == {}


@pytest.mark.parametrize("unpacked, has, need", [
    (0, [], 600_000_000),  # 150 MB, and three times that
    (300_000_000, [], 450_000_000),
    (300_000_000, [["x", "z"], ["z"]], 150_000_000),
    (300_000_000, [["x", "y"]], 0),
    (300_000_000, [["y"]], 450_000_000),  # on another layer it is another one
    (1, [], 300_000_000),  # nonsense
])
def test_room(unpacked, has, need):
    def short(free):
        return registry.registry_room({"bob": disk(free)}, IMAGE, MANIFEST, unpacked, ["x", "y"], {"bob": has})
    assert short(need) == {}
    if need:
        assert short(need - 1)["bob"].startswith(f"bob: the image course@aaaaaaaaaaaa needs {need // 10**6} MB in /var/lib/docker, where ")


def test_large_numbers_read_well():
    sentence = registry.registry_room({"bob": disk(1_230_000_000)}, IMAGE, {"layers": [{"size": 1_000_000_000}]}, images={"bob": []})["bob"]
    assert "needs 4.0 GB in /var/lib/docker, where 1.2 GB are free; make room there, for instance with the playbook prune" in sentence
