# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
from unittest.mock import Mock, call

import pytest
import requests
from ansible.module_utils.testing import patch_module_args
from ansible_collections.hpclab.swarm.plugins.module_utils import _plugin, _plugin_engine
from ansible_collections.hpclab.swarm.plugins.module_utils._engine import EngineError
from ansible_collections.hpclab.swarm.plugins.module_utils._plugin_engine import PluginEngine
from ansible_collections.hpclab.swarm.plugins.module_utils._stack import BadInput
from ansible_collections.hpclab.swarm.plugins.modules import sshfs_plugin
from docker import APIClient
from docker.errors import APIError

NAME, SOURCE, OTHER = "vieux/sshfs:latest", "lab:5443/vieux/sshfs:a", "lab:5443/vieux/sshfs:b"
DIGEST = {SOURCE: "sha256:" + "a" * 64, OTHER: "sha256:" + "b" * 64}
SETTINGS = {"DEBUG": "0", "sshkey.source": "", "state.source": "/var/lib/docker/plugins/"}
OUTSIDE = "/var/lib/docker/plugins/p1/propagated-mount"
V1, V2 = OUTSIDE + "/aa", OUTSIDE + "/bb"


class PC:
    """Its engine with one plugin at most, the volumes of that, and what is mounted; with the interface of PluginEngine."""

    name, version = "alice", "20.10.24"

    def __init__(self):
        self.registry, self.folders = dict(DIGEST), ["/etc/keys"]
        self.installed, self._volumes, self._containers = {}, {}, []
        self.changes, self.mounted, self.held, self.below, self.refusals = [], [], [], {}, {}

    def _do(self, *what):
        self.changes.append(" ".join(what))
        if what[0] in self.refusals:
            raise EngineError(self.refusals[what[0]])

    # what is read

    def plugin(self, name):
        return copy.deepcopy(self.installed.get(name))

    def digest(self, reference):
        if "away" in reference:
            raise EngineError("no such host")
        return self.registry.get(reference)

    def containers(self):
        return self._containers

    def volumes(self, plugin):
        assert plugin["enabled"]
        return dict(self._volumes)

    def mounts(self):
        return [("self", "device of " + path, path) for path in self.mounted] + [("77", "device of " + V1, path) for path in self.held]

    def files(self, path):
        return self.below.get(path, [])

    def is_folder(self, path):
        return path in self.folders

    # what changes it

    def pull(self, remote, name, upgrade=False):
        self._do("upgrade" if upgrade else "pull", remote)
        assert bool(self.installed.get(name)) == upgrade and not (upgrade and self.installed[name]["enabled"])
        self.installed[name] = {"id": "p1", "name": name, "reference": remote, "digest": self.registry[remote], "enabled": False,
                                "settings": dict(SETTINGS), "outside": OUTSIDE}

    def push(self, name):
        self._do("push", name)
        self.registry[name] = self.installed[name]["digest"]

    def set(self, name, settings):
        assert not self.installed[name]["enabled"]
        self._do("set", ",".join(sorted(settings)))
        self.installed[name]["settings"].update(settings)

    def enable(self, name):
        self._do("enable")
        self.installed[name]["enabled"] = True

    def disable(self, name):
        assert not self.mounted and not self.held
        self._do("disable")
        self.installed[name]["enabled"] = False

    def remove(self, name):
        self._do("remove", name)
        del self.installed[name]

    def remove_volume(self, name):
        assert self._volumes[name] not in self.mounted + self.held
        self._do("remove", name)
        del self._volumes[name]

    def unmount(self, path):
        self._do("unmount", path)
        if "busy" in path:
            return "umount: {0}: target is busy.".format(path)
        self.mounted.remove(path)
        return ""


@pytest.fixture
def pc():
    return PC()


