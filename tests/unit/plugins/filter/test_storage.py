# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.hpclab.swarm.plugins.filter import storage

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBV+8hbDJ9VLPhRwqpTqWYYsCkLmZHQzqCgB8jGHfRdl"
SETTINGS = {
    "driver": "host", "host": "", "pcs": ["bob", "alice"], "clusters": [{"name": "mpi"}, {"name": "old", "state": "absent"}],
    "path": "/srv/hpclab", "user": "", "host_key": "", "options": {}, "delete": "",
}
NAS = {"host": "nas.example.org", "user": "lab", "host_key": KEY}
SERVER = {"user": "hpclab-mpi", "address": "192.168.1.11", "port": 2200, "path": "/mpiuser"}


@pytest.mark.parametrize("changed", [
    {}, NAS, {"host": "alice"}, {"driver": "vieux/sshfs"}, {"delete": "old"}, {"options": {"kernel_cache": "", "dcache_timeout": 5}},
    {"path": "/data/lab.1/x_y-z"},
])
def test_good_settings(changed):
    assert storage.storage_findings({**SETTINGS, **changed}) == []


@pytest.mark.parametrize("changed, words", [
    ({"driver": "nfs"}, ["sshfs_storage_driver", "nfs", "vieux/sshfs or host"]),
    ({"path": "srv"}, ["sshfs_storage_path", "'srv'"]),
    ({"path": "/my files"}, ["sshfs_storage_path", "'/my files'", "without spaces"]),
    ({"path": "/srv/../etc"}, ["sshfs_storage_path", "/srv/../etc"]),
    ({"path": "/"}, ["sshfs_storage_path", "'/'"]),
    ({"options": {"fast": ""}}, ["sshfs_storage_options", "fast is no option", "kernel_cache"]),
    ({"options": {"StrictHostKeyChecking": "no"}}, ["sshfs_storage_options", "StrictHostKeyChecking"]),
    ({"options": {"uid": "0"}}, ["sshfs_storage_options", "uid"]),
    ({"options": {"MACs": "a,b"}}, ["sshfs_storage_options", "'a,b'"]),
    ({**NAS, "user": ""}, ["sshfs_storage_user", "nas.example.org"]),
    ({**NAS, "host_key": ""}, ["sshfs_storage_host_key", "nas.example.org"]),
    ({**NAS, "host_key": "AAAA"}, ["sshfs_storage_host_key", "no public ssh key"]),
    ({"delete": "mpi"}, ["sshfs_storage_delete", "mpi", "state: absent"]),
    ({**NAS, "delete": "old"}, ["sshfs_storage_delete", "by hand"]),
])
def test_bad_settings(changed, words):
    sentence, = storage.storage_findings({**SETTINGS, **changed})
    assert [word for word in words if word not in sentence] == []


LAB = {"pc": "bob", "off": [], "files": {}, "listeners": [], "clusters": ["mpi"], "path": "/srv/hpclab", "port": 2200,
       "server": "bob:2200:/srv/hpclab", "homes": {}}
BEFORE = {"mpi": "alice:2200:/srv/hpclab", "old": "alice:2200:/srv/hpclab"}
MARKED = {"/srv/hpclab/mpi/mpiuser/.hpclab/cluster": {"type": "file", "mode": "0444", "content": "mpi\n"}}


@pytest.mark.parametrize("changed, words", [
    ({}, None),
    ({"files": {"/srv/hpclab": {"type": "directory"}}, "listeners": [{"port": 2200, "protocol": "tcp", "process": "systemd"}]}, None),
    ({"homes": {**BEFORE, "mpi": LAB["server"]}}, None),
    ({"homes": BEFORE, "files": MARKED}, None),
    ({"homes": BEFORE, "clusters": ["new"]}, None),
    ({"off": ["bob"]}, ["bob", "off", "switch it on"]),
    ({"files": {"/srv/hpclab": {"type": "file"}}}, ["bob", "/srv/hpclab is no directory"]),
    ({"files": {"/srv/hpclab/mpi": {"type": "link"}}}, ["bob", "/srv/hpclab/mpi is a link", "out of the export"]),
    ({"listeners": [{"port": 2200, "protocol": "tcp", "process": "nc"}]}, ["bob", "port 2200", "nc"]),
    ({"homes": BEFORE}, ["cluster mpi", "alice:2200:/srv/hpclab", "copy"]),
    ({"homes": BEFORE, "pc": "", "server": "nas:22:/data"}, ["cluster mpi", "nas:22:/data", "copy"]),
])
def test_room(changed, words):
    found = storage.storage_room_findings({**LAB, **changed})
    assert len(found) == (words is not None)
    assert [word for word in words or [] if word not in found[0]] == []


def test_servers():
    inside = storage.storage_servers(["mpi"], True, "192.168.1.11", 2200, "/srv/hpclab", "")
    assert inside == {"mpi": SERVER}
    outside = storage.storage_servers(["mpi"], False, "nas", 22, "/data", "lab")
    assert outside == {"mpi": {"user": "lab", "address": "nas", "port": 22, "path": "/data/mpi"}}


def file(content, mode="0644"):
    return {"type": "file", "mode": mode, "content": content}


