# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Swarm of three PCs in memory, with the interface of _engine.Engine, for what mpi_stack and mpi_hostfile do with one."""
from __future__ import annotations

import copy
import ipaddress
import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.hpclab.swarm.plugins.module_utils import _stack, _wait
from ansible_collections.hpclab.swarm.plugins.module_utils._engine import EngineError

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parents[2] / "output" / "hypothesis"))


def node(name, state="ready", availability="active", cores=None, **labels):
    if cores:
        labels["hpclab.cores"] = str(cores)
    return {
        "ID": "id-" + name,
        "Version": {"Index": 1},
        "Spec": {"Labels": labels, "Role": "manager" if name == "bob" else "worker", "Availability": availability},
        "Description": {
            "Hostname": name,
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 4 * 10**9},
            "Engine": {"Labels": {}},
        },
        "Status": {"State": state, "Addr": "192.168.1.{0}".format(len(name))},
    }


class Swarm:
    """Places tasks at once; what its tests set as problems, {variable: the engine's words}, fails where a service has that variable."""

    name, node_id, subnet_size = "bob", "id-bob", 24

    def __init__(self):
        self._nodes = [node("bob", cores=2), node("alice", cores=4), node("falco")]
        self._networks, self._secrets, self._services, self._tasks = [], [], [], []
        self.changes, self.problems, self.images, self.commands = [], {}, ["img:1", "img:2"], []
        self.left = set()  # nodes whose old task the next update of a service leaves running
        self._counter = itertools.count(1)

    # what is read

    def nodes(self):
        return copy.deepcopy(self._nodes)

    def networks(self):
        return copy.deepcopy(self._networks)

    def secrets(self, label):
        key, value = label.split("=")
        return [item for item in self._secrets if item["Spec"]["Labels"].get(key) == value]

    def services(self):
        return copy.deepcopy(self._services)

    def tasks(self, service=None, label=None, current=False, **unused):
        return copy.deepcopy([task for task in self._tasks if service in (None, task["ServiceID"]) and not (current and task["old"])])

    def image_problem(self, image, local):
        return None if image in self.images else "manifest unknown"

    def processes(self, container_id):
        return self.commands

    # what changes it

    def _log(self, *what):
        self.changes.append(" ".join(what))

    def label_node(self, node_id, label, value):
        self._log("label" if value else "unlabel", node_id)
        labels = next(item for item in self._nodes if item["ID"] == node_id)["Spec"]["Labels"]
        labels.pop(label, None)
        if value:
            labels[label] = value
        for service in self._services:
            self._place(service)

    def create_network(self, name, definition):
        self._log("create", name)
        number = next(self._counter)
        self._networks.append({
            "id": "net{0}".format(number), "name": name, "labels": definition["labels"], "internal": definition["internal"],
            "mtu": definition["mtu"], "subnets": definition.get("subnets") or ["10.213.{0}.0/24".format(number)]})

    def remove_network(self, network_id):
        network = next(item for item in self._networks if item["id"] == network_id)
        for service in self._services:
            if network_id in json.dumps(service["Spec"]):
                raise AssertionError("in use")
        self._log("remove", network["name"])
        self._networks.remove(network)
        return True

    def create_secret(self, name, data, labels):
        self._log("create", name)
        self._secrets.append({"ID": "s" + name, "Spec": {"Name": name, "Labels": labels}})

    def remove_secret(self, secret_id):
        self._log("remove", secret_id[1:])
        self._secrets = [item for item in self._secrets if item["ID"] != secret_id]

    def _bound(self, spec):
        spec = copy.deepcopy(spec)
        for item in spec["TaskTemplate"]["Networks"]:
            item["Target"] = next(network["id"] for network in self._networks if network["name"] == item["Target"])
        for item in spec["TaskTemplate"]["ContainerSpec"]["Secrets"]:
            item["SecretID"] = next(secret["ID"] for secret in self._secrets if secret["Spec"]["Name"] == item["SecretName"])
        spec["UpdateConfig"].setdefault("Order", "stop-first")
        return _stack.pruned(spec)  # the engine does not return what is empty

    def create_service(self, spec):
        self._log("create", spec["Name"])
        service = {"ID": "svc{0}".format(next(self._counter)), "Spec": self._bound(spec)}
        self._services.append(service)
        self._place(service)

    def update_service(self, name, spec):
        self._log("update", name)
        service = next(item for item in self._services if item["Spec"]["Name"] == name)
        before, service["Spec"] = service["Spec"], self._bound(spec)
        if before["TaskTemplate"] != service["Spec"]["TaskTemplate"]:
            for task in self._tasks:
                if task["ServiceID"] == service["ID"]:
                    task.update(old=True, **({} if task["NodeID"] in self.left else {"DesiredState": "shutdown"}))
            service["UpdateStatus"] = {"State": "paused" if self.left else "completed"}
        else:
            for task in self._tasks:
                if task["ServiceID"] == service["ID"] and task["old"]:
                    task.update(DesiredState="shutdown")
        self._place(service)

    def remove_service(self, name):
        self._log("remove", name)
        gone = next(item for item in self._services if item["Spec"]["Name"] == name)
        self._services.remove(gone)
        self._tasks = [task for task in self._tasks if task["ServiceID"] != gone["ID"]]

    def _place(self, service):
        spec = service["Spec"]
        constraints = spec["TaskTemplate"]["Placement"].get("Constraints") or []
        suited = [item for item in self._nodes if not _wait.off_reason(item) and not _wait.unmet(item, constraints)]
        if "Global" in spec["Mode"]:
            wanted = [(0, item) for item in suited]
        else:
            wanted = [(slot + 1, suited[slot % len(suited)]) for slot in range(spec["Mode"]["Replicated"]["Replicas"])]
        own = [task for task in self._tasks if task["ServiceID"] == service["ID"] and not task["old"]]
        self._tasks = [task for task in self._tasks if task not in own or (task["Slot"], task["NodeID"]) in [
            (slot, item["ID"]) for slot, item in wanted]]
        for slot, item in wanted:
            if (slot, item["ID"]) not in [(task["Slot"], task["NodeID"]) for task in own]:
                said = [words for variable, words in self.problems.items() if variable in str(spec["TaskTemplate"]["ContainerSpec"]["Env"])]
                for unused in range(3 if said else 0):
                    self._task(service, slot, item, "failed", "shutdown", said[0])
                self._task(service, slot, item, "starting" if said else "running", "running")

    def _task(self, service, slot, item, state, desired, said=None):
        number = next(self._counter)
        networks = {network["id"]: network for network in self._networks}
        self._tasks.append({
            "ID": "task{0}".format(number), "CreatedAt": "2026-01-01T{0:06}".format(number), "ServiceID": service["ID"], "Slot": slot,
            "NodeID": item["ID"], "DesiredState": desired, "old": False, "Spec": service["Spec"]["TaskTemplate"],
            "Status": {"State": state, "Err": said, "ContainerStatus": {"ContainerID": "c{0}".format(number)}},
            "NetworksAttachments": [
                {"Network": {"Spec": {"Name": networks[target["Target"]]["name"]}},
                 "Addresses": [str(ipaddress.ip_network(networks[target["Target"]]["subnets"][0])[number % 200 + 2]) + "/24"]}
                for target in service["Spec"]["TaskTemplate"]["Networks"]],
        })


@pytest.fixture
def swarm():
    return Swarm()


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only by sleeping."""
    now = SimpleNamespace(seconds=0.0)

    def sleep(seconds):
        now.seconds += seconds
    monkeypatch.setattr(_wait, "time", SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep))
    return now


@pytest.fixture
def run(swarm, clock, monkeypatch, capsys):
    """Runs a module on that Swarm; returns what it printed."""
    def run_module(module, args, check=False):
        monkeypatch.setattr(module, "connect", lambda docker_host: swarm)
        with patch_module_args(dict(args, _ansible_check_mode=check, _ansible_diff=True)), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)
    return run_module


@pytest.fixture
def refuse(swarm):
    """Lets the Swarm refuse one call, in the engine's words."""
    def set_refusal(method, words):
        def call(*unused):
            raise EngineError(words)
        setattr(swarm, method, call)
    return set_refusal
