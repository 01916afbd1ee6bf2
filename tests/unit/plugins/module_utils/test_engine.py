# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from unittest.mock import Mock

import pytest
import requests
from ansible_collections.hpclab.swarm.plugins.module_utils import _engine
from ansible_collections.hpclab.swarm.plugins.module_utils._engine import Engine, EngineError
from docker import APIClient
from docker.errors import APIError

INFO = {"Name": "bob", "Swarm": {"NodeID": "id-bob", "LocalNodeState": "active", "ControlAvailable": True, "Cluster": {"SubnetSize": 22}}}


def said(words, status=500):
    response = requests.Response()
    response.status_code = status
    return APIError("error", response, words)


def engine(**answers):
    """An Engine whose client answers as said, or raises one error after the other."""
    client = Mock(spec=APIClient)
    client.info.return_value = answers.pop("info", INFO)
    for method, answer in answers.items():
        errors = isinstance(answer, list) and any(isinstance(item, Exception) for item in answer)
        getattr(client, method).configure_mock(**{"side_effect" if errors else "return_value": answer})
    return Engine(client), client


NODE = {"ID": "n1", "Version": {"Index": 7}, "Spec": {"Labels": {"a": "1", "b": "2"}, "Role": "worker", "Availability": "active"}}
SPEC = {
    "Name": "lab_worker",
    "TaskTemplate": {"ContainerSpec": {"Image": "i", "Secrets": [{"SecretName": "k", "File": {}}]}, "Networks": [{"Target": "lab_mpi"}]},
    "Mode": {"Global": {}},
}
NETWORKS = [{"Id": "net1", "Name": "lab_mpi", "Internal": True, "Labels": None, "Options": None,
             "IPAM": {"Config": [{"Subnet": "10.213.1.0/24", "Gateway": "10.213.1.1"}]}}]
SECRETS = [{"ID": "sec1", "Spec": {"Name": "k"}}]


@pytest.mark.parametrize("swarm, message", [
    ({"LocalNodeState": "inactive"}, "bob is not in a Swarm (inactive); form one with the role swarm_init first"),
    ({"LocalNodeState": "active", "ControlAvailable": False, "RemoteManagers": [{"Addr": "10.0.0.5:2377"}]},
     "bob is no manager of its Swarm; run this on one: 10.0.0.5:2377"),
])
def test_only_a_manager_will_do(swarm, message):
    with pytest.raises(EngineError) as error:
        engine(info={"Name": "bob", "Swarm": swarm})
    assert str(error.value) == message


def test_subnet_size():
    assert engine()[0].subnet_size == 22
    assert engine(info=dict(INFO, Swarm=dict(INFO["Swarm"], Cluster={})))[0].subnet_size == 24


def test_label_is_set_and_taken_away():
    this, client = engine(inspect_node=NODE)
    this.label_node("n1", "c", "true")
    this.label_node("n1", "b", None)
    assert [call.args for call in client.update_node.call_args_list] == [
        ("n1", 7, dict(NODE["Spec"], Labels={"a": "1", "b": "2", "c": "true"})),
        ("n1", 7, dict(NODE["Spec"], Labels={"a": "1"})),
    ]


RACE = "rpc error: code = Unknown desc = update out of sequence"


@pytest.mark.parametrize("errors, calls, fails", [
    ([], 1, None),
    ([RACE], 2, None),
    ([RACE, RACE, RACE], 4, None),
    ([RACE, RACE, RACE, RACE], 4, RACE),
    (["node n1 not found"], 1, "node n1 not found"),
    ([RACE, "no leader"], 2, "no leader"),
])
@pytest.mark.parametrize("kind", ["node", "service"])
def test_only_the_race_is_tried_again(kind, errors, calls, fails):
    answers = {"update_" + kind: [said(words) for words in errors] + [None] if errors else None}
    this, client = engine(
        inspect_node=NODE, inspect_service={"Version": {"Index": 3}}, networks=NETWORKS, secrets=SECRETS, **answers)
    change = (lambda: this.label_node("n1", "c", "true")) if kind == "node" else (lambda: this.update_service("lab_worker", SPEC))
    if fails:
        with pytest.raises(EngineError) as error:
            change()
        assert str(error.value) == fails
    else:
        change()
    assert getattr(client, "update_" + kind).call_count == calls
    assert getattr(client, "inspect_" + kind).call_count == calls  # each with the version of then


