# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images the clusters run, and what each is made of: asked on the controller, before any PC is touched."""
from __future__ import annotations

import ast
import hashlib
import json
import re
from pathlib import Path

import yaml
from ansible.errors import AnsibleFilterError

FINISHES = ("base", "latest", "onbuild")  # what only runs programs, what also makes them, what a course is made of
MPI_FROM = ("distribution", "wheel", "release")
REQUIRED = {"system", "mpi", "mpi_from"}  # of a variant
OPTIONAL = {"packages", "base", "release", "release_sha256"}
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(=\S+)?")
REQUIREMENT = re.compile(r"[A-Za-z0-9][^\s#;]*")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FROM = re.compile(r"(?mi)^\s*FROM\s+(\S+)")


def image_variants(folders):
    """The variants that .yml files in these folders of the controller describe, as {name: description}; a later folder's wins."""
    found = {}
    for folder in folders:
        files = sorted(Path(folder).expanduser().glob("*.yml"))
        if not files:
            raise AnsibleFilterError(f"mpi_stack_variants: the folder {folder} holds no .yml file; put one there for each variant")
        for file in files:
            described = yaml.safe_load(file.read_text())
            if not isinstance(described, dict) or not REQUIRED <= set(described) <= REQUIRED | OPTIONAL:
                raise AnsibleFilterError(f"{file}: this is no variant; it has {', '.join(sorted(REQUIRED))}, and may have {', '.join(sorted(OPTIONAL))}")
            found[file.stem] = described
    return found


def split(name):
    """A variant's name without its finish, and the finish: latest if none is said."""
    system, dash, finish = name.rpartition("-")
    return (system, finish) if dash and finish in FINISHES else (name, "latest")


def is_file(image):
    """Whether a row's image is a file on the controller, and no reference to a registry."""
    return image.startswith(("/", "./", "../", "~"))


def _registry(reference):
    """Whose registry an image is in: Docker Hub's where none is named."""
    first, slash, _rest = reference.partition("/")
    return first if slash and (set(".:") & set(first) or first == "localhost") else "docker.io"


def source(course):
    """The variant that a course's Dockerfile begins with, or nothing where it has none."""
    dockerfile = Path(course).expanduser() / "Dockerfile"
    found = FROM.search(dockerfile.read_text()) if dockerfile.is_file() else None
    return found[1] if found else ""


def _variant(row, default):
    """The one that a row asks for, its finish with it."""
    return row.get("variant") or (source(row["course"]) if row.get("course") else "") or default


def image_findings(row, variants, bases, default):
    """What is wrong with the image that a row asks for, in sentences.

    row: one of mpi_stack_clusters that is well-formed; variants: of image_variants; bases: {system: base image}; default: the variant of a row
    that names none.
    """
    course = row.get("course")
    if row.get("image"):
        for key in ("variant", "mpi_from"):
            if row.get(key):
                yield f"give image (one that is there) or {key} (one that is built), not both"
        if is_file(row["image"]) and not Path(row["image"]).expanduser().is_file():
            yield f"image: there is no file {row['image']} on this machine; give a file of `docker save`, or an image of a registry"
    if course:
        if not Path(course).expanduser().is_dir():
            yield f"course: {course} is no folder on this machine; give the one that holds the course's files"
            return
        if source(course) and split(source(course))[1] != "onbuild":
            yield f"course: {course}/Dockerfile is FROM {source(course)}; a course is made of a variant that ends in -onbuild"
        elif row.get("variant") and source(course) and split(source(course))[0] != split(row["variant"])[0]:
            yield f"course: {course}/Dockerfile is FROM {source(course)}, the row's variant is {row['variant']}; leave one of them out"
    for package in row.get("packages") or []:
        if not PACKAGE.fullmatch(str(package)):
            yield f"packages: {package!r} is no package of the system; write it like libfftw3-dev"
    for requirement in row.get("pip") or []:
        if not REQUIREMENT.fullmatch(str(requirement)):
            yield f"pip: {requirement!r} is no requirement; write it like numpy==2.1.3"
    if row.get("image"):
        return
    name, finish = split(_variant(row, default))
    there = sorted(name for name, described in variants.items() if described.get("base") or described["system"] in bases)
    if name not in there:
        yield f"there is no variant {_variant(row, default)!r}; there are {', '.join(there)}, each also with -base or -latest behind it"
        return
    if finish == "onbuild" and not course:
        yield f"variant: {name}-onbuild is what courses are made of; take {name}, and give a course, packages or pip"
    if finish == "base" and (course or row.get("packages") or row.get("pip")):
        yield f"variant: {name}-base only runs programs, nothing can be installed in it; take {name}"
    described = variants[name]
    base = described.get("base") or bases[described["system"]]
    mpi_from = row.get("mpi_from") or described["mpi_from"]
    if mpi_from == "wheel" and described["system"] == "alpine":
        yield "mpi_from: there are no wheels for Alpine's C library; leave mpi_from out"
    if mpi_from == "release" and described["mpi"] != "mpich":
        yield f"mpi_from: only MPICH is built from its release; take {' or '.join(MPI_FROM[:2])}"
    if is_file(described.get("release") or "") and not Path(described["release"]).expanduser().is_file():
        yield f"variant: {name} is built of {described['release']}, and there is no such file on this machine"
    if mpi_from == "distribution" and described["mpi"] == "mpich" and described["system"] == "alpine":
        yield "mpi_from: Alpine has no MPICH of its own; leave mpi_from out"
    if mpi_from == "distribution" and described["mpi"] == "mpich" and re.search(r"^debian:(12|bookworm)", base):
        yield f"mpi_from: Debian 12's own MPICH ({base}) hangs when jobs on three PCs or more end; take wheel, or Debian 13"