@pytest.fixture
def have(pc):
    """Installs the plugin, with two volumes; then forgets how."""
    pc.pull(SOURCE, NAME)
    pc.set(NAME, {"sshkey.source": "/etc/keys"})
    pc.enable(NAME)
    pc._volumes = {"mpi_home_1": V1, "lab_home_1": V2}
    pc.changes.clear()


@pytest.fixture
def run(pc, monkeypatch, capsys):
    def run_module(check=False, **args):
        monkeypatch.setattr(sshfs_plugin, "connect", lambda docker_host, kind: pc)
        with patch_module_args(dict(args, _ansible_check_mode=check, _ansible_diff=True)), pytest.raises(SystemExit):
            sshfs_plugin.main()
        return json.loads(capsys.readouterr().out)
    return run_module


def container(name, *volumes, state="running", driver=NAME):
    return {"Names": ["/" + name], "State": state, "Mounts": [{"Type": "bind", "Source": "/x"}] + [
        {"Type": "volume", "Name": volume, "Driver": driver} for volume in volumes]}


WANTED = {"source": SOURCE, "settings": {"sshkey.source": "/etc/keys", "DEBUG": False}}


def four_ways(pc, run, steps, **args):
    """Predicted, done, and then nothing more to do or to predict."""
    predicted = run(check=True, **args)
    assert predicted["changed"] and not pc.changes
    done = run(**args)
    assert done["changed"] and pc.changes == steps
    pc.changes.clear()
    for check in (False, True):
        again = run(check=check, **args)
        assert not again["changed"] and not pc.changes and again["diff"]["before"] == again["diff"]["after"]
    return predicted, done


# {change, none} x {real, check}

def test_install(pc, run):
    predicted, done = four_ways(pc, run, ["pull " + SOURCE, "set DEBUG,sshkey.source", "enable"], **WANTED)
    assert done["plugin"] == {"reference": SOURCE, "digest": DIGEST[SOURCE], "enabled": True,
                              "settings": dict(SETTINGS, **{"DEBUG": "false", "sshkey.source": "/etc/keys"})}
    assert predicted["plugin"]["settings"] == {"DEBUG": "false", "sshkey.source": "/etc/keys"}
    assert done["diff"]["before"] == {"volumes": []} and done["diff"]["after"] == dict(done["plugin"], volumes=[])


def test_settings(pc, have, run):
    pc.mounted.append(V1)
    pc._containers = [container("ended", "mpi_home_1", state="exited"), container("local", "v", driver="local")]
    predicted, done = four_ways(pc, run, ["unmount " + V1, "disable", "set DEBUG", "enable"], settings={"DEBUG": 1})
    assert predicted["diff"] == done["diff"]
    assert done["diff"]["after"]["settings"] == dict(SETTINGS, **{"DEBUG": "1", "sshkey.source": "/etc/keys"})
    assert sorted(pc._volumes) == ["lab_home_1", "mpi_home_1"]


def test_another_one_keeps_the_settings(pc, have, run):
    steps = ["disable", "upgrade " + OTHER, "set sshkey.source", "enable"]
    predicted, done = four_ways(pc, run, steps, source=OTHER + "@" + DIGEST[OTHER])
    assert predicted["diff"] == done["diff"] and done["plugin"]["settings"]["sshkey.source"] == "/etc/keys"


def test_disabled(pc, have, run):
    pc.installed[NAME]["enabled"] = False
    pc._containers = [container("worker", "mpi_home_1")]
    predicted, done = four_ways(pc, run, ["enable"], **{**WANTED, "settings": {}})
    assert not predicted["diff"]["before"]["enabled"] and done["plugin"]["enabled"]


def test_volumes(pc, have, run):
    pc.mounted += [V1, V2]
    predicted, done = four_ways(pc, run, ["unmount " + V1, "remove mpi_home_1"], volumes_absent=["mpi_home_*", "gone"])
    assert predicted["diff"] == done["diff"] and predicted["volumes"] == done["volumes"] == ["mpi_home_1"]
    assert done["diff"]["after"]["volumes"] == ["lab_home_1"]


