# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talks to the Docker engine of a Swarm manager: the only file that knows the SDK (5.0 and later) and the API."""
from __future__ import annotations

from contextlib import contextmanager

from ansible.module_utils.basic import missing_required_lib

try:
    from docker import APIClient
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException
except ImportError:
    APIClient = None

    class DockerException(Exception):
        pass

    APIError = RequestException = DockerException

MTU = "com.docker.network.driver.mtu"
TRIES = 4  # one, and three more after "update out of sequence"


class EngineError(Exception):
    """What the engine said, in its words."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


@contextmanager
def engine_errors():
    try:
        yield
    except APIError as error:
        raise EngineError(str(getattr(error, "explanation", None) or error).strip(), getattr(error, "status_code", None)) from error
    except (DockerException, RequestException) as error:
        raise EngineError(str(error)) from error


def connect(docker_host, kind=None):
    """The engine at docker_host, as an Engine, for which it must be a manager of a Swarm, or as another kind."""
    if APIClient is None:
        raise EngineError(missing_required_lib("docker >= 5.0 (Debian: python3-docker)"))
    try:
        with engine_errors():
            return (kind or Engine)(APIClient(base_url=docker_host, version="auto", timeout=60))
    except EngineError as error:
        raise EngineError("docker_host: no engine answers at {0} ({1}); is Docker running, and may this user talk to it?".format(
            docker_host, error)) from error


class Engine:
    def __init__(self, client):
        self.client = client
        with engine_errors():
            info = client.info()
        swarm = info["Swarm"]
        self.name = info["Name"]
        self.node_id = swarm.get("NodeID")
        if swarm.get("LocalNodeState") != "active":
            raise EngineError("{0} is not in a Swarm ({1}); form one with the role swarm_init first".format(
                self.name, swarm.get("LocalNodeState") or "inactive"))
        if not swarm.get("ControlAvailable"):
            raise EngineError("{0} is no manager of its Swarm; run this on one: {1}".format(
                self.name, ", ".join(manager["Addr"] for manager in swarm.get("RemoteManagers") or [])))
        self.subnet_size = (swarm.get("Cluster") or {}).get("SubnetSize") or 24

    def _call(self, method, *args, **kwargs):
        with engine_errors():
            return getattr(self.client, method)(*args, **kwargs)

    def _remove(self, method, item):
        try:
            self._call(method, item)
        except EngineError as error:
            # a network that is gone from the Swarm, but not yet from this PC, is a 500 to engine 20.10
            if error.status != 404 and not str(error).endswith("not found"):
                raise

    @staticmethod
    def _change(change):
        """The one race that is known to pass: somebody else wrote between our reading and our writing."""
        for tries_left in reversed(range(TRIES)):
            try:
                return change()
            except EngineError as error:
                if not tries_left or "update out of sequence" not in str(error):
                    raise

    # nodes

    def nodes(self):
        return self._call("nodes")

    def label_node(self, node_id, label, value):
        """Sets a node's label; None takes it away."""
        def change():
            node = self._call("inspect_node", node_id)
            labels = {key: old for key, old in (node["Spec"].get("Labels") or {}).items() if key != label}
            if value is not None:
                labels[label] = value
            self._call("update_node", node_id, node["Version"]["Index"], dict(node["Spec"], Labels=labels))
        self._change(change)

    # networks: as {id, name, labels, internal, mtu, subnets}

    def networks(self):
        """All that this engine knows, its own and the Swarm's."""
        return [
            {
                "id": network["Id"],
                "name": network["Name"],
                "labels": network.get("Labels") or {},
                "internal": network["Internal"],
                "mtu": int((network.get("Options") or {}).get(MTU) or 0),
                "subnets": [pool["Subnet"] for pool in (network.get("IPAM") or {}).get("Config") or [] if pool.get("Subnet")],
            }
            for network in self._call("networks")
        ]

    def create_network(self, name, definition):
        self._call(
            "create_network", name, driver="overlay", internal=definition["internal"], labels=definition["labels"],
            options={MTU: str(definition["mtu"])} if definition["mtu"] else None,
            ipam={"Driver": "default", "Config": [{"Subnet": subnet} for subnet in definition.get("subnets") or []]},
        )

    def remove_network(self, network_id):
        """Says whether it is gone: the engine refuses while a task that ends still holds an address."""
        try:
            self._remove("remove_network", network_id)
        except EngineError as error:
            if "in use" in str(error) or "active endpoints" in str(error):
                return False
            raise
        return all(network["id"] != network_id for network in self.networks())

    # secrets

    def secrets(self, label):
        return self._call("secrets", filters={"label": label})

    def create_secret(self, name, data, labels):
        self._call("create_secret", name, data, labels=labels)

    def remove_secret(self, secret_id):
        self._remove("remove_secret", secret_id)

    # services: a Spec given has its networks and secrets by name

    def services(self):
        return self._call("services")

    def _bound(self, spec):
        """A copy with the ids that the engine wants for networks and secrets."""
        networks = {network["name"]: network["id"] for network in self.networks()}
        secrets = {secret["Spec"]["Name"]: secret["ID"] for secret in self._call("secrets")}
        template = dict(spec["TaskTemplate"])
        template["Networks"] = [dict(item, Target=networks[item["Target"]]) for item in template.get("Networks") or []]
        template["ContainerSpec"] = dict(template["ContainerSpec"], Secrets=[
            dict(item, SecretID=secrets[item["SecretName"]]) for item in template["ContainerSpec"].get("Secrets") or []])
        return dict(spec, TaskTemplate=template)

    @staticmethod
    def _parts(spec):
        return {
            "name": spec["Name"],
            "task_template": spec["TaskTemplate"],
            "labels": spec.get("Labels"),
            "mode": spec.get("Mode"),
            "update_config": spec.get("UpdateConfig"),
            "rollback_config": spec.get("RollbackConfig"),
            "endpoint_spec": spec.get("EndpointSpec"),
        }

    def create_service(self, spec):
        self._call("create_service", **self._parts(self._bound(spec)))

    def update_service(self, service_id, spec):
        parts = self._parts(self._bound(spec))

        def change():
            version = self._call("inspect_service", service_id)["Version"]["Index"]
            self._call("update_service", service_id, version, **parts)
        self._change(change)

    def remove_service(self, service_id):
        self._remove("remove_service", service_id)

    # tasks, images, processes

    def tasks(self, **filters):
        """By label or by service; current=True leaves out those of an earlier specification, as docker's own client does."""
        if filters.pop("current", False):
            filters["_up-to-date"] = "true"
        return self._call("tasks", filters=filters)

    def image_problem(self, image, local):
        """Why the PCs can't get this image, or nothing; local: an image that only this engine has will do."""
        if local:
            try:
                self._call("inspect_image", image)
                return None
            except EngineError as error:
                if error.status != 404:
                    raise
        try:
            self._call("inspect_distribution", image)
        except EngineError as error:
            return str(error)
        return None

    def processes(self, container_id):
        """The command lines in a container of this engine."""
        top = self._call("top", container_id)
        return [line[-1] for line in top.get("Processes") or []]
