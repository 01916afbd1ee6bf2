# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A room and its cluster as they stand after site.yml: asked of the Swarm, of the PCs, and of a student's login."""

from __future__ import annotations

import errno
import json
import re
import socket


def containers(lab):
    """The cluster's containers, (PC, what the engine says of it)."""
    for pc in lab.pcs:
        for name in lab.docker("ps", "-q", "--filter", "label=com.docker.stack.namespace=mpi", pc=pc).split():
            yield pc, lab.inspect("container", name, pc=pc)


# The Swarm

def test_every_pc_is_a_node_of_its_name(lab):
    nodes = [json.loads(line) for line in lab.docker("node", "ls", "--format", "{{json .}}").splitlines()]
    assert {node["Hostname"]: node["Status"] for node in nodes} == dict.fromkeys(lab.pcs, "Ready")
    assert sorted(node["Hostname"] for node in nodes if node["ManagerStatus"]) == sorted(lab.managers)


def test_certificates_outlast_holidays(lab):
    swarm = json.loads(lab.docker("info", "-f", "{{json .Swarm.Cluster}}"))
    assert swarm["Spec"]["CAConfig"]["NodeCertExpiry"] >= 365 * 24 * 3600 * 10**9
    assert swarm["DefaultAddrPool"] == ["10.213.0.0/16"]


def test_it_is_a_stack(lab):
    assert re.search(r"^mpi +2", lab.docker("stack", "ls"), re.M)
    services = dict(line.split() for line in lab.docker("stack", "services", "mpi", "--format", "{{.Name}} {{.Replicas}}").splitlines())
    assert services == {"mpi_master": "1/1", "mpi_worker": f"{len(lab.pcs)}/{len(lab.pcs)}"}
    running = lab.docker("stack", "ps", "mpi", "--filter", "desired-state=running", "--format", "{{.Name}} {{.Node}} {{.CurrentState}}").splitlines()
    assert sorted(line.split()[1] for line in running if line.startswith("mpi_worker")) == sorted(lab.pcs)


# MPI, as a student has it

def test_hello_from_every_pc(lab):
    assert lab.hello() == lab.hostfile()[1]


def test_slots_are_the_cores_that_a_pc_may_use(lab):
    cores = "lscpu -p=CORE,SOCKET | grep -v '#' | sort -u | wc -l"
    may_use = {pc: 1 if pc in lab.cpusets else int(lab.pc(pc).check_output(cores)) for pc in lab.pcs}
    assert lab.hostfile()[1] == may_use


def test_jobs_that_share_a_pc_share_all_its_cores(lab):
    """Open MPI would bind the rank to the first core, and those of other jobs to the same; the container's first process may use all."""
    pc = next(pc for pc in lab.pcs if pc not in lab.cpusets)
    whether = "import os; print(os.sched_getaffinity(0) == os.sched_getaffinity(1))"
    said = lab.student(f"mpirun -np 1 -host $(ssh -G {pc} | sed -n 's/^hostname //p') python3 -c '{whether}'")
    assert said.stdout == "True\n", said


def test_ring(lab):
    said = lab.student("mpirun python3 /opt/mpi/examples/ring.py")
    size = sum(lab.hostfile()[1].values())
    assert said.returncode == 0, said.stderr
    assert re.search(rf"ring of {size}: 0@\S+ -> (\d+@\S+ -> )*0@", said.stdout)


def test_a_c_program_compiles_and_runs(lab):
    program = r'''
        #include <mpi.h>
        #include <stdio.h>
        int main(int argc, char **argv) {
            int rank, sum;
            MPI_Init(&argc, &argv);
            MPI_Comm_rank(MPI_COMM_WORLD, &rank);
            MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
            if (rank == 0) printf("sum %d\n", sum);
            MPI_Finalize();
        }'''
    said = lab.student("cat >sum.c && mpicc -o sum sum.c && mpirun ./sum; rm -f sum sum.c", stdin=program)
    size = sum(lab.hostfile()[1].values())
    assert said.stdout == f"sum {sum(range(size))}\n", said.stderr


def test_the_two_host_lists_agree(lab):
    text, _slots = lab.hostfile()
    engine = lab.module("mpi_hostfile", f"name=mpi dialect={lab.mpi}")
    assert engine["text"] == text
    assert engine["missing"] == []
    assert sorted(host["pc"] for host in engine["hosts"]) == sorted(lab.pcs)


def test_login_message(lab):
    for language, word in (("es_ES.UTF-8", "Clúster mpi"), ("en_US.UTF-8", "Cluster mpi")):
        said = lab.student("", "-tt", "-o", f"SetEnv=LANG={language}", stdin="exit\n")
        assert f"{word}: {len(lab.pcs)} worker" in said.stdout, said


# Who gets in, and where

def test_no_password(lab):
    said = lab.student("true", "-o", "PubkeyAuthentication=no", "-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=0")
    assert said.returncode == 255
    assert "Permission denied (publickey)" in said.stderr


def test_no_stranger(lab):
    key = lab.tmp / "stranger"
    lab.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    said = lab.student("true", key=key)
    assert said.returncode == 255
    assert "Permission denied" in said.stderr