class TestState:
    files = {
        "/etc/hpclab/storage/id_ed25519": file("", "0600"),
        "/etc/hpclab/storage/id_ed25519.pub": file(f"{KEY} bob\n"),
        "/etc/hpclab/storage/known_hosts": file("known"),
        "/etc/hpclab/storage/mpi.env": file("SOURCE=x"),
        "/var/lib/hpclab/homes/mpi/mpiuser/.hpclab/cluster": file("mpi\n", "0444"),
        "/var/lib/hpclab/homes/pi/mpiuser/.hpclab/cluster": file("mpi\n", "0444"),
        "/etc/passwd": file("root:x:0:0:root:/root:/bin/bash\nhpclab-mpi:x:998:998::/srv/hpclab/mpi:/usr/sbin/nologin\n"),
        "/srv/hpclab/mpi/mpiuser/.hpclab/cluster": file("mpi\n", "0444"),
        "/srv/hpclab/pi/mpiuser/.hpclab/cluster": file("pi\n", "0444"),
        "/etc/hpclab/export/keys/hpclab-mpi": file(f"restrict {KEY} bob\nrestrict {OTHER} alice\n"),
    }

    def test_all_of_it(self):
        state = storage.storage_state(self.files, ["mpi", "pi"], "/srv/hpclab")
        assert state == {
            "key": f"{KEY} bob", "known_hosts": "known", "units": {"mpi": "SOURCE=x"}, "mounted": ["mpi"], "accounts": ["mpi"], "complete": ["mpi"],
            "authorized": {"mpi": f"restrict {KEY} bob\nrestrict {OTHER} alice\n", "pi": ""}, "let_in": ["alice", "bob"],
        }

    def test_it_asks_for_what_it_reads(self):
        assert set(self.files) <= set(storage.storage_look_at(["mpi", "pi"], "/srv/hpclab", True))

    def test_a_key_that_others_may_read_is_none(self):
        files = {**self.files, "/etc/hpclab/storage/id_ed25519": file("", "0640")}
        assert storage.storage_state(files, ["mpi"], "/srv/hpclab")["key"] == ""

    def test_nothing(self):
        state = storage.storage_state({}, ["mpi"], "/srv/hpclab")
        assert state["authorized"] == {"mpi": ""}
        assert not any(value for name, value in state.items() if name != "authorized")


class TestHomes:
    def test_by_systemd_the_parent_is_bound(self):
        assert storage.storage_homes({"mpi": SERVER}, "host", {}) == {"mpi": {
            "mounts": [{"type": "bind", "source": "/var/lib/hpclab/homes/mpi", "target": "/home", "propagation": "rslave"}],
            "environment": {"MPI_SHARED_HOME": "1", "OMPI_MCA_sharedfp": "individual"},
        }}

    def test_by_the_plugin_a_volume_is_named_after_its_options(self):
        def volume(**options):
            return storage.storage_homes({"mpi": SERVER}, "vieux/sshfs", options)["mpi"]["mounts"][0]

        mount = volume()
        assert mount["driver_options"]["sshcmd"] == "hpclab-mpi@192.168.1.11:/mpiuser"
        assert mount["driver_options"]["port"] == "2200"
        # VIEUX_SSHFS: only there is the check of the host key obeyed, and without reconnect writes go to the PC's own disk
        assert mount["driver_options"]["ssh_command"] == "ssh -oStrictHostKeyChecking=yes"
        assert mount["driver_options"]["reconnect"] == ""
        assert mount["nocopy"] and mount["target"] == "/home/mpiuser" and mount["driver"] == "vieux/sshfs:latest"
        assert volume() == mount
        assert volume(umask="077")["source"] != mount["source"]

    def test_no_driver_s_options_weaken_the_check(self):
        for driver in storage.DRIVERS:
            assert "StrictHostKeyChecking=yes" in storage.storage_options(driver, {})["ssh_command"]
            assert not {"ssh_command", "password_stdin", "directport"} & storage.TUNABLE

    def test_unit(self):
        source, options = storage.storage_unit(SERVER, {"umask": "077"}).splitlines()
        assert source == "SOURCE=hpclab-mpi@192.168.1.11:/mpiuser"
        assert options.startswith('OPTIONS="port=2200,') and options.endswith('"')
        assert {"umask=077", "allow_other", "uid=1000"} <= set(options[len('OPTIONS="'):-1].split(","))
        assert "reconnect" not in options


def test_authorized():
    before = f"restrict {OTHER} alice\nrestrict {OTHER} gone\nrestrict {OTHER} bob\n"
    texts = storage.storage_authorized({"bob": f"{KEY} bob", "falco": ""}, {"mpi": before, "new": ""}, ["falco", "bob", "alice"])
    assert texts == {"mpi": f"restrict {OTHER} alice\nrestrict {KEY} bob\n", "new": f"restrict {KEY} bob\n"}


@pytest.mark.parametrize("said, words", [
    ("No ED25519 host key is known\nHost key verification failed.\nConnection closed", ["another ssh host key", "got no data"]),
    ("hpclab-mpi@192.168.1.11: Permission denied (publickey).\nConnection closed", ["refuses this PC's key", f"restrict {KEY} bob"]),
    ("ssh: connect to host 192.168.1.11 port 2200: Connection refused\nConnection closed.", ["can't be reached", "Connection refused"]),
    ("ssh: connect to host 192.168.1.11 port 2200: No route to host", ["can't be reached", "No route to host"]),
    ("ssh: Could not resolve hostname nas: Name or service not known", ["can't be reached", "Could not resolve"]),
    ('stat remote: No such file or directory', ["/mpiuser is no directory"]),
    ('Can\'t change directory: "/mpiuser" is not a directory', ["/mpiuser is no directory"]),
    ("", ["can't be reached", "no answer"]),
])
def test_refusal(said, words):
    sentence = storage.storage_refusal(said, "bob", SERVER, f"{KEY} root@bob")
    assert sentence.startswith("bob: ")
    assert [word for word in words if word not in sentence] == []