def _digest(*parts):
    """A tag: the hash of what an image is made of."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        whole.update(b"\0")
    return whole.hexdigest()[:12]


def _content(folder):
    """All files of a folder but Python's caches: names, whether they are programs, and what they say."""
    folder = Path(folder).expanduser()
    files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.relative_to(folder).parts)
    return [part for file in files for part in (str(file.relative_to(folder)), bool(file.stat().st_mode & 0o100), file.read_bytes())]


def _file_digest(path):
    with Path(path).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def image_plan(rows, variants, bases, default, files, push):
    """The images that the rows need, in the order in which they are made.

    files: files and folders on the controller of which a variant is made; push: where the manager pushes, as host:port.

    Returns images, a list of {key, repository, tag, how, …}, and clusters, {row's name: key of its image}. A key is repository:tag. By `how` an
    image has besides: build: dockerfile, args, base (what is not there by another build; may be empty), release (a file, or empty);
    course: from, packages, pip, folder; pull: reference, registry; load: file.
    """
    images, clusters = {}, {}
    made_of = [part for path in files for part in (_content(path) if Path(path).is_dir() else [Path(path).read_bytes()])]

    def add(repository, tag, **more):
        key = f"{repository}:{tag}"
        images[key] = {"key": key, "repository": repository, "tag": tag, **more}
        return key

    for row in rows:
        image, course = row.get("image"), row.get("course") or ""
        name, finish = split(_variant(row, default))
        layer = bool(course or row.get("packages") or row.get("pip"))
        if image and is_file(image):
            name, key = "loaded", add("loaded", _file_digest(image), how="load", file=str(Path(image).expanduser()))
        elif image:
            name, key = "pulled", add("pulled", _digest(image), how="pull", reference=image, registry=_registry(image))
        else:
            described = variants[name]
            full = name if finish != "base" else f"{name}-base"
            args = {
                "BASE": described.get("base") or bases[described["system"]], "NAME": full, "FINISH": "base" if finish == "base" else "latest",
                "MPI": described["mpi"], "MPI_FROM": row.get("mpi_from") or described["mpi_from"],
                "PACKAGES": " ".join(described.get("packages") or []),
            }
            release = described.get("release") or ""
            if release and args["MPI_FROM"] == "release":
                args.update(RELEASE=Path(release).name if is_file(release) else release, RELEASE_SHA256=described.get("release_sha256") or "")
            key = add(full, _digest(args, *made_of), how="build", base=args["BASE"], args=args, release=release if is_file(release) else "",
                      dockerfile=f"Dockerfile.{'apk' if described['system'] == 'alpine' else 'apt'}")
        if layer:
            # its tag tells what all of it is made of
            key = add(f"{name}-onbuild", images[key]["tag"], how="build", base="", release="",
                      args={"FROM": f"{push}/{key}", "NAME": f"{name}-onbuild"}, dockerfile="Dockerfile.onbuild")
            packages, pip = ([str(one) for one in row.get(kind) or []] for kind in ("packages", "pip"))
            key = add(f"{name}-course", _digest(key, packages, pip, *(_content(course) if course else [])), how="course",
                      **{"from": f"{push}/{key}"}, packages=packages, pip=pip,
                      folder=str(Path(course).expanduser().absolute()) if course else "")
        clusters[row["name"]] = key
    return {"images": list(images.values()), "clusters": clusters}


def course_files(image):
    """What lies beside a course's files where it is built, as {name: text}: its Dockerfile, FROM the image that the lab has, and its lists."""
    folder = Path(image["folder"]) if image["folder"] else None

    def text(name):
        file = folder / name if folder else None
        return file.read_text() if file and file.is_file() else ""

    own = text("Dockerfile")
    files = {"Dockerfile": FROM.sub(f"FROM {image['from']}", own, count=1) if own else f"FROM {image['from']}\n"}
    for name, more in (("packages.txt", image["packages"]), ("requirements.txt", image["pip"])):
        lines = text(name).splitlines() + more
        if lines:
            files[name] = "\n".join(lines) + "\n"
    return files


def build_failure(msg, secret=""):
    """Why docker_image says that a build failed: its last lines, where the failing one is; a secret in them is left out."""
    found = re.search(r"message: (.*?), logs: (\[.*\])$", msg, re.DOTALL)
    if not found:
        return msg
    # what a program says to stderr comes in red, in pieces: one that ends with the colour is no whole line
    said = "".join(part if part.endswith("\x1b[0m") else f"{part}\n" for part in ast.literal_eval(found[2]))
    lines = [line for line in COLOUR.sub("", said).splitlines() if line.strip()]
    text = "\n".join([*lines[-15:], found[1]])
    return text.replace(secret, "(the proxy)") if secret else text


class FilterModule:
    def filters(self):
        return {function.__name__: function for function in (image_variants, image_plan, course_files, build_failure)}
