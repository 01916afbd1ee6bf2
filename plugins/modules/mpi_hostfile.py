#!/usr/bin/python
# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mpi_hostfile
short_description: The host file of a virtual MPI cluster
version_added: 0.1.0
description:
  - Lists the workers of a cluster made by M(hpclab.swarm.mpi_stack) that run and are healthy, as the Swarm knows them. Returns them as
    data and as a host file for C(mpirun), which it writes to O(path) if asked.
  - The cluster keeps the same list on its master by itself; this is for those outside it.
options:
  name:
    description:
      - Name of the cluster.
    type: str
    required: true
  dialect:
    description:
      - Whose host file to write, Open MPI's (C(address slots=2)) or MPICH's (C(address:2)).
    type: str
    choices: [openmpi, mpich]
    default: openmpi
  path:
    description:
      - File on the target to write. It is written beside and then renamed, so that C(mpirun) never reads half of it.
      - Left out, nothing is written, and nothing changes.
    type: path
  expected:
    description:
      - Wait until at least this many workers are ready. Left out, the workers of this moment are taken. In check mode, nothing is waited for.
    type: int
  timeout:
    description:
      - Seconds to wait for O(expected) at most.
    type: int
    default: 60
  docker_host:
    description:
      - The engine to ask, a manager of the Swarm.
    type: str
    default: unix:///var/run/docker.sock
extends_documentation_fragment:
  - ansible.builtin.files
attributes:
  check_mode:
    support: full
    description: Says whether the file would change and writes nothing. A cluster that is still to be made is one without workers.
  diff_mode:
    support: full
    description: Shows the file before and after.
  idempotent:
    support: full
    description: A second run changes nothing while the workers are the same.
requirements:
  - docker >= 5.0 (Python)
  - Docker Engine >= 20.10
seealso:
  - module: hpclab.swarm.mpi_stack
author:
  - the hpclab.swarm authors (@hpclab)
"""

EXAMPLES = r"""
- name: Ask which workers are ready
  hpclab.swarm.mpi_hostfile:
    name: lab
  register: lab

- name: Show them
  ansible.builtin.debug:
    msg: "{{ lab.slots }} slots on {{ lab.hosts | map(attribute='pc') | join(', ') }}"

- name: Write a host file for MPICH once fifteen workers are ready
  hpclab.swarm.mpi_hostfile:
    name: course
    dialect: mpich
    path: /etc/hpclab/course.hosts
    mode: "0644"
    expected: 15
"""

RETURN = r"""
hosts:
  description: The workers that are ready, by address.
  returned: when the cluster could be asked
  type: list
  elements: dict
  contains:
    pc:
      description: Name of the PC without its domain, with C(-) and the task's number if the cluster has a number of workers rather than PCs.
      type: str
      sample: alice
    address:
      description: Address on the cluster's network for MPI.
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
text:
  description: The host file.
  returned: when the cluster could be asked
  type: str
  sample: "10.213.1.5 slots=4 # alice\n"
slots:
  description: Sum of the slots.
  returned: when the cluster could be asked
  type: int
  sample: 4
missing:
  description: The workers that are not ready.
  returned: when the cluster could be asked
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
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hpclab.swarm.plugins.module_utils import _hostfile, _stack, _wait
from ansible_collections.hpclab.swarm.plugins.module_utils._engine import EngineError, connect


class NotReady(Exception):
    """The time is over; seen is what was there last."""

    def __init__(self, message, seen):
        super().__init__(message)
        self.seen = seen


class Hostfile:
    def __init__(self, params, engine, check_mode):
        self.params = params
        self.engine = engine
        self.check_mode = check_mode

    def run(self):
        expected = self.params["expected"]
        if expected is not None and expected < 1:
            raise _stack.BadInput("expected: {0} is too little; give 1 or more, or leave it out".format(expected))
        worker, unused, network = _stack.names(self.params["name"])[:3]
        seen = {}

        def enough():
            seen.update(self._ask(worker, network))
            return self.check_mode or len(seen["hosts"]) >= (expected or 0)
        if not _wait.until(enough, self.params["timeout"]):
            raise NotReady("{0} has {1} of {2} workers after {3} s{4}".format(
                self.params["name"], len(seen["hosts"]), expected, self.params["timeout"],
                "".join("; {pc}: {reason}".format(**item) for item in seen["missing"])), seen)
        return seen

    def _ask(self, worker, network):
        clusters = {service["Spec"]["Name"]: service for service in self.engine.services()
                    if _stack.CLUSTER in (service["Spec"].get("Labels") or {})}
        if worker in clusters:
            spec = clusters[worker]["Spec"]
            places = _wait.places(spec, self.engine.tasks(service=clusters[worker]["ID"]), self.engine.nodes())
        elif self.check_mode:
            spec, places = {}, []
        else:
            known = sorted({service["Spec"]["Labels"][_stack.CLUSTER] for service in clusters.values()})
            raise _stack.BadInput("name: there is no cluster {0}; {1}".format(
                self.params["name"], "choose one of {0}".format(_stack.listed(known)) if known else "make one with mpi_stack first"))
        hosts = _hostfile.workers(spec, places, network)
        lines = [_hostfile.Host(host["address"], host["pc"], host["slots"]) for host in hosts]
        return {
            "hosts": hosts,
            "text": _hostfile.render(lines, self.params["dialect"]),
            "slots": sum(host["slots"] for host in hosts),
            "missing": [{"pc": place.pc, "reason": place.reason} for place in places if not place.ready],
        }


def write(module, path, text):
    """Whether the file changed, and its diff."""
    before = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            before = stream.read()
    changed = before != text or not os.path.exists(path)
    if changed and not module.check_mode:
        handle, beside = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        module.atomic_move(beside, path)
    changed = module.set_fs_attributes_if_different(module.load_file_common_arguments(module.params), changed)
    return changed, {"before": before, "after": text, "before_header": path, "after_header": path}


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "dialect": {"type": "str", "choices": ["openmpi", "mpich"], "default": "openmpi"},
            "path": {"type": "path"},
            "expected": {"type": "int"},
            "timeout": {"type": "int", "default": 60},
            "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        if path and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or ".")):
            raise _stack.BadInput("path: {0} can't be a file; give one in a directory that exists".format(path))
        result = Hostfile(module.params, connect(module.params["docker_host"]), module.check_mode).run()
    except NotReady as error:
        module.fail_json(msg=str(error), **error.seen)
    except (_stack.BadInput, EngineError) as error:
        module.fail_json(msg=str(error))
    changed, diff = write(module, path, result["text"]) if path else (False, {})
    module.exit_json(changed=changed, diff=diff, **result)


if __name__ == "__main__":
    main()