def test_volumes_of_a_disabled_plugin(pc, have, run):
    pc.installed[NAME]["enabled"] = False
    assert run(volumes_absent=["mpi_home_1"])["volumes"] == ["mpi_home_1"]
    assert pc.changes == ["enable", "remove mpi_home_1"]


def test_absent(pc, have, run):
    pc.mounted.append(V1)
    steps = ["remove lab_home_1", "unmount " + V1, "remove mpi_home_1", "disable", "remove " + NAME]
    predicted, done = four_ways(pc, run, steps, state="absent")
    assert predicted["diff"] == done["diff"] and done["plugin"] == {} and done["diff"]["after"] == {"volumes": []}


def test_mirrored(pc, run):
    args = {"state": "mirrored", "source": SOURCE, "mirror": "127.0.0.1:5000/vieux/sshfs"}
    tag = run(check=True, **args)["tag"]
    target = "127.0.0.1:5000/vieux/sshfs:" + tag
    predicted, done = four_ways(pc, run, ["pull " + SOURCE, "push " + target, "remove " + target], **args)
    assert predicted["digest"] == "" and done["digest"] == DIGEST[SOURCE] and not pc.installed
    assert predicted["diff"] == done["diff"] == {"before": {}, "after": {target: SOURCE}}


def test_mirrored_after_a_run_that_was_cut_off(pc, run):
    args = {"state": "mirrored", "source": SOURCE + "@" + DIGEST[SOURCE], "mirror": "m/x"}
    predicted = run(check=True, **args)
    assert predicted["digest"] == DIGEST[SOURCE]
    target = "m/x:" + predicted["tag"]
    pc.pull(SOURCE, target)
    pc.refusals["push"] = "denied"
    assert run(**args)["msg"] == "denied" and not pc.installed
    assert pc.changes[1:] == ["remove " + target, "pull " + SOURCE, "push " + target, "remove " + target]


def test_nothing_asked_for_nothing_there(pc, run):
    for args in ({}, {"volumes_absent": ["*"]}, {"state": "absent"}):
        result = run(**args)
        assert not result["changed"] and result["users"] == [] and not pc.changes


def test_a_newer_engine_is_asked_for_the_digest(pc, run):
    source = "lab/x@" + DIGEST[OTHER]
    pc.version, pc.registry[source] = "26.1.5+dfsg1", DIGEST[OTHER]
    four_ways(pc, run, ["pull " + source, "enable"], source=source)


@pytest.mark.parametrize("source, changed", [
    (SOURCE, False), (OTHER, True), ("elsewhere/x:1@" + DIGEST[SOURCE], False), (SOURCE + "@" + DIGEST[OTHER], True)])
def test_what_is_the_same_plugin(have, run, source, changed):
    assert run(check=True, source=source)["changed"] == changed


def test_docker_hub_may_be_named(pc, have, run):
    pc.installed[NAME]["reference"] = "docker.io/vieux/sshfs:latest"
    assert not run(check=True, source="vieux/sshfs")["changed"]


# Refusals: one sentence, nothing changed

