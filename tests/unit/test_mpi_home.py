# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shared home, seen from a cluster's container: is it there, what logins say, how an old home gets into it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

IMAGE = Path(__file__).parents[2] / "roles/mpi_stack/files/image"


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".hpclab").mkdir()
    return tmp_path


def look(home, **environment):
    return subprocess.run(
        ["bash", IMAGE / "mpi-home", home], capture_output=True, text=True, check=False, timeout=10,
        env={"PATH": os.environ["PATH"], "MPI_CLUSTER": "mpi", "MPI_SHARED_HOME": "1", **environment})


@pytest.mark.parametrize(("marker", "why"), [
    ("mpi\n", ""),
    ("other\n", ".hpclab/cluster says 'other', not 'mpi'"),
    ("", ".hpclab/cluster says '', not 'mpi'"),
    ("=mpi\n", ".hpclab/cluster says '=mpi', not 'mpi'"),
    (None, ".hpclab/cluster: No such file or directory"),
])
def test_the_marker_says_whether_the_folder_is_there(home, marker, why):
    if marker is not None:
        (home / ".hpclab/cluster").write_text(marker)
    said = look(home)
    assert said.returncode == (1 if why else 0)
    assert said.stdout == (f"the shared folder is away: {home}/{why}\n" if why else "")
    assert said.stderr == ""


def test_a_home_that_need_not_be_shared_is_not_looked_at(home):
    assert look(home, MPI_SHARED_HOME="").returncode == 0


def test_a_silent_server_is_not_waited_for(home):
    os.mkfifo(home / ".hpclab/cluster")  # whoever opens it hangs
    start = time.monotonic()
    said = look(home)
    assert (said.returncode, said.stdout) == (1, "the shared folder is away: no answer within 5 s\n")
    assert time.monotonic() - start < 5.9
    os.close(os.open(home / ".hpclab/cluster", os.O_RDWR))  # ends the one that hangs


@pytest.fixture
def image(tmp_path):
    """The programs, with a mpi-home that says what the file `away` says."""
    (tmp_path / "mpi-home").write_text(f"#!/bin/sh\n[ ! -e {tmp_path}/away ] || {{ cat {tmp_path}/away; exit 1; }}\n")
    (tmp_path / "mpi-home").chmod(0o755)

    def adapted(name, **words):
        text = (IMAGE / name).read_text().replace("/opt/mpi/mpi-home", str(tmp_path / "mpi-home"))
        for old, new in words.items():
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
        return tmp_path / name
    return adapted


@pytest.mark.parametrize(("role", "away", "healthy"), [
    ("worker", "", True), ("worker", "no answer\n", False), ("master", "no answer\n", True), ("master", "Transport endpoint is not connected\n", False)])
@pytest.mark.parametrize("before", [False, True])
def test_health(image, tmp_path, role, away, healthy, before):
    marker = tmp_path / "healthy"
    if before:
        marker.touch()
    if away:
        (tmp_path / "away").write_text(away)
    with socket.create_server(("127.0.0.1", 0)) as sshd:
        program = image("mpi-health", **{"127.0.0.1/2222": f"127.0.0.1/{sshd.getsockname()[1]}", "/run/mpi/healthy": str(marker),
                                         "-t 9": "-t 0.4" if before else "-t 30"})
        start = time.monotonic()
        check = subprocess.Popen(["bash", program], env={"MPI_ROLE": role}, stdout=subprocess.PIPE, text=True)
        if healthy:
            sshd.settimeout(5)
            sshd.accept()[0].sendall(b"SSH-2.0-OpenSSH\r\n")
        assert check.communicate(timeout=5)[0] == ("" if healthy else away)
        assert check.returncode == (0 if healthy else 1)
        assert not before or time.monotonic() - start > 0.4
        assert marker.exists() == (healthy or before)


@pytest.mark.parametrize(("language", "shared", "away", "warning"), [
    ("en_US.UTF-8", "1", True, "Careful: the shared folder is away: what is written here is lost."),
    ("es_AR.UTF-8", "1", True, "Atención: la carpeta compartida no está: lo que se escribe aquí se pierde."),
    ("en_US.UTF-8", "1", False, None),
    ("en_US.UTF-8", "", True, "Careful: this home exists in this container alone"),
    ("es_AR.UTF-8", "", True, "Atención: este directorio solo existe en este contenedor"),
])
def test_login_message(image, tmp_path, language, shared, away, warning):
    if away:
        (tmp_path / "away").touch()
    (tmp_path / "hostfile").write_text("10.213.1.5 slots=2 # bob\n")
    program = image("login.sh", **{"/run/mpi/hostfile": str(tmp_path / "hostfile")})
    said = subprocess.run(
        ["bash", "--norc", "-ic", f". {program}; set | grep ^hpclab"], capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "MPI_ROLE": "master", "MPI_CLUSTER": "mpi", "MPI_SHARED_HOME": shared, "LANG": language}).stdout
    assert "mpi: 1 worker, 2 slots" in said
    assert [line for line in said.splitlines() if line.startswith(("Careful", "Atención"))][:1] == [
        line for line in said.splitlines() if warning and line.startswith(warning)]
    assert ("Careful" in said or "Atención" in said) == bool(warning)
    assert "hpclab_" not in said  # nothing stays in the student's shell


