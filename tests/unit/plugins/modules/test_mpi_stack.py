# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import socket

import pytest
from ansible_collections.hpclab.swarm.plugins.modules import mpi_stack

PUBLIC = "ssh-rsa AAAA {0}\n"
PRIVATE = "-----BEGIN RSA %(key)s\n{0}\n-----END RSA %(key)s\n" % {"key": "PRIVATE KEY-----"}  # apart, so that no line here reads like one


@pytest.fixture(autouse=True)
def docker_host_elsewhere(args):
    """What the module looks at on the PC itself is the business of two tests alone."""
    args["docker_host"] = "tcp://bob:2375"


@pytest.fixture
def args(tmp_path):
    for key in ("user_key", "host_key"):
        (tmp_path / key).write_text(PRIVATE.format(key))
        (tmp_path / (key + ".pub")).write_text(PUBLIC.format(key))
    return {"name": "lab", "image": "img:1", "user_key": str(tmp_path / "user_key"), "host_key": str(tmp_path / "host_key")}


@pytest.fixture
def stack(run, args):
    def run_stack(check=False, **changes):
        wanted = {key: value for key, value in {**args, **changes}.items() if value is not None}
        return run(mpi_stack, wanted, check)
    return run_stack


def state(swarm):
    """Everything but the tasks, without ids and in the engine's order."""
    networks = {item["id"]: item["name"] for item in swarm._networks}
    return copy.deepcopy((
        [item["Spec"] for item in swarm.nodes()],
        sorted((item["name"], item["internal"], item["mtu"], *item["subnets"]) for item in swarm._networks),
        sorted(item["Spec"]["Name"] for item in swarm._secrets),
        sorted(str(mpi_stack._stack.by_names(item["Spec"], networks)) for item in swarm._services),
    ))


RESTART = {"image": "img:2"}
SCALE = {"workers": 15}
MODE = {"workers": 3}
NETWORK = {"subnet": "10.9.0.0/24"}


# Every change, four ways: {change, none} x {real, check}

@pytest.mark.parametrize("before, after, changes", [
    (None, {}, 11),  # 3 labels, 4 secrets, 2 networks, 2 services
    ({}, {"pcs": ["bob", "alice"]}, 1),
    ({}, RESTART, 2),
    ({}, {"slots": 2}, 1),
    (MODE, SCALE, 1),
    ({}, MODE, 5),  # 3 labels away, the worker service away and made
    ({}, NETWORK, 6),  # 2 services and a network away, and made
    ({}, {"state": "absent"}, 11),
], ids=["new", "pcs", "image", "slots", "scale", "mode", "subnet", "absent"])
def test_change_and_none_real_and_check(stack, swarm, before, after, changes):
    if before is not None:
        assert stack(**before)["changed"]
        swarm.changes.clear()
    untouched = state(swarm)

    predicted = stack(check=True, **after)
    assert predicted["changed"] and swarm.changes == [] and state(swarm) == untouched

    done = stack(**after)
    assert done["changed"]
    assert (done["diff"], done["actions"]) == (predicted["diff"], predicted["actions"])
    assert len(swarm.changes) == changes

    swarm.changes.clear()
    for check in (False, True):
        again = stack(check=check, **after)
        assert not again["changed"] and again["actions"] == [] and again["diff"] == {"before": {}, "after": {}}
    assert swarm.changes == []


def test_what_is_returned(stack):
    cluster = stack(slots=None)["cluster"]
    assert [(worker["pc"], worker["slots"]) for worker in cluster["workers"]] == [("bob", 2), ("alice", 4), ("falco", 4)]
    assert cluster["slots"] == 10 and cluster["missing"] == []
    assert cluster["ssh"] == {"host": "bob", "address": "192.168.1.3", "port": 2222}
    assert cluster["services"] == {"master": "lab_master", "worker": "lab_worker"}
    assert cluster["subnet"].startswith("10.213.") and cluster["network"] == "lab_mpi"


def test_no_key_is_ever_shown(stack, args):
    for result in (stack(check=True), stack(), stack(environment={"A": "1"})):
        assert "BEGIN" not in str(result) and "AAAA" not in str(result)


def test_workers_know_the_subnet_that_the_swarm_gave(stack, swarm):
    subnet = stack()["cluster"]["subnet"]
    for service in swarm.services():
        assert "MPI_SUBNET=" + subnet in service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]


def test_a_pc_that_is_off_is_missing_and_not_waited_for(stack, swarm):
    swarm._nodes[2]["Status"]["State"] = "down"
    cluster = stack()["cluster"]
    assert cluster["missing"] == [{"pc": "falco", "reason": "the PC is down"}] and len(cluster["workers"]) == 2
    assert swarm._nodes[2]["Spec"]["Labels"]["hpclab.cluster.lab"] == "true"  # gets its worker when it comes back


def test_scaling_restarts_nobody(stack, swarm):
    before = {worker["task"] for worker in stack(workers=3)["cluster"]["workers"]}
    after = {worker["task"] for worker in stack(workers=15)["cluster"]["workers"]}
    assert before < after and len(after) == 15


