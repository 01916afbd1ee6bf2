# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The classroom under test, as the scenario's tests see it: its PCs, its playbooks, and a student at a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import testinfra
import yaml

ROOT = Path(__file__).parent.parent
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "lab.ini"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """A scenario runs pytest several times: each leaves its results for tests/run in a file of its own."""
    if "HPCLAB_JUNIT" in os.environ:
        config.option.xmlpath = f"{os.environ['HPCLAB_JUNIT']}/{time.time()}.xml"


def pytest_collection_modifyitems(items):
    """What takes minutes is for `make test-long`."""
    if "HPCLAB_LONG" not in os.environ:
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="make test-long runs it"))


class Play:
    """What ansible-playbook said."""

    def __init__(self, process):
        self.rc, self.output = process.returncode, process.stdout + process.stderr

    def recap(self, key):
        """The PCs' numbers for changed, failed, … added up."""
        return sum(int(number) for number in re.findall(rf"^\S+ +:.* {key}=(\d+)", self.output, re.M))

    @property
    def changed(self):
        return self.recap("changed")

    @property
    def gist(self):
        """What is worth reading when a test fails: the tasks that changed something or failed, and what follows the last one."""
        blocks = re.split(r"(?m)^(?=TASK \[|PLAY RECAP )", self.output)
        return "".join(block for block in blocks if not block.startswith("TASK ") or re.search(r"(?m)^(changed|fatal|failed): ", block))


class Lab:
    def __init__(self, tmp):
        settings = yaml.safe_load((SCENARIO / "lab.yml").read_text())
        self.name = settings["virtual_lab_name"]
        self.pcs = settings.get("virtual_lab_pcs", ["bob", "alice", "falco"])
        self.managers = settings.get("virtual_lab_managers", self.pcs[:1])
        self.clusters = settings["virtual_lab_vars"].get("mpi_stack_clusters", [{"name": "mpi"}])
        self.mpi = "mpich" if "mpich" in self.clusters[0].get("variant", "") else "openmpi"
        self.cpusets = settings.get("virtual_lab_cpusets", {})
        self.keys = Path(f"~/.local/share/hpclab.swarm/{self.name}").expanduser()
        self.key = self.keys / "id_ed25519"
        self.tmp = tmp
        self.inventory = INVENTORY

    def command(self, *command, stdin=""):
        """Runs a command on this machine."""
        return subprocess.run(
            [str(word) for word in command], cwd=ROOT, input=stdin, capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )

    def play(self, playbook, *options, inventory=INVENTORY, **variables):
        return Play(self.command(
            "ansible-playbook", playbook, "-i", inventory, "-e", f"@{SCENARIO / 'lab.yml'}", "-e", json.dumps(variables), *options))

    def site(self, *options, **variables):
        return self.play("site.yml", *options, **variables)

    def change(self, **variables):
        """Switches PCs off and on, adds and removes them: the classroom as lab.yml has it, with these differences."""
        play = self.play("playbooks/virtual_lab.yml", virtual_lab_inventory=str(INVENTORY), **variables)
        assert play.rc == 0, play.gist
        self.pcs = variables.get("virtual_lab_pcs", self.pcs)

    def pc(self, name):
        """A PC, as root, by the engine that it runs on: the same whoever Ansible logs in as."""
        return testinfra.get_host(f"docker://{self.name}-{name}")

    def docker(self, *words, pc="bob"):
        """What the engine of a PC answers, by default the manager's."""
        return self.pc(pc).check_output(" ".join(["docker", *["%s"] * len(words)]), *words)

    def inspect(self, kind, name, pc="bob"):
        return json.loads(self.docker(*kind.split(), "inspect", name, pc=pc))[0]

    def container(self, pc, service="mpi_worker"):
        """The healthy container of a service on a PC; nothing if there is none, or if the PC is off."""
        return self.command("timeout", 20, "docker", "exec", f"{self.name}-{pc}", "docker", "ps", "-q", "--no-trunc", "--filter", "health=healthy",
                            "--filter", f"label=com.docker.swarm.service.name={service}").stdout.strip()

    def inside(self, pc, *words, service="mpi_worker"):
        """A command that runs there, for use with `command`: as mpiuser, without a login."""
        return ["docker", "exec", "-i", f"{self.name}-{pc}", "docker", "exec", "-i", self.container(pc, service), *words]

    def address(self, pc):
        return re.search(rf"^{pc} ansible_host=(\S+)", INVENTORY.read_text(), re.M)[1]

    def student(self, command, *options, cluster="mpi", pc="bob", port=2222, key=None, stdin=""):
        """A login from this machine with a member's key; the host key is checked."""
        known = self.tmp / f"known_hosts-{cluster}"
        known.write_text(self.pc("bob").file(f"/etc/hpclab/clusters/{cluster}/known_hosts").content_string)
        return self.command(
            "ssh", "-F", "none", "-p", port, "-i", key or self.key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", *options, f"mpiuser@{self.address(pc)}", command,
            stdin=stdin,
        )

    def hello(self, **login):
        """How many ranks a plain mpirun starts on each PC."""
        said = self.student("mpirun python3 /opt/mpi/examples/mpi-hello-world.py", **login)
        assert said.returncode == 0, said.stderr
        ranks = re.findall(r"hello from rank (\d+) of (\d+) on (\S+)", said.stdout)
        assert sorted(int(rank) for rank, _size, _pc in ranks) == list(range(int(ranks[0][1]))), said.stdout
        pcs = [pc for _rank, _size, pc in ranks]
        return {pc: pcs.count(pc) for pc in pcs}

    def hostfile(self, **login):
        """The cluster's own list, {PC: slots}; also the text."""
        text = self.student("cat /run/mpi/hostfile", **login).stdout
        named = [(pc, slots) for slots, pc in re.findall(r"slots=(\d+) # (\S+)", text)] or re.findall(r"# (\S+)\n\S+:(\d+)", text)  # Open MPI or MPICH
        return text, {pc: int(slots) for pc, slots in named}

    def module(self, name, arguments, *options):
        """Runs one of our modules on the manager: what it returned."""
        done = self.command("ansible", "bob", "-i", INVENTORY, "-b", "-o", "-m", f"hpclab.swarm.{name}", "-a", arguments, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.split("=>", 1)[1])

    def state(self):
        """Everything of the Swarm that a run might change."""
        def of(kind):
            names = self.docker(kind, "ls", "-q").split()
            found = json.loads(self.docker(kind, "inspect", *names)) if names else []
            return sorted((one.get("ID") or one["Id"], str(one.get("Version"))) for one in found)

        return {kind: of(kind) for kind in ("service", "secret", "network", "node")}

    def wait(self, condition, seconds):
        """Until a condition holds; its last value."""
        end = time.monotonic() + seconds
        while not (value := condition()) and time.monotonic() < end:
            time.sleep(0.5)
        return value


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))
