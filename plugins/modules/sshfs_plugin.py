#!/usr/bin/python
# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sshfs_plugin
short_description: The volume plugin vieux/sshfs on a PC, and its volumes' safe removal
version_added: 0.2.0
description:
  - Makes the managed plugin be there with its settings and enabled, or not be there.
  - Removes volumes of the plugin, which by itself can delete the server's files with them, only once they are unmounted.
  - Copies a plugin from one registry to another, so that a room needs the internet once.
  - Data on the server is never touched.
options:
  name:
    description:
      - Name of the plugin on the PC, the volumes' driver.
    type: str
    default: vieux/sshfs:latest
  state:
    description:
      - V(present) installs the plugin if it is missing or another one, applies O(settings), and enables it. What would disable it is refused
        while a container mounts one of its volumes.
      - V(absent) removes the plugin and, safely, all its volumes on this PC. It is refused while a container has one of them.
      - V(mirrored) copies O(source) to O(mirror), unless it is there, and installs nothing.
    type: str
    choices: [present, absent, mirrored]
    default: present
  source:
    description:
      - Where the plugin comes from, with a tag, or a tag and a digest as in C(registry:5000/vieux/sshfs:1@sha256:…).
      - With a digest, an installed plugin with another one is replaced. Without one, the installed plugin is the wanted one if it came
        from there, even if the tag means another plugin by now.
      - Where there is a tag, the engine is asked for that, once it has been compared with the digest. For engines before 26.0 there must be
        one, for many of them crash when they are asked for a plugin's digest.
      - Left out, the plugin that is there will do, whichever it is, and a missing one is not installed.
    type: str
  settings:
    description:
      - The plugin's settings by the names that C(docker plugin set) knows, such as C(sshkey.source), C(state.source) or C(DEBUG).
      - Settings that are not named stay as they are.
    type: dict
    default: {}
  mirror:
    description:
      - With O(state=mirrored), the repository to copy the plugin to, in a registry that this engine may push to.
    type: str
  volumes_absent:
    description:
      - Names of volumes of the plugin to remove from this PC, or patterns such as C(mpi_home_*).
      - A volume is unmounted first. Its removal is refused while a container has it, while a container has another one with the same
        C(sshcmd), which shares its mount point, if it can't be unmounted, and if files are below the mount point then, which
        a lost connection left on the PC.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds to wait, in check mode too, until containers that are in the way have ended.
    type: int
    default: 0
  docker_host:
    description:
      - The PC's engine.
    type: str
    default: unix:///var/run/docker.sock
attributes:
  check_mode:
    support: full
    description: Predicts what would change. Asks no registry but that of O(mirror). Containers in the way, which may have ended when
      it is run, are returned as RV(users) instead of refused.
  diff_mode:
    support: full
    description: Shows the plugin and its volumes before and after.
  idempotent:
    support: full
    description: Changes nothing if the plugin is there as described and the volumes are not.
requirements:
  - docker >= 5.0 (Python)
  - Docker Engine >= 20.10
  - root, on the engine's own PC
seealso:
  - module: community.docker.docker_plugin
    description: Compares less of the settings than this one, and fails on an enabled plugin.
author:
  - the hpclab.swarm authors (@hpclab)
"""

EXAMPLES = r"""
- name: Install the plugin from Docker Hub
  hpclab.swarm.sshfs_plugin:
    source: vieux/sshfs:latest
    settings:
      sshkey.source: /etc/hpclab/storage

- name: Copy it to the room's registry, on the PC that may push there
  hpclab.swarm.sshfs_plugin:
    state: mirrored
    source: vieux/sshfs:latest
    mirror: 127.0.0.1:5000/vieux/sshfs
  register: mirrored

- name: Install what was copied
  hpclab.swarm.sshfs_plugin:
    source: registry.hpclab.internal:5443/vieux/sshfs:{{ mirrored.tag }}@{{ mirrored.digest }}

- name: Remove the volumes of the cluster mpi from this PC
  hpclab.swarm.sshfs_plugin:
    volumes_absent: [mpi_home_*]