def test_new_workers_start_beside_the_old(stack, swarm):
    stack()
    stack(**RESTART)
    orders = {service["Spec"]["Name"]: service["Spec"]["UpdateConfig"]["Order"] for service in swarm.services()}
    assert orders == {"lab_worker": "start-first", "lab_master": "stop-first"}


def test_an_old_worker_that_swarm_left_running_is_ended(stack, swarm):
    stack()
    swarm.changes.clear()
    swarm.left = {"id-alice"}
    assert stack(**RESTART)["changed"]
    assert swarm.changes == ["update lab_master", "update lab_worker", "update lab_worker"]
    running = [task for task in swarm.tasks(label="hpclab.cluster=lab") if task["DesiredState"] == "running"]
    assert len(running) == 4 and not [task for task in running if task["old"]]


def test_no_two_volumes_of_a_driver_meet_on_the_way_back(stack, swarm):
    mount = {"source": "home", "target": "/home/mpiuser", "driver": "vieux/sshfs:latest"}
    stack(mounts=[mount])
    stack(mounts=[mount], environment={"A": "1"})
    orders = []
    update = swarm.update_service
    swarm.update_service = lambda name, spec: (orders.append((name, spec["UpdateConfig"]["Order"])), update(name, spec))
    swarm.problems = {"SICK": "task: non-zero exit (3)"}
    assert stack(mounts=[dict(mount, source="other")], **SICK)["failed"]
    assert [order for name, order in orders if name == "lab_worker"] == ["stop-first", "stop-first"]


def test_networks_are_replaced_in_order(stack, swarm):
    stack()
    swarm.changes.clear()
    stack(mtu=1400)
    assert swarm.changes == [
        "remove lab_master", "remove lab_worker", "remove lab_access", "remove lab_mpi",
        "create lab_access", "create lab_mpi", "create lab_master", "create lab_worker"]


def test_a_new_key_replaces_its_secret_once_the_services_have_it(stack, swarm, args):
    stack()
    swarm.changes.clear()
    with open(args["user_key"], "w", encoding="utf-8") as stream:
        stream.write(PRIVATE.format("new"))
    stack()
    steps = [change.split("_")[0].split()[0] + " " + change.split()[1].rsplit("_", 1)[0] for change in swarm.changes]
    assert steps == ["create lab_user_key", "update lab", "update lab", "remove lab_user_key"]


def test_absent_leaves_what_is_not_the_cluster_s(stack, swarm):
    stack(name="other", ssh_port=2223)
    untouched = state(swarm)
    stack()
    stack(state="absent", image=None, user_key=None, host_key=None)
    assert state(swarm) == untouched


# What fails leaves what was there

SICK = {"environment": {"SICK": "1"}}


@pytest.mark.parametrize("before, after", [(None, {}), ({}, {}), ({}, MODE), (MODE, SCALE), ({}, NETWORK), ({"pcs": ["bob"]}, {"pcs": ["alice"]})])
def test_what_does_not_get_ready_is_taken_back(stack, swarm, clock, before, after):
    swarm.problems = {"SICK": "task: non-zero exit (137): dockerexec: unhealthy container"}
    if before is not None:
        stack(**before)
    untouched = state(swarm)
    failed = stack(**after, **SICK)
    assert failed["failed"] and state(swarm) == untouched
    assert failed["msg"].startswith("lab is not ready after 3 tries that ended alike: lab_master on bob: unhealthy, its health check fails (task: ")
    assert failed["msg"].endswith("; the earlier state was restored")
    assert {item["service"] for item in failed["unready"]} == {"lab_master", "lab_worker"}
    assert clock.seconds < 5  # three tries that ended alike are enough


def test_time_is_bounded(stack, swarm, clock, monkeypatch):
    monkeypatch.setattr(mpi_stack._wait, "hopeless", lambda tasks: False)
    swarm.problems = {"SICK": "task: non-zero exit (3)"}
    message = stack(timeout=30, **SICK)["msg"]
    assert message.startswith("lab is not ready after 30 s: ") and "; lab_worker on alice: failed (task: non-zero exit (3))" in message
    assert clock.seconds == 30


def test_old_failures_do_not_count(stack, swarm, clock):
    """A second look at a cluster that is about to recover gives it the whole time."""
    swarm.problems = {"SICK": "task: non-zero exit (3)"}
    stack(wait=False, **SICK)
    swarm.changes.clear()
    failed = stack(timeout=30, **SICK)
    assert failed["failed"] and clock.seconds == 30
    assert "restored" not in failed["msg"] and swarm.changes == []


def test_without_waiting(stack, swarm, clock):
    swarm.problems = {"SICK": "task: non-zero exit (3)"}
    result = stack(wait=False, **SICK)
    assert result["changed"] and clock.seconds == 0
    assert result["cluster"]["missing"][0] == {"pc": "alice", "reason": "failed (task: non-zero exit (3))"}


def test_what_the_engine_refuses_is_taken_back(stack, swarm, refuse):
    refuse("create_service", "rpc error: code = InvalidArgument desc = name must be valid")
    untouched = state(swarm)
    assert stack()["msg"] == "rpc error: code = InvalidArgument desc = name must be valid; the earlier state was restored"
    assert state(swarm) == untouched


