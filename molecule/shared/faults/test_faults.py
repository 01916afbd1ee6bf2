# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What breaks while students save: what they were told is saved is there, and the cluster is back without a hand.

HPCLAB_FAULTS is how many faults the long series has, HPCLAB_SEED which ones.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

WRITER = Path(__file__).parent / "writer.py"
spec = importlib.util.spec_from_file_location("writer", WRITER)
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)

FAULTS = int(os.environ.get("HPCLAB_FAULTS", "30"))
SEED = int(os.environ.get("HPCLAB_SEED") or random.randrange(10**6))
STORAGE = "bob"
EXPORT = "/srv/hpclab/mpi/mpiuser"
# Seconds, of a machine that is busy with other tests
ANSWER = 90  # until a program is told that its server is lost
BACK = 240  # until a cluster is whole again


class Program(threading.Thread):
    """The writer in the worker's container of a PC: `said` is what it said, until it ended."""

    def __init__(self, lab, pc, *arguments):
        super().__init__(daemon=True)
        self.pc, self.said = pc, []
        self.process = subprocess.Popen(
            lab.inside(pc, "python3", "-I", "-c", WRITER.read_text(), *map(str, arguments)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.start()

    def run(self):
        for line in self.process.stdout:
            if line.endswith("\n"):  # else it was cut off
                self.said.append(line.split())
        self.process.wait()

    def end(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()


class Student(threading.Thread):
    """Saves all the time, by one program after another: each under a name of its own, so that none touches what another has saved."""

    def __init__(self, lab, pc, folder):
        super().__init__(daemon=True)
        self.lab, self.pc, self.folder, self.programs, self.stopped = lab, pc, folder, {}, False
        self.start()

    def run(self):
        while not self.stopped:
            if self.lab.container(self.pc):
                name = f"{self.pc}{len(self.programs)}"
                program = self.programs[name] = Program(self.lab, self.pc, "records", self.folder, name)
                while program.is_alive() and not self.stopped:
                    program.join(0.5)
                program.end()
                program.join(ANSWER)
            time.sleep(0.5)

    @property
    def saved(self):
        """(kind, name, number) of what was said to be saved."""
        return [(what, name, int(number)) for program in self.programs.values() for what, name, number in
                (said for said in list(program.said) if said[0] in ("file", "line", "state"))]


class Room:
    """What can happen to its PCs."""

    def __init__(self, lab):
        self.lab = lab

    def engine(self, *words):
        done = self.lab.command("docker", *words)
        assert done.returncode == 0, done.stderr

    def on(self, pc, command):
        self.engine("exec", f"{self.lab.name}-{pc}", "sh", "-c", command)

    def power_off(self, *pcs):
        self.engine("kill", *(f"{self.lab.name}-{pc}" for pc in pcs))

    def shut_down(self, *pcs):
        self.engine("stop", *(f"{self.lab.name}-{pc}" for pc in pcs))

    def switch_on(self, pc):
        self.engine("start", f"{self.lab.name}-{pc}")

    def cut(self, pc):
        self.engine("network", "disconnect", self.lab.name, f"{self.lab.name}-{pc}")

    def heal(self, pc):
        self.engine("network", "connect", "--ip", self.lab.address(pc), self.lab.name, f"{self.lab.name}-{pc}")

    def kill_sshfs(self, pc):
        self.on(pc, "pkill -KILL -x sshfs; [ $? != 2 ]")  # there may be none at the moment

    def signal_export(self, name):
        """The server's side of all connections."""
        self.on(STORAGE, f"pkill -{name} -u hpclab-mpi; [ $? != 2 ]")

    def signal_engine(self, pc, name):
        self.on(pc, f"pkill -{name} -x dockerd; [ $? != 2 ]")  # the PC may have just been switched on

    def restart_engine(self, pc):
        self.on(pc, "systemctl restart docker")

    def whole(self):
        """Every PC has a healthy worker that the master knows and mpirun reaches, with the shared folder as its home."""
        ask = self.lab.command
        ls = ask("timeout", 20, "docker", "exec", f"{self.lab.name}-bob", "docker", "service", "ls", "--format", "{{.Name}} {{.Replicas}}").stdout
        everywhere = len(self.lab.pcs)
        if not {f"mpi_worker {everywhere}/{everywhere}", "mpi_master 1/1"} <= set(ls.splitlines()):
            return False
        # as long as a health check takes to see what is wrong
        known = ask("timeout", 20, *self.lab.inside("bob", "cat", "/run/mpi/hostfile", service="mpi_master")).stdout
        if any(f"# {pc}\n" not in known for pc in self.lab.pcs):
            return False
        said = ask("timeout", 40, *self.lab.inside("bob", "mpirun", "sh", "-c", "cat ~/.hpclab/cluster; hostname", service="mpi_master")).stdout
        return all(pc in said.split() for pc in self.lab.pcs) and said.split().count("mpi") == len(said.split()) / 2

    def stuck(self):
        """PCs that need a hand: Docker 20.10, rarely, does not find a network's interface that is there, and refuses all containers."""
        tasks = self.lab.docker("service", "ps", "--no-trunc", "--format", "{{.Node}} {{.Error}}", "mpi_worker", "mpi_master").splitlines()
        refused = {task.split()[0] for task in tasks if "error creating vxlan interface: file exists" in task}
        return [pc for pc in refused if not self.lab.container(pc)]

    def wait_until_whole(self):
        started = time.monotonic()
        whole = self.lab.wait(self.whole, BACK)
        if not whole and (stuck := self.stuck()):
            print(f"rebooted, as mpi_stack says it then: {stuck}")
            for pc in stuck:
                self.power_off(pc)
                self.switch_on(pc)
            whole = self.lab.wait(self.whole, BACK)
        assert whole, self.lab.docker("service", "ps", "--no-trunc", "mpi_worker", "mpi_master")
        print(f"the cluster was whole after {time.monotonic() - started:.0f} s")


@pytest.fixture(scope="module")
def room(lab):
    room = Room(lab)
    room.wait_until_whole()
    return room


def digests(lab, folder):
    """{name: sha256} of files on the storage PC."""
    said = lab.pc(STORAGE).check_output(f"cd {folder} && find . -type f -exec sha256sum {{}} +")
    return {line.split("  ./", 1)[1]: line.split()[0] for line in said.splitlines()}


def sha256(data):
    return writer.hashlib.sha256(data).hexdigest()


class Saving:
    """64 MiB that a student on each of some PCs writes, and a file that each had saved before."""

    def __init__(self, lab, pcs, seconds=20, home="/home/mpiuser"):
        self.lab = lab
        self.before = {pc: Program(lab, pc, "big", f"{home}/before-{pc}", 1, 0) for pc in pcs}
        for program in self.before.values():
            program.join(ANSWER)
            assert program.said[-1:] == [["whole"]], program.said
        self.programs = {pc: Program(lab, pc, "big", f"{home}/big-{pc}", 64, seconds) for pc in pcs}
        assert lab.wait(lambda: all(len(program.said) >= 16 for program in self.programs.values()), ANSWER), self.results()
        assert all(len(program.said) < 64 for program in self.programs.values()), self.results()

    def results(self):
        return {pc: (program.said or [None])[-1] for pc, program in self.programs.items()}

    def check(self, lost=()):
        """Each file is whole, or its program got an error, or went with its PC, as those in `lost` may."""
        for program in self.programs.values():
            program.join(ANSWER)
        print(self.results())
        assert not [pc for pc, program in self.programs.items() if program.is_alive()], f"hangs: {self.results()}"
        there = digests(self.lab, EXPORT)
        for pc, result in self.results().items():
            assert there[f"before-{pc}"] == sha256(writer.content(f"before-{pc}-1", writer.MIB))
            assert pc in lost or result[0] in ("whole", "error"), result
            if result == ["whole"]:
                whole = b"".join(writer.content(f"big-{pc}-{number}", writer.MIB) for number in range(1, 65))
                assert there[f"big-{pc}"] == sha256(whole)

    def again(self):
        """The same programs save without an error."""
        after = [Program(self.lab, pc, "big", f"/home/mpiuser/after-{pc}", 1, 0) for pc in self.programs]
        for program in after:
            program.join(ANSWER)
            assert program.said[-1:] == [["whole"]], program.said
        self.lab.pc(STORAGE).check_output(f"rm -f {EXPORT}/before-* {EXPORT}/big-* {EXPORT}/after-*")


def meanwhile(*functions):
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(*function) for function in functions]:
            done.result()


@pytest.mark.long
def test_sshfs_is_killed_and_an_engine_restarts(lab, room):
    saving = Saving(lab, ["alice", "falco"])
    meanwhile((room.kill_sshfs, "alice"), (room.restart_engine, "falco"))
    saving.check(lost=["falco"])
    room.wait_until_whole()
    saving.again()


@pytest.mark.long
def test_the_plugin_is_disabled_by_force(lab, room):
    if "sshfs_storage_driver=host" in lab.inventory.read_text():
        pytest.skip("this lab has no plugin")
    saving = Saving(lab, ["alice", "falco"])
    room.on("alice", "docker plugin disable -f vieux/sshfs:latest")
    saving.check(lost=["alice"])
    assert saving.results()["falco"] == ["whole"]
    room.wait_until_whole()
    saving.again()


@pytest.mark.long
def test_a_pc_is_cut_off_and_another_reboots(lab, room):
    saving = Saving(lab, ["alice", "falco"])
    room.cut("alice")
    room.power_off("falco")
    room.switch_on("falco")
    time.sleep(25)  # ssh gives up after 15 s
    room.heal("alice")
    saving.check(lost=["alice", "falco"])
    room.wait_until_whole()
    saving.again()


@pytest.mark.long
def test_storage_is_off_for_a_minute(lab, room):
    saving = Saving(lab, ["alice", "falco"])
    room.power_off(STORAGE)
    time.sleep(60)
    # who wrote was told meanwhile
    assert all(result == ["error", result[1]] for result in saving.results().values()), saving.results()
    room.switch_on(STORAGE)
    saving.check()
    room.wait_until_whole()
    saving.again()


@pytest.mark.long
def test_storage_is_cut_off(lab, room):
    saving = Saving(lab, ["alice", "falco"])
    room.cut(STORAGE)
    time.sleep(25)
    room.heal(STORAGE)
    saving.check()
    room.wait_until_whole()
    saving.again()


def test_the_disk_is_full(lab, room):
    """The home on a small disk of its own."""
    owner = lab.pc(STORAGE).check_output(f"stat -c uid=%u,gid=%g,mode=%a {EXPORT}")
    room.on(STORAGE, f"mkdir /run/small && mount -t tmpfs -o size=48m,{owner} tmpfs /run/small && cp -a {EXPORT}/.hpclab /run/small && "
                     f"mount --bind /run/small {EXPORT}")
    try:
        saving = Saving(lab, ["alice"], seconds=5)
        saving.programs["alice"].join(ANSWER)
        saving.check()
        assert saving.results()["alice"][0] == "error"
        # nothing else happens
        assert room.whole()
        room.on(STORAGE, f"rm {EXPORT}/big-alice")
        saving.again()
    finally:
        room.on(STORAGE, f"umount -l {EXPORT} /run/small && rmdir /run/small")
    room.wait_until_whole()


def series(room, chance):
    """Short faults, of each kind its share, in an order that the seed makes."""
    lab = room.lab

    def some():
        return chance.choice(lab.pcs)

    def cut(pc, seconds):
        room.cut(pc)
        time.sleep(seconds)
        room.heal(pc)

    def hang(seconds):
        room.signal_export("STOP")
        time.sleep(seconds)
        room.signal_export("CONT")

    def hang_engine(pc, seconds):
        room.signal_engine(pc, "STOP")
        time.sleep(seconds)
        room.signal_engine(pc, "CONT")

    def power_cut(pc):
        room.power_off(pc)
        room.switch_on(pc)

    kinds = {
        "sshfs is killed": (6, lambda: (room.kill_sshfs, some())),
        "the export's processes are killed": (7, lambda: (room.signal_export, "KILL")),
        "cut off": (6, lambda: (cut, some(), chance.uniform(0.5, 4))),
        "the export hangs": (4, lambda: (hang, chance.uniform(0.5, 4))),
        "cut off, until it is noticed": (1, lambda: (cut, some(), 20)),
        "the engine restarts": (2, lambda: (room.restart_engine, some())),
        "the engine hangs": (2, lambda: (hang_engine, some(), chance.uniform(3, 10))),
        "the power fails": (1, lambda: (power_cut, chance.choice([pc for pc in lab.pcs if pc != STORAGE]))),
        "the storage's power fails": (1, lambda: (power_cut, STORAGE)),
    }
    share = sum(number for number, _make in kinds.values())
    deck = [kind for kind, (number, _make) in kinds.items() for _copy in range(number)] * (FAULTS // share + 1)
    chance.shuffle(deck)
    for kind in deck[:FAULTS]:
        yield kind, kinds[kind][1]()


def test_a_series_of_faults_loses_nothing(lab, room):
    print(f"HPCLAB_SEED={SEED} HPCLAB_FAULTS={FAULTS}")
    chance = random.Random(SEED)
    room.on(STORAGE, f"rm -rf {EXPORT}/ledger")
    students = [Student(lab, pc, "/home/mpiuser/ledger") for pc in lab.pcs]

    def saved():
        return sum(len(student.saved) for student in students)

    def more(than, seconds=BACK):
        assert lab.wait(lambda: saved() > than, seconds), f"nobody saves any more: {[list(s.programs.values())[-1].said[-3:] for s in students if s.programs]}"

    try:
        more(10)
        started = time.monotonic()
        for number, (kind, (break_, *arguments)) in enumerate(series(room, chance), 1):
            before = saved()
            break_(*arguments)
            print(f"{time.monotonic() - started:4.0f} s, {before:5} saved. {number}: {kind} {' '.join(map(str, arguments))}", flush=True)
            more(before)
            time.sleep(chance.uniform(0, 1.5))
        room.wait_until_whole()
        for student in students:  # each of them can save again
            before = len(student.saved)
            assert lab.wait(lambda: len(student.saved) > before, BACK), student.pc
    finally:
        for student in students:
            student.stopped = True
        for student in students:
            student.join(BACK)
    assert not [student.pc for student in students if student.is_alive()]
    compare(lab, students)
    room.on(STORAGE, f"rm -r {EXPORT}/ledger")


def compare(lab, students):
    ledger, there = defaultdict(set), digests(lab, f"{EXPORT}/ledger")
    for student in students:
        for what, name, number in student.saved:
            ledger[what, name].add(number)
    print(f"{sum(map(len, ledger.values()))} saved by {sum(len(student.programs) for student in students)} programs")
    wrong = [f"{name}-{number}" for (what, name), numbers in ledger.items() if what == "file" for number in sorted(numbers)
             if there.get(f"{name}-{number}") != sha256(writer.record(name, number))]
    assert not wrong, f"missing or different: {wrong}"
    for (what, name), numbers in ledger.items():
        if what != "file":
            suffix = {"line": "log", "state": "state"}[what]
            lines = lab.pc(STORAGE).check_output(f"tr '\\0' '\\n' <{EXPORT}/ledger/{name}.{suffix}").split()
            if what == "line":
                assert not numbers - {int(line) for line in lines if line.isdigit()}, name
            else:
                assert int(lines[0]) >= max(numbers), name
    room_sees = lab.command(*lab.inside("falco", "sh", "-c", "cd ~/ledger && find . -type f -exec sha256sum {} +"))
    assert {line.split("  ./", 1)[1]: line.split()[0] for line in room_sees.stdout.splitlines()} == there


@pytest.mark.long
def test_the_room_is_off_at_night(lab, room):
    saving = Program(lab, "alice", "big", "/home/mpiuser/evening", 1, 0)
    saving.join(ANSWER)
    assert saving.said[-1] == ["whole"]
    order = [pc for pc in lab.pcs if pc != STORAGE]
    random.Random(SEED).shuffle(order)
    print(f"HPCLAB_SEED={SEED}: {order}, then {STORAGE}")
    room.shut_down(*lab.pcs)
    for pc in order:
        room.switch_on(pc)
    # they look for it in vain
    for pc in order:
        assert lab.wait(lambda: lab.pc(pc).run("docker info").rc == 0, BACK)
    time.sleep(10)
    room.switch_on(STORAGE)
    room.wait_until_whole()
    assert digests(lab, EXPORT)["evening"] == sha256(writer.content("evening-1", writer.MIB))
    lab.pc(STORAGE).check_output(f"rm {EXPORT}/evening")