def test_services_get_ids():
    this, client = engine(networks=NETWORKS, secrets=SECRETS)
    this.create_service(SPEC)
    template = client.create_service.call_args.kwargs["task_template"]
    assert template["Networks"] == [{"Target": "net1"}]
    assert template["ContainerSpec"]["Secrets"] == [{"SecretName": "k", "File": {}, "SecretID": "sec1"}]
    assert SPEC["TaskTemplate"]["Networks"] == [{"Target": "lab_mpi"}]


@pytest.mark.parametrize("definition, options, pools", [
    ({"internal": True, "labels": {}, "mtu": 0}, None, []),
    ({"internal": True, "labels": {}, "mtu": 1400, "subnets": ["10.1.0.0/24"]},
     {"com.docker.network.driver.mtu": "1400"}, [{"Subnet": "10.1.0.0/24"}]),
])
def test_networks(definition, options, pools):
    this, client = engine(networks=NETWORKS)
    this.create_network("lab_mpi", definition)
    kwargs = client.create_network.call_args.kwargs
    assert (kwargs["driver"], kwargs["options"], kwargs["ipam"]["Config"]) == ("overlay", options, pools)
    assert this.networks() == [
        {"id": "net1", "name": "lab_mpi", "labels": {}, "internal": True, "mtu": 0, "subnets": ["10.213.1.0/24"]}]


@pytest.mark.parametrize("answer, left, gone", [
    (None, [], True),
    (None, NETWORKS, False),  # not yet from this PC
    ([said("network net1 not found")], [], True),
    ([said("network net1 not found")], NETWORKS, False),
    ([said("network lab_mpi id net1 has active endpoints", 403)], NETWORKS, False),
    ([said("rpc error: network net1 is in use by task x")], NETWORKS, False),
])
def test_network_is_gone_or_not_yet(answer, left, gone):
    assert engine(remove_network=answer, networks=left)[0].remove_network("net1") is gone


def test_network_that_can_not_be_removed():
    with pytest.raises(EngineError, match="permission denied"):
        engine(remove_network=[said("permission denied", 403)])[0].remove_network("net1")


@pytest.mark.parametrize("status, passes", [(404, True), (409, False)])
def test_what_is_gone_need_not_be_removed(status, passes):
    this = engine(remove_service=[said("x", status)])[0]
    if passes:
        this.remove_service("lab_worker")
    else:
        with pytest.raises(EngineError):
            this.remove_service("lab_worker")


@pytest.mark.parametrize("local, inspect, distribution, problem", [
    (True, {}, [said("no such host")], None),
    (True, [said("No such image", 404)], [said("manifest unknown", 404)], "manifest unknown"),
    (True, [said("No such image", 404)], {}, None),
    (False, {}, [said("manifest unknown", 404)], "manifest unknown"),
    (False, {}, {}, None),
])
def test_image(local, inspect, distribution, problem):
    assert engine(inspect_image=inspect, inspect_distribution=distribution)[0].image_problem("i", local) == problem


def test_processes():
    answer = {"Titles": ["UID", "PID", "CMD"], "Processes": [["1000", "7", "mpirun -n 4 ./ring"]]}
    assert engine(top=answer)[0].processes("c1") == ["mpirun -n 4 ./ring"]


def test_current_tasks():
    this, client = engine(tasks=[])
    this.tasks(service="s", current=True)
    client.tasks.assert_called_once_with(filters={"service": "s", "_up-to-date": "true"})


def test_other_errors_become_ours():
    this = engine(nodes=[requests.exceptions.ConnectionError("connection refused")])[0]
    with pytest.raises(EngineError, match="connection refused"):
        this.nodes()


def test_no_engine():
    with pytest.raises(EngineError, match=r"^docker_host: no engine answers at unix:///nowhere.sock .*; is Docker running"):
        _engine.connect("unix:///nowhere.sock")


def test_no_sdk(monkeypatch):
    monkeypatch.setattr(_engine, "APIClient", None)
    with pytest.raises(EngineError, match="docker >= 5.0"):
        _engine.connect("unix:///var/run/docker.sock")


def test_api_version_is_negotiated(monkeypatch):
    made = Mock()
    made.return_value.info.return_value = INFO
    monkeypatch.setattr(_engine, "APIClient", made)
    _engine.connect("tcp://bob:2375")
    assert made.call_args.kwargs["version"] == "auto"