def test_what_can_not_be_restored_is_said(stack, swarm, refuse, args):
    swarm.problems = {"SICK": "task: non-zero exit (3)"}
    stack()
    refuse("remove_secret", "no leader")
    with open(args["user_key"], "w", encoding="utf-8") as stream:
        stream.write(PRIVATE.format("new"))
    assert stack(**SICK)["msg"].endswith("; the earlier state could not be restored in full: no leader")


def test_an_earlier_state_that_was_not_ready_either(stack, swarm):
    swarm.problems = {"SICK": "task: non-zero exit (3)", "LAME": "task: non-zero exit (4)"}
    stack(wait=False, **SICK)
    assert "; the earlier state was restored, but lab is not ready after 3 tries" in stack(environment={"LAME": "1"})["msg"]


# Refusals

JOB = "force: needed, because services are made anew ({0}) while a job runs ({1}); wait for it, or set it to end the job"
WHY_MODE = "service lab_worker: Swarm can't change a global service into a replicated one"


@pytest.mark.parametrize("command, job", [
    ("mpirun -n 4 ./ring", True), ("/usr/bin/mpiexec.hydra -n 4 ./ring", True), ("/opt/venv/bin/python3 /opt/venv/bin/mpirun ./ring", True),
    ("prterun ./ring", True), ("orterun ./ring", True), ("sshd: mpiuser", False), ("vim -r mpirun", False), ("less mpirun.log", False), ("", False),
])
@pytest.mark.parametrize("check", [True, False])
def test_no_service_is_made_anew_while_a_job_runs(stack, swarm, command, job, check):
    stack()
    swarm.commands = ["/sbin/init", command]
    swarm.changes.clear()
    result = stack(check=check, **MODE)
    if job:
        assert result["msg"] == JOB.format(WHY_MODE, command) and swarm.changes == []
    else:
        assert result["changed"]


@pytest.mark.parametrize("changes", [dict(MODE, force=True), dict(NETWORK, force=True), {"image": "img:2"}, {"pcs": ["bob"]}, {"state": "absent"}])
def test_other_changes_do_not_ask(stack, swarm, changes):
    stack()
    swarm.commands = ["mpirun ./ring"]
    assert stack(**changes)["changed"]


def test_a_master_elsewhere_can_not_be_asked(stack, swarm):
    stack(master="alice")
    assert "whether a job runs can't be asked on alice, where the master is; set it once no job runs" in stack(master="alice", **NETWORK)["msg"]
    assert stack(master="alice", force=True, **NETWORK)["changed"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("changes, sentence", [
    ({"name": "Lab"}, "name: 'Lab' can't be a cluster's name; use at most 31 small letters, digits and hyphens, a letter first"),
    ({"pcs": ["eve"]}, "pcs: eve is not in the Swarm; its PCs are alice, bob and falco"),
    ({"image": "img:9"}, "image: img:9 can't be had (manifest unknown); build and push it first, or correct its name"),
    ({"user_key": "/nowhere"},
     "user_key: /nowhere can't be read (No such file or directory); make the pair with ssh-keygen -t ed25519 -N '' -f /nowhere"),
    ({"pcs": ["bob"], "workers": 2}, "parameters are mutually exclusive: pcs|workers"),
    ({"image": None}, "state is present but all of the following are missing: image"),
])
def test_bad_input_changes_nothing(stack, swarm, changes, sentence, check):
    assert stack(check=check, **changes)["msg"] == sentence
    assert swarm.changes == []


@pytest.mark.parametrize("mix", ["private", "public"])
def test_keys_mixed_up(stack, swarm, args, mix):
    text = {"private": PRIVATE, "public": PUBLIC}[mix].format("x")
    with open(args["host_key"] + (".pub" if mix == "private" else ""), "w", encoding="utf-8") as stream:
        stream.write(text)
    assert "is a {0} key; ".format(mix) in stack()["msg"] and swarm.changes == []


def test_an_image_that_runs_is_not_asked_for(stack, swarm, refuse):
    stack()
    refuse("image_problem", "the registry is off")
    assert not stack()["changed"]


def test_members_that_are_not_there(stack, swarm, tmp_path):
    message = stack(docker_host="unix:///x", members=str(tmp_path / "m"))["msg"]
    assert message == "members: {0}/m is no directory on bob; make it and put a file authorized_keys in it".format(tmp_path)


def test_a_port_in_use(stack, swarm):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        assert stack(docker_host="unix:///x", ssh_port=port)["msg"] == (
            "ssh_port: {0} is in use on bob; choose another port, or end what listens there".format(port))
    assert swarm.changes == []
    assert stack(docker_host="unix:///x", ssh_port=port)["changed"]
    with socket.socket() as ours:  # as the engine does for the master that runs
        ours.bind(("", port))
        ours.listen()
        assert not stack(docker_host="unix:///x", ssh_port=port)["changed"]
        stack(ssh_port=port, master="alice")
        assert "is in use on bob" in stack(docker_host="unix:///x", ssh_port=port)["msg"]  # the master comes back to it