@pytest.mark.parametrize("args, message", [
    ({"source": "a b"}, "source: a b is no plugin's name; write it as in vieux/sshfs:latest or registry:5000/vieux/sshfs:1@sha256:…"),
    ({"source": "lab/x:1"}, "source: lab/x:1 can't be had, its registry has none of that name"),
    ({"source": "away/x:1"}, "source: away/x:1 can't be had (no such host); correct it, or see whether its registry can be reached"),
    ({"source": "lab/x@" + DIGEST[OTHER]}, "source: lab/x@{0} has no tag, and engine 20.10.24 may crash when it is asked for a plugin's "
     "digest; write lab/x:TAG@{0}".format(DIGEST[OTHER])),
    ({"source": SOURCE + "@" + DIGEST[OTHER]}, "source: {0} is {1} by now, and not the digest asked for; correct one of them".format(
        SOURCE, DIGEST[SOURCE])),
    ({"settings": {"sshkey": "/etc/keys", "x": 1}},
     "settings: {0} has no sshkey, x; it knows DEBUG, sshkey.source, state.source".format(NAME)),
    ({"settings": {"sshkey.source": "/no"}}, "settings: sshkey.source is to be /no, which is no directory on alice; make it first"),
    ({"state": "mirrored", "source": SOURCE, "mirror": "away/x"}, "mirror: the registry of away/x:from-2"),
])
def test_bad_input(pc, have, run, args, message):
    result = run(**args)
    assert result["failed"] and (result["msg"] == message or "mirror" in args and result["msg"].startswith("mirror: the registry of away/x:from-"))
    assert not pc.changes


USERS = [container("b", "mpi_home_1"), container("a", "mpi_home_1"), container("old", "lab_home_1", state="exited")]
DISABLED = NAME + " must be disabled on alice to be {0}, and containers use it: {1}; end them first, or drain the PC"
KEPT = "volume {0} can't be removed on alice, containers have {1}; remove them first"


@pytest.mark.parametrize("args, users, message", [
    ({"settings": {"DEBUG": 1}}, ["a", "b"], DISABLED.format("given other settings", "a, b")),
    ({"source": OTHER}, ["a", "b"], DISABLED.format("replaced", "a, b")),
    ({"state": "absent"}, ["a", "b", "old"], DISABLED.format("removed", "a, b")),
    ({"volumes_absent": ["mpi_home_1"]}, ["a", "b"], KEPT.format("mpi_home_1", "it: a, b")),
    ({"volumes_absent": ["lab_*"]}, ["old"], KEPT.format("lab_home_1", "it: old")),
])
def test_in_use(pc, have, run, args, users, message):
    pc._containers = USERS
    result = run(**args)
    assert result["msg"] == message and not pc.changes and result["users"]
    predicted = run(check=True, **args)  # they may have ended by then
    assert predicted["changed"] and predicted["users"] == users


@pytest.mark.parametrize("check", [True, False])
def test_containers_that_end_are_waited_for(pc, have, run, clock, monkeypatch, check):
    monkeypatch.setattr(pc, "containers", lambda: USERS if clock.seconds < 3 else [])
    result = run(check=check, volumes_absent=["mpi_home_1"], timeout=5)
    assert result["changed"] and result["users"] == [] and clock.seconds == 3
    pc.installed[NAME]["enabled"], pc._volumes["mpi_home_1"] = True, V1
    monkeypatch.setattr(pc, "containers", lambda: USERS)
    assert run(check=check, volumes_absent=["mpi_home_1"], timeout=5)["users"] == ["a", "b"] and clock.seconds == 8


def test_a_shared_mount_point_is_in_use(pc, have, run):
    pc._volumes["mpi_home_2"] = V1
    pc._containers = [container("a", "mpi_home_1")]
    assert run(volumes_absent=["mpi_home_2"])["msg"] == KEPT.format("mpi_home_2", "mpi_home_1, which shares its mount point: a")
    assert not pc.changes


def test_what_stays_mounted_is_not_removed(pc, have, run):
    pc._volumes["mpi_home_1"] = busy = OUTSIDE + "/busy"
    pc.mounted.append(busy)
    for args in ({"volumes_absent": ["mpi_home_1"]}, {"settings": {"DEBUG": 1}}):
        assert run(**args)["msg"] == busy + " is still mounted on alice (target is busy.); end what uses it"
    assert pc.changes == ["unmount " + busy] * 2