"""

RETURN = r"""
plugin:
  description: The plugin as it is now, in check mode as it would be; empty if it is not there.
  returned: with state present or absent
  type: dict
  contains:
    reference:
      description: Where it came from.
      type: str
      sample: registry.hpclab.internal:5443/vieux/sshfs:from-2b3c6a1f0d4e
    digest:
      description: Digest of what was installed; empty where it is not known.
      type: str
      sample: sha256:7f36fa7eb5a3a2f21db36a9791d9fb962d6ffd5cd96f9757e9a4ab5d1ce73bf9
    enabled:
      description: Whether it is enabled.
      type: bool
      sample: true
    settings:
      description: Its settings.
      type: dict
      sample: {"DEBUG": "0", "sshkey.source": "/etc/hpclab/storage", "state.source": "/var/lib/docker/plugins/"}
users:
  description:
    - Containers on the PC that are in the way. The module fails because of them, but in check mode.
  returned: with state present or absent, and when it fails because of them
  type: list
  elements: str
  sample: [mpi_worker.x7k2m0q1c5zv8w3e9r4t6y2u1.2nspoxzczvibrzf91mv89qa9l]
volumes:
  description: The volumes that were removed.
  returned: with state present or absent
  type: list
  elements: str
  sample: [mpi_home_1f2e3d4c]
tag:
  description: The tag that O(source) has in O(mirror).
  returned: with state mirrored
  type: str
  sample: from-2b3c6a1f0d4e
digest:
  description: The digest of what O(mirror) has. In check mode, if it is not there yet, that of O(source), empty if it has none.
  returned: with state mirrored
  type: str
  sample: sha256:7f36fa7eb5a3a2f21db36a9791d9fb962d6ffd5cd96f9757e9a4ab5d1ce73bf9
