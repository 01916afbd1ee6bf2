#!/usr/bin/python
# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mpi_stack
short_description: A virtual MPI cluster on a Docker Swarm
version_added: 0.1.0
description:
  - Makes, changes, scales and removes one MPI cluster on a Docker Swarm, through the engine's API on one of its managers.
  - A cluster is a master, where users log in by ssh and start C(mpirun), and workers on the PCs of the Swarm. It consists of
    the services C(<name>_master) and C(<name>_worker), the overlay networks C(<name>_mpi) (internal, for MPI) and
    C(<name>_access) (the master's way out), secrets with the cluster's keys, and a label on each PC that runs a worker.
    All are labelled so that C(docker stack ls), C(services), C(ps) and C(rm) know them.
  - Everything given is checked before anything is changed. When the new state does not get ready within O(timeout), the
    state of before is restored, and the message says, for each PC and task, what the engine said.
options:
  name:
    description:
      - Name of the cluster. At most 31 small letters, digits and hyphens, a letter first.
    type: str
    required: true
  state:
    description:
      - V(present) makes the cluster or changes it into what the other options say.
      - V(absent) removes everything that is the cluster's, and nothing else, and waits until its tasks and networks are gone.
        Running jobs end, once O(grace_period) is over at the latest. Volumes stay.
    type: str
    choices: [present, absent]
    default: present
  image:
    description:
      - Image of master and workers, best by digest; each PC must be able to pull it. Where the Swarm is one PC, an image that only its
        engine has will do.
      - Required if O(state=present). A change restarts all tasks.
    type: str
  pcs:
    description:
      - The PCs that run a worker each, by the names of their Swarm nodes. Left out, these are all PCs that the Swarm has now.
      - The workers are a global service, its PCs are chosen by the node label C(hpclab.cluster.<name>). A change starts and stops workers on
        the PCs that come and go, and restarts no other.
      - A PC that is off is returned in RV(cluster.missing), and gets its worker by itself when it comes back.
    type: list
    elements: str
  workers:
    description:
      - Number of workers, which Swarm spreads over its PCs, several on one if need be; instead of O(pcs).
      - A change starts or stops workers and restarts no other.
      - To go from O(pcs) to O(workers) or back, the worker service is made anew (see O(force)).
    type: int
  slots:
    description:
      - Ranks that MPI may start on each worker.
      - Left out, it is 1 with O(workers), else the physical cores of the worker's PC within the limit of O(cpus).
    type: int
  master:
    description:
      - The PC that runs the master, by the name of its Swarm node. Left out, it is the manager that is asked.
    type: str
  cpus:
    description:
      - CPUs that a worker may use at most, for example V(1.5). Left out, there is no limit.
    type: float
  memory:
    description:
      - Memory that a worker may use at most, for example V(4g). A rank that needs more is killed. Left out, there is no limit.
    type: str
  shm_size:
    description:
      - Size of C(/dev/shm) in master and workers, which MPI uses between the ranks of one worker. It counts as memory once it is filled.
    type: str
    default: 1g
  ssh_port:
    description:
      - TCP port of the master's PC where the cluster answers ssh. Each cluster whose master is on the same PC needs its own.
    type: int
    default: 2222
  user_key:
    description:
      - Path, on the target, of the private key with which the cluster's user goes from task to task. The public key lies beside it,
        as C(.pub). It has no passphrase.
      - Required if O(state=present). It becomes a secret of the Swarm. A change restarts all tasks.
    type: path
  host_key:
    description:
      - Path, on the target, of the private key with which all the cluster's ssh servers identify themselves, with its C(.pub) beside it.
      - Required if O(state=present). It becomes a secret of the Swarm. A change restarts all tasks.
    type: path
  members:
    description:
      - Directory on the master's PC with a file C(authorized_keys) in it, the keys of those who may log in. It is mounted
        read-only, so that who comes or goes restarts nothing.
      - Left out, nobody can log in from outside.
    type: path
  placement:
    description:
      - More placement constraints for the workers, in Swarm's way of writing, for example V(node.labels.room==b12).
    type: list
    elements: str
    default: []
  subnet:
    description:
      - IPv4 network of C(<name>_mpi), in CIDR notation. It needs an address for each task and each PC and three more.
      - With one more for each worker, a change starts the new workers beside the old ones; each old one ends once its successor is
        healthy. Where the workers get another volume of a driver, the old ones end first.
      - Left out, the Swarm takes one of its address pool, and one that the network has already is kept.
      - A change makes the networks and services anew (see O(force)).
    type: str
  mtu:
    description:
      - MTU of the PCs' own network, in bytes; the overlay takes off what it needs. Give the smallest of the room where it is not 1500.
      - A change makes the networks and services anew (see O(force)).
    type: int
  mounts:
    description:
      - Volumes and directories mounted in master and workers alike, for example the users' home. A change restarts all tasks.
    type: list
    elements: dict
    default: []
    suboptions:
      type:
        description:
          - V(volume) is made by each engine when it is missing; V(bind) is a directory that must exist on each PC.
        type: str
        choices: [volume, bind]
        default: volume
      source:
        description:
          - Name of the volume or absolute path of the directory.
        type: str
        required: true
      target:
        description:
          - Absolute path in the containers.
        type: str
        required: true
      read_only:
        description:
          - Whether the containers may only read it.
        type: bool
        default: false
      propagation:
        description:
          - For V(bind) only. With V(rslave), what is mounted below the directory later appears in running containers.
        type: str
        choices: [private, rprivate, shared, rshared, slave, rslave]
      nocopy:
        description:
          - For V(volume) only. Whether to leave a new volume empty, rather than to copy into it what the image has there.
        type: bool
        default: false
      driver:
        description:
          - For V(volume) only. Driver of the volume; the engine's own is V(local).
        type: str
      driver_options:
        description:
          - For V(volume) only. Options for the driver. They apply when the volume is made; a volume that exists does not change.
        type: dict
  environment:
    description:
      - More environment variables for master and workers, as text or numbers. Those that begin with C(MPI_) and that the module sets
        itself can't be given. Whoever may ask an engine can read them, so that they are no place for passwords. A change restarts all tasks.
    type: dict
    default: {}
  grace_period:
    description:
      - Seconds that a task which is to end may take to let running ranks finish, before it is killed.
    type: int
    default: 60
  wait:
    description:
      - Whether to wait until the master and every worker run and are healthy. PCs that are off are not waited for.
      - Without it, the module ends once the engine has taken the order, and can neither say what fails nor restore anything then.
    type: bool
    default: true
  timeout:
    description:
      - Seconds to wait at most, pulling the image included. It ends sooner when a task failed three times alike.
      - For tasks that are to end, O(grace_period) comes on top; restoring an earlier state may take one more minute.
    type: int
    default: 120
  force:
    description:
      - A change of O(subnet), of O(mtu), or between O(pcs) and O(workers) makes services anew. While a job runs, that is refused
        unless this is set. A job is any C(mpirun), C(mpiexec), C(orterun) or C(prterun) on the master.
      - A master on another PC than the engine asked can't be looked into; then such a change needs this as well.
    type: bool
    default: false
  docker_host:
    description:
      - The engine to ask, a manager of the Swarm.
    type: str
    default: unix:///var/run/docker.sock
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows the resources that change as they are and as they will be, in the engine's own words, and with the effect on their tasks.
  idempotent:
    support: full
    description: A second run with the same parameters changes nothing.
requirements:
  - docker >= 5.0 (Python)
  - Docker Engine >= 20.10
notes:
  - What others set on the services beside this module, with C(docker service update) for example, is left as it is.
  - Keys are compared by a hash, which their secrets carry in a label; they are never returned or shown.
seealso:
  - module: hpclab.swarm.mpi_hostfile
  - module: community.docker.docker_swarm
author:
  - the hpclab.swarm authors (@hpclab)
"""

EXAMPLES = r"""
- name: Make a key pair for the cluster's user and one for its ssh servers
  community.crypto.openssh_keypair:
    path: "/etc/hpclab/{{ item }}"
    type: ed25519
  loop: [user_key, host_key]

- name: Make the directory with those who may log in
  ansible.builtin.file:
    path: /etc/hpclab/members
    state: directory
    mode: "0755"

- name: A cluster with one worker on each PC of the Swarm
  hpclab.swarm.mpi_stack:
    name: lab
    image: registry.hpclab.internal:5443/ubuntu-openmpi:1
    user_key: /etc/hpclab/user_key
    host_key: /etc/hpclab/host_key
    members: /etc/hpclab/members

- name: The same on two PCs, with two slots each
  hpclab.swarm.mpi_stack:
    name: lab
    image: registry.hpclab.internal:5443/ubuntu-openmpi:1
    user_key: /etc/hpclab/user_key
    host_key: /etc/hpclab/host_key
    members: /etc/hpclab/members
    pcs: [alice, falco]
    slots: 2

- name: A second cluster beside it, fifteen workers of one CPU, home in a volume
  hpclab.swarm.mpi_stack:
    name: course
    image: registry.hpclab.internal:5443/ubuntu-openmpi:1
    user_key: /etc/hpclab/user_key
    host_key: /etc/hpclab/host_key
    ssh_port: 2223
    workers: 15
    cpus: 1
    memory: 1g
    mounts:
      - source: course_home
        target: /home/mpiuser
    environment:
      OMPI_MCA_mpi_yield_when_idle: "1"

- name: Remove a cluster
  hpclab.swarm.mpi_stack:
    name: course
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be, a phrase for each resource.
  returned: success
  type: list
  elements: str
  sample: ["changes service lab_worker (Replicas; its tasks go on running)"]
cluster:
  description: The cluster as it is now. Empty if O(state=absent).
  returned: success
  type: dict
  contains:
    name:
      description: Name of the cluster.
      type: str
      sample: lab
    image:
      description: Image of its tasks.
      type: str
      sample: registry.hpclab.internal:5443/ubuntu-openmpi:1
    services:
      description: Names of its services, by what they run.
      type: dict
      sample: {master: lab_master, worker: lab_worker}
    network:
      description: Name of the network for MPI.
      type: str
      sample: lab_mpi
    subnet:
      description: Subnet of that network; empty while there is none.
      type: str
      sample: 10.213.1.0/24
    workers:
      description: The workers that run, by address.
      type: list
      elements: dict
      contains:
        pc:
          description: Name of the PC without its domain, with C(-) and the task's number if O(workers) is set.
          type: str
          sample: alice
        address:
          description: Address on the network for MPI.
          type: str
          sample: 10.213.1.5
        slots:
          description: Ranks that MPI may start there.
          type: int
          sample: 4
        task:
          description: Id of the task.
          type: str
          sample: 2nspoxzczvibrzf91mv89qa9l
    missing:
      description: The workers that do not run.
      type: list
      elements: dict
      contains:
        pc:
          description: Name of the PC; C(task) and a number if no PC has it.
          type: str
          sample: falco
        reason:
          description: Why, with what the engine said.
          type: str
          sample: the PC is down
    slots:
      description: Sum of the slots of the workers that run.
      type: int
      sample: 8
    ssh:
      description: Where the cluster answers ssh.
      type: dict
      contains:
        host:
          description: Name of the master's PC.
          type: str
          sample: bob
        address:
          description: Its address in the Swarm.
          type: str
          sample: 192.168.1.11
        port:
          description: TCP port.
          type: int
          sample: 2222
unready:
  description: What was not ready when the time was over.
  returned: when waiting failed
  type: list
  elements: dict
  contains:
    service:
      description: Name of the service.
      type: str
      sample: lab_worker
    pc:
      description: Name of the PC; C(task) and a number if no PC has it.
      type: str
      sample: falco
    task:
      description: Id of the task; empty if there is none.
      type: str
      sample: 2nspoxzczvibrzf91mv89qa9l
    reason:
      description: Why, with what the engine said.
      type: str
      sample: "unhealthy, its health check fails (task: non-zero exit (137): dockerexec: unhealthy container)"
"""

import errno
import os
import re
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hpclab.swarm.plugins.module_utils import _stack, _wait
from ansible_collections.hpclab.swarm.plugins.module_utils._engine import EngineError, connect
from ansible_collections.hpclab.swarm.plugins.module_utils._hostfile import workers

RESTORE_TIMEOUT = 60
# a launcher is a program or a script, whose interpreter comes first then
LAUNCHER = re.compile(r"^(\S*/)?((python[\d.]*|(ba|da)?sh)\s+(\S*/)?)?(mpirun|mpiexec|orterun|prterun)(\.(openmpi|mpich|hydra))?(\s|$)")


class NotReady(Exception):
    """Waiting was in vain; unready says what was seen last."""

    def __init__(self, message, unready=()):
        super().__init__(message)
        self.unready = list(unready)


class Stack:
    def __init__(self, params, engine, check_mode):
        self.params = params
        self.engine = engine
        self.check_mode = check_mode
        self.cluster = params["name"]
        self.present = params["state"] == "present"
        self.worker, self.master, self.network = _stack.names(self.cluster)[:3]
        self.undo = []

    def run(self):
        _stack.check_parameters(self.params)
        self.keys = _stack.secrets(self.cluster, self._key_files()) if self.present else {}
        self._look()
        if self.present:
            _stack.check_room(self.params, self.room)
        plan, want = _stack.plan(self.params, self.room, self.keys, self.there)
        if self.present:
            self._check_on_pc()
            self._check_image()
            self._check_job(plan)
        if not self.check_mode:
            self._apply(plan, want)
        return {
            "changed": plan.changed,
            "actions": plan.actions,
            "diff": plan.diff,
            "cluster": self._result() if self.present else {},
        }

    def _look(self):
        nodes, services = self.engine.nodes(), self.engine.services()
        secrets = self.engine.secrets(self._label(_stack.CLUSTER))
        self.nodes = _wait.by_name(nodes)
        self.earlier = {task["ID"] for task in self.engine.tasks(label=self._label(_stack.CLUSTER))}
        asked = next(_wait.node_name(node) for node in nodes if node["ID"] == self.engine.node_id)
        self.room = _stack.Room(nodes, asked, self.engine.networks(), services, self.engine.subnet_size)
        self.there = _stack.existing(self.cluster, self.room, secrets)
        self.master_pc = self.params["master"] or asked
        self.local = self.master_pc == asked and self.params["docker_host"].startswith("unix:")

    def _label(self, key):
        return "{0}={1}".format(key, self.cluster)

    # Checks, before anything is changed

    def _key_files(self):
        files = {}
        for option in ("user_key", "host_key"):
            path = self.params[option]
            texts = []
            for name, file, check in ((option, path, _stack.check_private), (option + ".pub", path + ".pub", _stack.check_public)):
                try:
                    with open(file, "rb") as stream:
                        files[name] = stream.read()
                except OSError as error:
                    raise _stack.BadInput("{0}: {1} can't be read ({2}); make the pair with ssh-keygen -t ed25519 -N '' -f {3}".format(
                        option, file, error.strerror, path)) from error
                texts.append(files[name].decode(errors="replace"))
                check(option, path, *texts)
        return files

    def _check_on_pc(self):
        """What can be seen where the module runs, if the master runs there too; in check mode the members may be still to come."""
        members, port = self.params["members"], self.params["ssh_port"]
        if not self.local:
            return
        if members and not self.check_mode and not os.path.isdir(members):
            raise _stack.BadInput("members: {0} is no directory on {1}; make it and put a file authorized_keys in it".format(
                members, self.master_pc))
        old = self.there["service"].get(self.master)
        if not old or port not in _stack.ports(old) or _wait.unmet(self.nodes[self.master_pc], _wait.constraints(old)):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("", port))
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        raise _stack.BadInput("ssh_port: {0} is in use on {1}; choose another port, or end what listens there".format(
                            port, self.master_pc)) from error

    def _check_image(self):
        """Asks a registry only for an image that does not run yet."""
        image, services = self.params["image"], self.there["service"].values()
        if len(services) == 2 and all(spec["TaskTemplate"]["ContainerSpec"]["Image"] == image for spec in services):
            return
        problem = self.engine.image_problem(image, local=len(self.room.nodes) == 1)
        if problem:
            raise _stack.BadInput("image: {0} can't be had ({1}); build and push it first, or correct its name".format(image, problem))

    def _check_job(self, plan):
        if not plan.rebuilds or self.params["force"]:
            return
        for task in self.engine.tasks(label=self._label(_stack.CLUSTER), **{"desired-state": "running"}):
            if task["Spec"]["ContainerSpec"]["Hostname"] != self.cluster + "-master" or task["Status"]["State"] != "running":
                continue
            why = "; ".join(plan.rebuilds)
            if task["NodeID"] != self.engine.node_id:
                pc = next(_wait.node_name(node) for node in self.room.nodes if node["ID"] == task["NodeID"])
                raise _stack.BadInput("force: needed, because services are made anew ({0}) and whether a job runs can't be asked on {1}, "
                                      "where the master is; set it once no job runs".format(why, pc))
            for command in self.engine.processes(task["Status"]["ContainerStatus"]["ContainerID"]):
                if LAUNCHER.match(command):
                    raise _stack.BadInput("force: needed, because services are made anew ({0}) while a job runs ({1}); wait for it, "
                                          "or set it to end the job".format(why, command[:80]))

    # Changes

    def _apply(self, plan, want):
        try:
            self._drop(plan)
            self._make(plan, want)
            if self.present and self.params["wait"]:
                self._wait_ready(self.params["timeout"])
        except (EngineError, NotReady) as error:
            raise NotReady("{0}{1}".format(error, self._restore()), getattr(error, "unready", ())) from error
        self._each(plan.drop, "secret", self._drop_secret)

    @staticmethod
    def _each(items, kind, do):
        for name in [name for item, name in items if item == kind]:
            do(name)

    def _drop(self, plan):
        self._each(plan.drop, "service", self._drop_service)
        if any(kind in ("service", "network") for kind, unused in plan.drop) or not self.present:
            self._wait_gone()
        self._each(plan.drop, "network", self._drop_network)
        self._each(plan.drop, "pc", lambda pc: self._set_label(pc, None))

    def _make(self, plan, want):
        self._each(plan.make, "pc", lambda pc: self._set_label(pc, "true"))
        self._each(plan.make, "secret", self._make_secret)
        self._each(plan.make, "network", lambda name: self._make_network(name, want["network"][name]))
        if ("network", self.network) in plan.make or self.present and not self.there["network"][self.network]["subnets"]:
            want["service"] = _stack.wanted(self.params, self.room, self.keys, self._new_subnet())["service"]
        if any(kind == "service" for kind, unused in plan.make):
            self.undo.append(lambda: self._wait_gone(RESTORE_TIMEOUT))
        self._each(plan.make, "service", lambda name: self._make_service(want["service"][name]))
        self._each(plan.update, "service", lambda name: self._update_service(name, want["service"][name]))

    def _set_label(self, pc, value):
        label = _stack.pc_label(self.cluster)
        node_id = self.nodes[pc]["ID"] if pc in self.nodes else pc
        self.engine.label_node(node_id, label, value)
        self.undo.append(lambda: self.engine.label_node(node_id, label, None if value else "true"))

    def _make_secret(self, name):
        file, content, digest = self.keys[name]
        labels = {_stack.NAMESPACE: self.cluster, _stack.CLUSTER: self.cluster, _stack.SHA256: digest}
        self.engine.create_secret(name, content, labels)
        self.undo.append(lambda: self._drop_secret(name))

    def _drop_secret(self, name):
        for secret in self.engine.secrets(self._label(_stack.CLUSTER)):
            if secret["Spec"]["Name"] == name:
                self.engine.remove_secret(secret["ID"])

    def _make_network(self, name, definition):
        self.engine.create_network(name, definition)
        self.undo.append(lambda: self._drop_network(name))

    def _drop_network(self, name):
        old = next((item for item in self.engine.networks() if item["name"] == name), None)
        if not old:
            return
        if not _wait.until(lambda: self.engine.remove_network(old["id"]), self.params["timeout"]):
            raise NotReady("network {0} is still in use after {1} s; look for its containers with docker network inspect {0}".format(
                name, self.params["timeout"]))
        self.undo.append(lambda: self._make_network(name, old))

    def _new_subnet(self):
        """Swarm gives a network its subnet a moment after it is made."""
        def subnets():
            return [item["subnets"][0] for item in self.engine.networks() if item["name"] == self.network and item["subnets"]]
        found = _wait.until(subnets, self.params["timeout"])
        if not found:
            raise NotReady("network {0} got no subnet, the Swarm's address pool is used up; give subnet".format(self.network))
        return found[0]

    def _make_service(self, spec):
        self.engine.create_service(spec)
        self.undo.append(lambda: self._drop_service(spec["Name"]))

    def _drop_service(self, name):
        self.engine.remove_service(name)
        if name in self.there["service"]:
            old = self.there["service"][name]
            self.undo.append(lambda: self.engine.create_service(old))

    def _update_service(self, name, spec):
        old = self.there["service"][name]
        new = _stack.merged(old, spec)
        order = new["UpdateConfig"]["Order"] = _stack.update_order(old, new, self.params, self.room)
        self.engine.update_service(name, new)
        back = _stack.merged(old, {"UpdateConfig": {"Order": order}}) if order == "stop-first" else old
        self.undo.append(lambda: self.engine.update_service(name, back))

    def _restore(self):
        """Takes back what was done, the last first; says how that went."""
        if not self.undo or not self.present:
            return ""
        problems = []
        for step in [*reversed(self.undo), lambda: self._wait_gone(RESTORE_TIMEOUT)]:
            try:
                step()
            except (EngineError, NotReady) as error:
                problems.append(str(error))
        if problems:
            return "; the earlier state could not be restored in full: " + "; ".join(problems)
        try:
            self._wait_ready(RESTORE_TIMEOUT)
        except NotReady as error:
            return "; the earlier state was restored, but {0}".format(error)
        return "; the earlier state was restored"

    # Waiting

    def _wait_gone(self, timeout=None):
        """Until no task is left of services that are gone; what is on a PC that is down can't be waited for."""
        tasks = []

        def gone():
            services = {service["ID"] for service in self.engine.services()}
            on = {node["ID"] for node in self.engine.nodes() if not _wait.is_down(node)}
            tasks[:] = [
                task for task in self.engine.tasks(label=self._label(_stack.CLUSTER))
                if task["ServiceID"] not in services and task.get("NodeID") in on and task["Status"]["State"] not in _wait.ENDED
            ]
            return not tasks
        grace = max([spec["TaskTemplate"]["ContainerSpec"].get("StopGracePeriod") or 0 for spec in self.there["service"].values()] or [0])
        seconds = timeout or self.params["timeout"] + grace // _stack.SECOND
        if not _wait.until(gone, seconds):
            raise NotReady("{0} tasks of {1} have not ended after {2} s: {3}".format(
                len(tasks), self.cluster, seconds, ", ".join(task["ID"] for task in tasks)))

    def _wait_ready(self, timeout):
        """Until every place that is not off has a running task of the service as it is now, and no other."""
        unready = []

        def settled():
            nodes = self.engine.nodes()
            services = [item for item in self.engine.services() if item["Spec"]["Name"] in (self.master, self.worker)]
            tasks = {item["ID"]: self.engine.tasks(service=item["ID"], current=True) for item in services}
            unready[:] = [
                (item["Spec"]["Name"], place)
                for item in services for place in _wait.places(item["Spec"], tasks[item["ID"]], nodes)
                if not (place.ready or place.off)
            ]
            # what failed before we came says nothing about now
            lost = any(_wait.hopeless([task for task in place.tasks if task["ID"] not in self.earlier]) for unused, place in unready)
            if lost:
                return "after {0} tries that ended alike".format(_wait.HOPELESS)
            return not unready and not self._doubled(services, tasks, nodes)

        answer = _wait.until(settled, timeout)
        if answer is not True:
            seen = [{"service": service, "pc": place.pc, "task": place.tasks[0]["ID"] if place.tasks else "", "reason": place.reason}
                    for service, place in unready]
            raise NotReady("{0} is not ready {1}: {2}".format(self.cluster, answer or "after {0} s".format(timeout), "; ".join(
                "{service} on {pc}: {reason}".format(**place) for place in seen)), seen)

    def _doubled(self, services, current, nodes):
        """Whether tasks of an earlier specification run on. Swarm leaves those whose first successor failed, even when the next one
        runs, until the service is given to it once more."""
        on = {node["ID"] for node in nodes if not _wait.is_down(node)}
        found = False
        for service in services:
            known = {task["ID"] for task in current[service["ID"]]}
            if any(_wait.runs(task) and task["ID"] not in known and task["NodeID"] in on for task in self.engine.tasks(service=service["ID"])):
                found = True
                if (service.get("UpdateStatus") or {}).get("State") in ("paused", "completed"):
                    networks = {item["id"]: item["name"] for item in self.engine.networks()}
                    self.engine.update_service(service["Spec"]["Name"], _stack.by_names(service["Spec"], networks))
        return found

    # The result

    def _result(self):
        nodes = self.engine.nodes()
        subnets = [item["subnets"][0] for item in self.engine.networks() if item["name"] == self.network and item["subnets"]]
        services = [item for item in self.engine.services() if item["Spec"]["Name"] == self.worker]
        found, missing = [], []
        for service in services:
            places = _wait.places(service["Spec"], self.engine.tasks(service=service["ID"]), nodes)
            found = workers(service["Spec"], places, self.network)
            missing = [{"pc": place.pc, "reason": place.reason} for place in places if not place.ready]
        return {
            "name": self.cluster,
            "image": self.params["image"],
            "services": {"master": self.master, "worker": self.worker},
            "network": self.network,
            "subnet": (subnets or [self.params["subnet"] or ""])[0],
            "workers": found,
            "missing": missing,
            "slots": sum(worker["slots"] for worker in found),
            "ssh": {"host": self.master_pc, "address": _wait.address(self.nodes[self.master_pc]), "port": self.params["ssh_port"]},
        }


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "image": {"type": "str"},
            "pcs": {"type": "list", "elements": "str"},
            "workers": {"type": "int"},
            "slots": {"type": "int"},
            "master": {"type": "str"},
            "cpus": {"type": "float"},
            "memory": {"type": "str"},
            "shm_size": {"type": "str", "default": "1g"},
            "ssh_port": {"type": "int", "default": 2222},
            "user_key": {"type": "path", "no_log": False},
            "host_key": {"type": "path", "no_log": False},
            "members": {"type": "path"},
            "placement": {"type": "list", "elements": "str", "default": []},
            "subnet": {"type": "str"},
            "mtu": {"type": "int"},
            "mounts": {"type": "list", "elements": "dict", "default": [], "options": {
                "type": {"type": "str", "choices": ["volume", "bind"], "default": "volume"},
                "source": {"type": "str", "required": True},
                "target": {"type": "str", "required": True},
                "read_only": {"type": "bool", "default": False},
                "propagation": {"type": "str", "choices": ["private", "rprivate", "shared", "rshared", "slave", "rslave"]},
                "nocopy": {"type": "bool", "default": False},
                "driver": {"type": "str"},
                "driver_options": {"type": "dict"},
            }},
            "environment": {"type": "dict", "default": {}},
            "grace_period": {"type": "int", "default": 60},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 120},
            "force": {"type": "bool", "default": False},
            "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
        },
        mutually_exclusive=[("pcs", "workers")],
        required_if=[("state", "present", ("image", "user_key", "host_key"))],
        supports_check_mode=True,
    )
    try:
        result = Stack(module.params, connect(module.params["docker_host"]), module.check_mode).run()
    except NotReady as error:
        module.fail_json(msg=str(error), unready=error.unready)
    except (_stack.BadInput, EngineError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