def test_what_another_process_still_sees_is_not_removed(pc, have, run):
    pc.mounted.append(V1)
    pc.held.append("/data")
    assert run(volumes_absent=["mpi_home_1"])["msg"] == V1 + " is still mounted on alice; end what uses it, processes 77"
    pc.held[:] = ["/mnt/volumes/aa"]  # the plugin's own view
    assert "processes 77" in run(volumes_absent=["mpi_home_1"])["msg"]
    assert pc.changes == ["unmount " + V1]


def test_files_that_are_on_the_pc_alone_are_not_removed(pc, have, run):
    pc.below[V1] = ["lost.c"]
    assert run(volumes_absent=["mpi_home_1"])["msg"] == (
        "volume mpi_home_1 can't be removed on alice, the files below {0} are on this PC alone: lost.c; move them away first".format(V1))
    assert not pc.changes


# What fails half-way is taken back

def test_an_install_that_fails_leaves_nothing(pc, run):
    pc.refusals["enable"] = "dial unix: no such file"
    assert run(**WANTED)["msg"] == "dial unix: no such file" and not pc.installed
    assert run(source=SOURCE, settings={"x": 1})["msg"].startswith("settings: ") and not pc.installed


@pytest.mark.parametrize("args, refused", [({"settings": {"DEBUG": 1}}, "set"), ({"source": OTHER}, "upgrade")])
def test_the_earlier_plugin_comes_back(pc, have, run, args, refused):
    before = copy.deepcopy(pc.installed)
    pc.refusals[refused] = "no"
    assert run(**args)["msg"] == "no; the earlier plugin was restored" and pc.installed == before


def test_another_plugin_that_does_not_start_is_replaced_by_the_earlier_one(pc, have, run, monkeypatch):
    before, enable = copy.deepcopy(pc.installed), pc.enable

    def enable_this_one(name):
        if pc.installed[name]["reference"] == OTHER:
            raise EngineError("no")
        enable(name)
    monkeypatch.setattr(pc, "enable", enable_this_one)
    assert run(source=OTHER)["msg"] == "no; the earlier plugin was restored" and pc.installed == before
    pc.refusals["set"] = "gone"
    assert run(source=OTHER)["msg"] == "gone; the earlier plugin could not be restored: gone"


# The engine's and the PC's side

INSPECTED = {
    "Id": "p1", "Name": NAME, "Enabled": True, "PluginReference": SOURCE,
    "Config": {"PropagatedMount": "/mnt/volumes", "Mounts": [{"Name": "sshkey", "Source": "/new"}, {"Name": "state", "Source": None}]},
    "Settings": {"Env": ["DEBUG=a=b"], "Mounts": [{"Name": "sshkey", "Source": "/old"}]},
}


def said(words, status):
    response = requests.Response()
    response.status_code = status
    return APIError("error", response, words)


@pytest.fixture
def client(tmp_path):
    client = Mock(spec=APIClient, timeout=60)
    client.info.return_value = {"Name": "alice", "ServerVersion": "20.10.24", "DockerRootDir": str(tmp_path)}
    (tmp_path / "plugins/p1").mkdir(parents=True)
    (tmp_path / "plugins/p1/config.json").write_text(json.dumps({"Manifest": DIGEST[SOURCE]}))
    return client


def test_a_plugin_is_read(client, tmp_path):
    client.inspect_plugin.side_effect = [INSPECTED, said("no such plugin", 404), said("down", 500)]
    engine = PluginEngine(client)
    plugin = engine.plugin(NAME)
    assert plugin == {"id": "p1", "name": NAME, "reference": SOURCE, "digest": DIGEST[SOURCE], "enabled": True,
                      "settings": {"DEBUG": "a=b", "sshkey.source": "/new", "state.source": ""},
                      "outside": str(tmp_path / "plugins/p1/propagated-mount")}
    assert engine.plugin(NAME) is None
    with pytest.raises(EngineError, match="down"):
        engine.plugin(NAME)
    # the list tells the PC's path, what one volume is asked, the plugin's
    client.volumes.return_value = {"Volumes": [{"Name": "a", "Mountpoint": plugin["outside"] + "/aa"}, {"Name": "b", "Mountpoint": "/mnt/volumes/bb"}]}
    assert engine.volumes(plugin) == {"a": plugin["outside"] + "/aa", "b": plugin["outside"] + "/bb"}