"""

import fcntl
import fnmatch
import hashlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hpclab.swarm.plugins.module_utils import _plugin, _wait
from ansible_collections.hpclab.swarm.plugins.module_utils._engine import EngineError, connect
from ansible_collections.hpclab.swarm.plugins.module_utils._plugin_engine import PluginEngine
from ansible_collections.hpclab.swarm.plugins.module_utils._stack import BadInput

LOCK = "/run/lock/hpclab-plugin"  # so that the unit of role sshfs_storage that enables the plugin stays away meanwhile
SHOWN = ("reference", "digest", "enabled", "settings")


def shown(plugin):
    return {key: plugin[key] for key in SHOWN} if plugin else {}


class InUse(Exception):
    def __init__(self, message, users):
        super().__init__(message)
        self.users = users


class Plugin:
    def __init__(self, params, engine, check_mode):
        self.engine, self.check_mode, self.timeout = engine, check_mode, params["timeout"]
        self.driver = _plugin.reference(params["name"], "name")
        self.name = self.driver.tagged
        self.source = _plugin.reference(params["source"]) if params["source"] else None
        self.settings = _plugin.texts(params["settings"])
        self.patterns = ["*"] if params["state"] == "absent" else params["volumes_absent"]
        self.there = engine.plugin(self.name)
        self.before = dict(shown(self.there), volumes=sorted(self._volumes()))

    def _volumes(self):
        # the engine knows none of a disabled plugin
        return self.engine.volumes(self.there) if self.there and self.there["enabled"] else {}

    def _matching(self, volumes):
        return sorted(name for name in volumes if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns))

    # The plugin

    def present(self):
        if not self.there and not self.source:
            return self._result(False, None, [], [], [])
        other = bool(self.there and self.source) and not _plugin.fits(self.source, self.there)
        had = self.there["settings"] if self.there else {}
        differing = {key: value for key, value in self.settings.items() if had.get(key) != value}
        if self.there and not other:
            _plugin.check_known(self.settings, had, self.name)
        users = self._check_unused("to be {0}".format("replaced" if other else "given other settings") if self.there and (other or differing) else "")
        after = self.there and dict(self.there, enabled=True, settings=dict(had, **differing))
        if not self.there or other:
            after = {"reference": self.source.remote, "digest": self.source.digest or "",
                     "enabled": True, "settings": dict(had, **self.settings)}
        changed = after != self.there
        if changed and not self.check_mode:
            self._check_sources(differing)
            pull = self._remote() if not self.there or other else None
            self._apply(pull)
            after = self.there = self.engine.plugin(self.name)
        removed = self._remove_volumes()
        volumes = set(self.before["volumes"]) | set(self._volumes())
        return self._result(changed or bool(removed), after, volumes - set(removed), removed, users)

    def absent(self):
        if not self.there:
            return self._result(False, None, [], [], [])
        users = self._check_unused("to be removed")
        removed = self._remove_volumes()
        if not self.check_mode:
            self._unmount_all()
            if self.there["enabled"]:
                self.engine.disable(self.name)
            self.engine.remove(self.name)
        return self._result(True, None, [], removed, users)

    def _result(self, changed, plugin, volumes, removed, users):
        return {"changed": changed, "plugin": shown(plugin), "volumes": removed, "users": users,
                "diff": {"before": self.before, "after": dict(shown(plugin), volumes=sorted(volumes))}}

    def _check_unused(self, disabled_to_be=""):
        """Refuses while containers are in the way; in check mode only says which, for they may have ended by then."""
        found = []

        def clear():
            found[:] = [(users, refused) for users, refused in self._in_the_way(disabled_to_be) if users]
            return not found
        if not _wait.until(clear, self.timeout) and not self.check_mode:
            users, refused = found[0]
            raise InUse(refused.format(", ".join(users)), users)
        return sorted({user for users, unused in found for user in users})

    def _in_the_way(self, disabled_to_be):
        """Of each reason to refuse, the containers, and the words."""
        containers, volumes = self.engine.containers(), self._volumes()
        if disabled_to_be:
            yield (_plugin.users(containers, self.driver, states=_plugin.RUNS),
                   "{0} must be disabled on {1} {2}, and containers use it: {{0}}; end them first, or drain the PC".format(
                       self.name, self.engine.name, disabled_to_be))
        for name in self._matching(set(volumes) | _plugin.mounted(containers, self.driver)):
            refused = "volume {0} can't be removed on {1}, containers have {{1}}: {{0}}; remove them first".format(name, self.engine.name)
            shared = [other for other in volumes if other != name and volumes[other] == volumes.get(name)]
            yield _plugin.users(containers, self.driver, [name]), refused.replace("{1}", "it")
            yield _plugin.users(containers, self.driver, shared), refused.replace("{1}", "{0}, which shares its mount point".format(", ".join(shared)))

    def _check_sources(self, settings):
        for key, path in settings.items():
            if key.endswith(".source") and path and not self.engine.is_folder(path):
                raise BadInput("settings: {0} is to be {1}, which is no directory on {2}; make it first".format(key, path, self.engine.name))

    def _remote(self):
        """What to ask the engine for, once the registry has it."""
        source = self.source
        if not source.tag and int(self.engine.version.split(".")[0]) < 26:  # moby#47299
            raise BadInput("source: {0} has no tag, and engine {1} may crash when it is asked for a plugin's digest; write {2}:TAG@{3}".format(
                source, self.engine.version, source.where, source.digest))
        try:
            digest = self.engine.digest(source.remote)
        except EngineError as error:
            raise BadInput("source: {0} can't be had ({1}); correct it, or see whether its registry can be reached".format(
                source, error)) from error
        if not digest:
            raise BadInput("source: {0} can't be had, its registry has none of that name".format(source))
        if source.digest and digest != source.digest:
            raise BadInput("source: {0} is {1} by now, and not the digest asked for; correct one of them".format(source.remote, digest))
        return source.remote

    def _apply(self, pull):
        was = self.there
        if was and was["enabled"]:
            self._unmount_all()
            self.engine.disable(self.name)
        try:
            if pull:
                self.engine.pull(pull, self.name, upgrade=bool(was))
            now = self.engine.plugin(self.name)
            if pull and self.source.digest and now["digest"] != self.source.digest:
                raise BadInput("source: {0} came as {1}".format(self.source, now["digest"]))
            _plugin.check_known(self.settings, now["settings"], self.name)
            self._set(now, dict(was["settings"] if was else {}, **self.settings))
            self.engine.enable(self.name)
        except (BadInput, EngineError) as error:
            raise EngineError("{0}{1}".format(error, self._restore(was, pull))) from error

    def _set(self, now, settings):
        differing = {key: value for key, value in settings.items() if now["settings"].get(key, value) != value}
        if differing:
            self.engine.set(self.name, differing)

    def _restore(self, was, pulled):
        """Takes back what was done; says how that went."""
        try:
            now = self.engine.plugin(self.name)
            if not was:
                if now:
                    self.engine.remove(self.name)
                return ""
            if pulled and now["digest"] != was["digest"]:
                self.engine.pull(was["reference"], self.name, upgrade=True)
                now = self.engine.plugin(self.name)
            self._set(now, was["settings"])
            if was["enabled"] and not now["enabled"]:
                self.engine.enable(self.name)
        except EngineError as error:
            return "; the earlier plugin could not be restored: {0}".format(error)
        return "; the earlier plugin was restored"

    # Its volumes

    def _remove_volumes(self):
        volumes = self._volumes()
        names = self._matching(volumes)
        if names and not self.check_mode:
            self._check_unused()
            for name in names:
                self._unmount(volumes[name])
                left = self.engine.files(volumes[name])
                if left:
                    raise BadInput("volume {0} can't be removed on {1}, the files below {2} are on this PC alone: {3}; move them away first".format(
                        name, self.engine.name, volumes[name], ", ".join(sorted(left)[:5])))
                self.engine.remove_volume(name)
        return names

    def _unmount_all(self):
        for point in {point for process, unused, point in self.engine.mounts()
                      if process == "self" and point.startswith(self.there["outside"] + os.sep)}:
            self._unmount(point)

    def _unmount(self, point):
        """Until no process sees it, the plugin's own view included: what still is mounted would be deleted on the server."""
        point, said, devices = os.path.normpath(point), "", set()
        while True:
            mounts = self.engine.mounts()
            here = [device for process, device, path in mounts if process == "self" and path == point]
            devices.update(here)
            if said or not here:
                break
            said = self.engine.unmount(point).rpartition(": ")[2]
        holders = {process for process, device, path in mounts if device in devices or os.path.basename(path) == os.path.basename(point)}
        if holders:
            raise BadInput("{0} is still mounted on {1}{2}; end what uses it{3}".format(
                point, self.engine.name, " ({0})".format(said) if said else "",
                "" if "self" in holders else ", processes " + ", ".join(sorted(holders, key=int)[:5])))

    # A copy

    def mirrored(self, mirror):
        # the tag says what it was made from, so that a second run knows without asking outside
        tag = "from-" + hashlib.sha256(str(self.source).encode()).hexdigest()[:12]
        target = _plugin.reference("{0}:{1}".format(mirror, tag), "mirror").tagged
        digest = self._mirror_digest(target)
        changed = not digest
        if changed and not self.check_mode:
            remote = self._remote()
            if self.engine.plugin(target):  # from a run that was cut off
                self.engine.remove(target)
            try:
                self.engine.pull(remote, target)
                self.engine.push(target)
            finally:
                if self.engine.plugin(target):
                    self.engine.remove(target)
            digest = self._mirror_digest(target)
        return {"changed": changed, "tag": tag, "digest": digest or self.source.digest or "",
                "diff": {"before": {} if changed else {target: str(self.source)}, "after": {target: str(self.source)}}}

    def _mirror_digest(self, target):
        try:
            return self.engine.digest(target)
        except EngineError as error:
            raise BadInput("mirror: the registry of {0} does not answer ({1})".format(target, error)) from error


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "vieux/sshfs:latest"},
            "state": {"type": "str", "choices": ["present", "absent", "mirrored"], "default": "present"},
            "source": {"type": "str"},
            "settings": {"type": "dict", "default": {}},
            "mirror": {"type": "str"},
            "volumes_absent": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 0},
            "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
        },
        required_if=[("state", "mirrored", ("source", "mirror"))],
        supports_check_mode=True,
    )
    try:
        with open(LOCK, "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            plugin = Plugin(module.params, connect(module.params["docker_host"], PluginEngine), module.check_mode)
            result = {"present": plugin.present, "absent": plugin.absent,
                      "mirrored": lambda: plugin.mirrored(module.params["mirror"])}[module.params["state"]]()
    except InUse as error:
        module.fail_json(msg=str(error), users=error.users)
    except (BadInput, EngineError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