# An old home gets into the shared folder

@pytest.fixture
def program():
    loader = SourceFileLoader("mpi_move_home", str(IMAGE / "mpi-move-home"))
    module = module_from_spec(spec_from_loader("mpi_move_home", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def homes(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "src").mkdir(parents=True)
    (old / "src/a.c").write_text("int main;\n")
    (old / "src/a.c").chmod(0o750)
    os.utime(old / "src/a.c", (1000.5, 2000.75))
    (old / "link").symlink_to("src/a.c")
    (old / "locked").mkdir()
    (old / "locked/b").write_text("b")
    (old / "locked").chmod(0o555)
    (old / "bad\udcff").touch()
    (old / ".hpclab").mkdir()
    (old / ".hpclab/cluster").write_text("other\n")
    (new / ".hpclab").mkdir(parents=True)
    return old, new


def test_all_is_brought_as_it_was(program, homes):
    old, new = homes
    assert program.move(*map(str, homes))["bring"] == 4
    assert (new / "src/a.c").read_text() == "int main;\n"
    assert (new / "src/a.c").stat().st_mode & 0o777 == 0o750
    assert (new / "src/a.c").stat().st_mtime == 2000.75
    assert os.readlink(new / "link") == "src/a.c"
    assert (new / "locked").stat().st_mode & 0o777 == 0o555
    assert (new / "locked").stat().st_mtime_ns == (old / "locked").stat().st_mtime_ns
    assert (new / "bad\udcff").exists()
    assert list((new / ".hpclab").iterdir()) == []  # the marker is the storage PC's
    again = program.move(*map(str, homes))
    assert (again["bring"], again["replace"], again["newer"]) == (0, 0, 0)


@pytest.mark.parametrize(("seconds", "kept", "beside"), [(-60, "old", "new"), (60, "new", None), (0, "new", None)])
def test_the_newer_one_is_the_homes_and_none_is_lost(program, homes, seconds, kept, beside):
    old, new = homes
    (old / "notes").write_text("old")
    (new / "notes").write_text("new one" if seconds else "new")
    (new / "notes").write_text("new")
    (new / "notes.~1~").write_text("from earlier")
    now = (old / "notes").stat().st_mtime
    os.utime(new / "notes", (now + seconds, now + seconds))
    done = program.move(*map(str, homes))
    if seconds:
        assert (new / "notes").read_text() == kept
        assert done["newer"] == (0 if beside else 1)
    assert (new / "notes.~1~").read_text() == "from earlier"
    assert (new / "notes.~2~").exists() == bool(beside)
    if beside:
        assert (new / "notes.~2~").read_text() == beside
    assert (old / "notes").read_text() == "old"


def test_what_was_cut_off_is_done_again(program, homes, monkeypatch):
    old, new = homes
    whole = program.shutil.copyfileobj

    def cut(source, target, length):
        target.write(b"int")
        target.flush()
        raise KeyboardInterrupt
    monkeypatch.setattr(program.shutil, "copyfileobj", cut)
    with pytest.raises(KeyboardInterrupt):
        program.move(*map(str, homes))
    assert not (new / "src/a.c").exists()  # no half of a file under its name
    monkeypatch.setattr(program.shutil, "copyfileobj", whole)
    program.move(*map(str, homes))
    assert (new / "src/a.c").read_text() == "int main;\n"
    assert not (new / ".hpclab-part").exists()


def test_another_kind_of_thing_stays(program, homes, capsys):
    old, new = homes
    (new / "src").write_text("a file here, a folder there")
    os.mkfifo(old / "pipe")
    program.move(*map(str, homes))
    assert (new / "src").read_text() == "a file here, a folder there"
    assert capsys.readouterr().out.count("left out: ") == 3  # src, what is in it, and the pipe


def test_main(program, homes, monkeypatch, capsys):
    old, new = homes
    monkeypatch.setattr(program.sys, "argv", ["mpi-move-home", str(old), str(new)])
    monkeypatch.setattr(program.sys, "stdout", program.sys.__stdout__)
    umask = os.umask(0o22)
    try:
        monkeypatch.setattr(program, "HOME_CHECK", "false")
        assert program.main() == 1
        assert not (new / "src").exists()  # not into a folder that is not the shared one
        monkeypatch.setattr(program, "HOME_CHECK", "true")
        assert program.main() == 0
        monkeypatch.setattr(program, "move", lambda old, new: program.Counter())
        (old / "late").write_text("x")
        assert program.main() == 1  # it looks again whether all is there
    finally:
        os.umask(umask)