def test_a_registry_is_asked(client):
    client.inspect_distribution.side_effect = [{"Descriptor": {"digest": "d"}}, said("manifest unknown", 404), said("no such host", 500)]
    engine = PluginEngine(client)
    assert (engine.digest("a"), engine.digest("b")) == ("d", None)
    with pytest.raises(EngineError, match="no such host"):
        engine.digest("c")


def test_what_goes_wrong_while_pulling_is_said(client):
    client.plugin_privileges.return_value = ["p"]
    client.pull_plugin.return_value = iter([{"status": "Pulling"}, {"error": "manifest unknown"}])
    client.upgrade_plugin.return_value = iter([{"status": "Pulling"}])
    engine = PluginEngine(client)
    with pytest.raises(EngineError, match="manifest unknown"):
        engine.pull("r", NAME)
    engine.pull("r", NAME, upgrade=True)
    assert client.pull_plugin.call_args == call("r", ["p"], NAME) and client.upgrade_plugin.call_args == call(NAME, "r", ["p"])
    assert client.timeout == 60


def test_what_the_sdk_can_not(client):
    client._stream_helper.return_value = iter([{"status": "Preparing"}, {"error": "denied"}])
    client._raise_for_status.side_effect = [None, None, said("no such plugin", 404)]
    engine = PluginEngine(client)
    engine.disable(NAME)
    with pytest.raises(EngineError, match="denied"):
        engine.push(NAME)
    with pytest.raises(EngineError, match="no such plugin"):
        engine.disable(NAME)
    assert [item.args for item in client._url.call_args_list[:2]] == [("/plugins/{0}/disable", NAME), ("/plugins/{0}/push", NAME)]
    assert client._post.call_args_list[0].kwargs == {"params": {"force": 1}} and client._stream_helper.call_args.kwargs == {"decode": True}


def test_mounts_of_every_process(tmp_path, monkeypatch):
    line = r"112 709 0:98 / /var/lib/a\040b rw shared:96 - fuse.sshfs u@h:/x rw,user_id=0" + "\n"
    assert list(_plugin.sshfs_mounts("1 2 0:5 / / rw - ext4 /dev/sda rw\n" + line)) == [("0:98", "/var/lib/a b")]
    monkeypatch.setattr(_plugin_engine.glob, "glob", lambda pattern: ["/proc/0"])  # ended
    assert PluginEngine.mounts() == []


def test_unmounting_says_why_not(tmp_path):
    assert str(tmp_path) in PluginEngine.unmount(str(tmp_path)) or "umount" in PluginEngine.unmount(str(tmp_path))
    assert PluginEngine.files(str(tmp_path / "no")) == [] and PluginEngine.is_folder(str(tmp_path))


@pytest.mark.parametrize("text, parts", [
    ("vieux/sshfs", ("vieux/sshfs", "latest", None)),
    ("docker.io/vieux/sshfs:next", ("vieux/sshfs", "next", None)),
    ("127.0.0.1:5000/vieux/sshfs", ("127.0.0.1:5000/vieux/sshfs", "latest", None)),
    ("r:1/x:t@" + DIGEST[OTHER], ("r:1/x", "t", DIGEST[OTHER])),
    ("r/x@" + DIGEST[OTHER], ("r/x", None, DIGEST[OTHER])),
])
def test_references(text, parts):
    assert _plugin.reference(text) == parts


@pytest.mark.parametrize("text", ["", "A/b", "x@sha256:12", "x:", "x/", "https://x/y:1 ", "x:t@sha512:" + "a" * 64])
def test_no_references(text):
    with pytest.raises(BadInput):
        _plugin.reference(text)