def test_from_master_to_workers_ssh_is_silent_and_checks_host_keys(lab):
    for pc in lab.pcs:
        said = lab.student(f"ssh {pc} hostname")
        assert (said.returncode, said.stdout, said.stderr) == (0, f"{pc}\n", "")
        assert lab.student(f"ssh -o GlobalKnownHostsFile=/dev/null {pc} true").returncode == 255


def test_registry_takes_pushes_on_the_manager_alone(lab):
    # what `docker push` begins with, which would try for a minute
    begin = "urllib.request.Request('https://registry.hpclab.internal:5443/v2/intruder/blobs/uploads/', b'', method='POST')"
    trust = "ssl.create_default_context(cafile='/etc/docker/certs.d/registry.hpclab.internal:5443/ca.crt')"
    push = lab.pc(lab.pcs[-1]).run("python3 -c %s", f"import ssl, urllib.request; urllib.request.urlopen({begin}, context={trust})")
    assert "HTTP Error 405: Method Not Allowed" in push.stderr
    with socket.socket() as outside:
        assert outside.connect_ex((lab.address("bob"), 5000)) == errno.ECONNREFUSED
    catalog = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:5000/v2/_catalog').read())"
    repositories = lab.pc("bob").check_output("python3 -c %s", catalog)
    assert f"debian-{lab.mpi}" in repositories
    assert "intruder" not in repositories


def test_registry_is_trusted_for_itself_alone(lab):
    for pc in lab.pcs:
        trusted = lab.pc(pc).file("/etc/docker/certs.d/registry.hpclab.internal:5443/ca.crt").content_string
        assert trusted.splitlines()[3] not in lab.pc(pc).check_output("cat /etc/ssl/certs/* 2>/dev/null || true")


# What runs

def test_deployed_by_digest(lab):
    for service in ("mpi_master", "mpi_worker"):
        image = lab.inspect("service", service)["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        assert re.fullmatch(rf"registry\.hpclab\.internal:5443/debian-{lab.mpi}@sha256:[0-9a-f]{{64}}", image)


def test_secrets_are_secret(lab):
    keys = "/etc/hpclab/clusters/mpi"
    for name in ("user_key", "host_key"):
        key = lab.pc("bob").file(f"{keys}/{name}")
        assert (key.mode, key.user) == (0o600, "root")
        secret = "".join(key.content_string.splitlines()[1:-1])[-60:]
        for pc, container in containers(lab):
            assert secret not in json.dumps(container)
        image = container["Config"]["Image"]
        assert secret not in lab.docker("history", "--no-trunc", image, pc=pc)
    # no key of anybody in the image
    look = "find / -xdev -type f \\( -path '/etc/ssh/*key*' -o -name 'id_*' -o -name authorized_keys \\) 2>/dev/null; true"
    assert lab.docker("run", "--rm", "--entrypoint", "sh", image, "-c", look, pc=pc) == ""


def test_nothing_is_privileged(lab):
    """Of every process below PID 1: not what `docker exec` puts in, like health checks."""
    show = "cat /proc/[0-9]*/status 2>/dev/null | grep -E '^(Name|Pid|PPid|Uid|CapEff|CapPrm|CapBnd|NoNewPrivs):'"
    for command in (show, *(f"ssh {pc} \"{show}\"" for pc in lab.pcs)):
        processes = {}
        for line in lab.student(command).stdout.splitlines():
            key, value = line.split(":\t")
            if key == "Name":
                process = {}
            process[key] = value.strip()
            if key == "Pid":
                processes[value] = process

        def own(pid):
            return pid == "1" or (pid in processes and own(processes[pid]["PPid"]))

        checked = [process for pid, process in processes.items() if own(pid)]
        assert len(checked) >= 3
        for process in checked:
            assert process["Uid"].split() == ["1000"] * 4, process
            assert int(process["CapEff"], 16) == int(process["CapPrm"], 16) == int(process["CapBnd"], 16) == 0, process
            assert process["NoNewPrivs"] == "1", process


def test_one_network_for_mpi(lab):
    for _pc, container in containers(lab):
        networks = set(container["NetworkSettings"]["Networks"])
        assert networks == ({"mpi_mpi", "mpi_access"} if "mpi_master" in container["Name"] else {"mpi_mpi"})
    assert lab.inspect("network", "mpi_mpi")["Internal"]
    for pc in lab.pcs:
        interfaces = lab.student(f"ssh {pc} ls /sys/class/net").stdout.split()
        assert len([name for name in interfaces if name.startswith("eth")]) == 1, interfaces


def test_shm(lab):
    said = lab.student("df -B1 --output=size /dev/shm | tail -n 1").stdout
    assert int(said) == 2**30


# What is written down

def test_records(lab):
    for pc in lab.pcs:
        record = json.loads(lab.pc(pc).file("/etc/hpclab/record/swarm_init.json").content_string)
        assert "docker.io" in json.dumps(record)
        assert lab.pc(pc).file("/etc/hpclab/record").mode == 0o755
