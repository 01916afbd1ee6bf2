# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PC's engine as far as managed plugins and their volumes go, and what the PC has mounted of them."""
from __future__ import annotations

import glob
import json
import os
import subprocess

from ansible_collections.hpclab.swarm.plugins.module_utils import _plugin
from ansible_collections.hpclab.swarm.plugins.module_utils._engine import EngineError, engine_errors

PULL_TIMEOUT = 300  # seconds without a word from the registry


class PluginEngine:
    def __init__(self, client):
        self.client = client
        info = self._call("info")
        self.name, self.version, self.folder = info["Name"], info["ServerVersion"], os.path.join(os.path.realpath(info["DockerRootDir"]), "plugins")

    def _call(self, method, *args, **kwargs):
        with engine_errors():
            return getattr(self.client, method)(*args, **kwargs)

    # plugins: as {id, name, reference, digest, enabled, settings, outside}

    def plugin(self, name):
        try:
            found = self._call("inspect_plugin", name)
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        folder = os.path.join(self.folder, found["Id"])
        # the engine keeps the digest of what it pulled, and does not tell
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as stream:
            digest = json.load(stream).get("Manifest")
        return {
            "id": found["Id"],
            "name": found["Name"],
            "reference": found.get("PluginReference") or "",
            "digest": digest or "",
            "enabled": found["Enabled"],
            "settings": _plugin.settings_of(found),
            "outside": os.path.join(folder, "propagated-mount"),
        }

    def digest(self, reference):
        """What a registry has under this name, or nothing."""
        try:
            return self._call("inspect_distribution", reference)["Descriptor"]["digest"]
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    @staticmethod
    def _follow(lines):
        """What takes its time says how it failed in what it prints."""
        with engine_errors():
            for line in lines:
                if "error" in line:
                    raise EngineError(line["error"])

    def pull(self, remote, name, upgrade=False):
        """Installed, disabled. With upgrade, in the place of the one that is there, which is disabled and loses its settings."""
        privileges = self._call("plugin_privileges", remote)
        before, self.client.timeout = self.client.timeout, PULL_TIMEOUT
        try:
            self._follow(self._call("upgrade_plugin", name, remote, privileges) if upgrade else
                         self._call("pull_plugin", remote, privileges, name))
        finally:
            self.client.timeout = before

    def _post(self, resource, name, **kwargs):
        """What the SDK has no method for, or a wrong one."""
        with engine_errors():
            answer = self.client._post(self.client._url(resource, name), **kwargs)
            self.client._raise_for_status(answer)
            return answer

    def push(self, name):
        # the SDK's push_plugin pulls
        self._follow(self.client._stream_helper(self._post("/plugins/{0}/push", name, stream=True, timeout=PULL_TIMEOUT), decode=True))

    def set(self, name, settings):
        self._call("configure_plugin", name, settings)

    def enable(self, name):
        self._call("enable_plugin", name, timeout=30)

    def disable(self, name):
        """With force, which SDK 5 does not have, because every volume counts as a use, mounted or not."""
        self._post("/plugins/{0}/disable", name, params={"force": 1})

    def remove(self, name):
        self._call("remove_plugin", name, force=True)

    # volumes, and the containers that mount them

    def containers(self):
        return self._call("containers", all=True)

    def volumes(self, plugin):
        """The plugin's: {name: folder below which the PC has it mounted}."""
        found = self._call("volumes", filters={"driver": plugin["name"]})["Volumes"] or []
        # some engines tell the path inside the plugin, some the PC's
        return {item["Name"]: os.path.join(plugin["outside"], os.path.basename(item["Mountpoint"])) for item in found}

    def remove_volume(self, name):
        self._call("remove_volume", name)

    # mounts

    @staticmethod
    def mounts():
        """(process, device, mount point) of every sshfs that any process sees; what this process sees, all of the PC does."""
        found = []
        for process in ["self"] + [path.split("/")[2] for path in glob.glob("/proc/[0-9]*")]:
            try:
                with open("/proc/{0}/mountinfo".format(process), encoding="utf-8", errors="surrogateescape") as stream:
                    found += [(process,) + mount for mount in _plugin.sshfs_mounts(stream.read())]
            except OSError:  # the process ended
                continue
        return found

    @staticmethod
    def unmount(path):
        """Says why not, if not; without a look at the path, which a dead server does not answer."""
        return subprocess.run(["umount", "--no-canonicalize", path], capture_output=True, text=True, check=False).stderr.strip()

    @staticmethod
    def files(path):
        return os.listdir(path) if os.path.isdir(path) else []

    @staticmethod
    def is_folder(path):
        return os.path.isdir(path)
