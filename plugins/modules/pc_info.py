#!/usr/bin/python
# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pc_info
short_description: What a PC of the lab is, has and runs
description:
  - Reads in one go what must be known of a PC before it joins a Docker Swarm, and changes nothing.
  - Talks to the Docker engine over its socket by plain HTTP, so it needs neither the Docker SDK for Python nor the C(docker) command.
  - A PC without a Docker engine is described as well.
author:
  - the hpclab.swarm authors (@hpclab)
version_added: 0.1.0
requirements:
  - Python 3.8 or newer on the PC, Linux
  - root, to see which process listens on a port and to ask the engine
attributes:
  check_mode:
    description: Can run in check mode and return what it returns otherwise.
    support: full
  diff_mode:
    description: Never shows a difference, because it never makes one.
    support: none
options:
  ports:
    description:
      - Port numbers, TCP and UDP alike, that matter. RV(listeners) tells who listens on them.
    type: list
    elements: int
    default: [2377, 7946, 4789]
  packages:
    description:
      - Names of Debian packages. RV(packages) tells which of them are installed.
    type: list
    elements: str
    default: []
  files:
    description:
      - Paths of files. RV(files) tells which of them exist, and what those say that everybody may read,
        so that a role changes only what is not yet as it should be.
    type: list
    elements: path
    default: []
  records:
    description:
      - Directory in which the roles of this collection write down what they changed on the PC.
    type: path
    default: /etc/hpclab/record
seealso:
  - module: ansible.builtin.setup
  - module: community.docker.docker_host_info
"""

EXAMPLES = r"""
- name: Ask every PC at once
  hpclab.swarm.pc_info:
    packages: [docker.io, python3-docker]
  register: pc
  ignore_unreachable: true

- name: Show who holds Swarm's ports, how many cores the PC has, and its Swarm
  ansible.builtin.debug:
    msg: "{{ pc.listeners }} {{ pc.cores }} {{ pc.swarm.cluster_id }}"
  when: pc.hostname is defined
"""

RETURN = r"""
hostname:
  description: Host name, as the kernel says it and as Swarm will call the node.
  returned: success
  type: str
  sample: bob
machine_id:
  description: Content of C(/etc/machine-id). PCs whose disks were cloned have the same.
  returned: success
  type: str
  sample: 3d3bb2ba7bb14ab4a4a20b5f4c7d7f6c
os:
  description: The operating system, from C(/etc/os-release).
  returned: success
  type: dict
  contains:
    id:
      description: Name of the distribution.
      type: str
      sample: debian
    version:
      description: Its version.
      type: str
      sample: "12"
    codename:
      description: Its code name.
      type: str
      sample: bookworm
architecture:
  description: Machine architecture, as C(uname -m) says it.
  returned: success
  type: str
  sample: x86_64
cores:
  description:
    - Physical cores that processes of this PC may use. Of the logical CPUs in the scheduler's affinity mask, those with the
      same C(thread_siblings_list) are one core; a CPU whose topology is unknown counts as a core.
  returned: success
  type: int
  sample: 4
cpus:
  description: Logical CPUs that processes of this PC may use.
  returned: success
  type: int
  sample: 8
memory:
  description: Memory in bytes.
  returned: success
  type: int
  sample: 16724848640
disk:
  description: The file system on which the engine keeps, or will keep, its data.
  returned: success
  type: dict
  contains:
    path:
      description: The engine's data root, or C(/var/lib/docker).
      type: str
      sample: /var/lib/docker
    free:
      description: Bytes free for it.
      type: int
      sample: 83751862272
    total:
      description: Size in bytes.
      type: int
      sample: 250000000000
network:
  description: The interface of the default route (its elements are none, and the MTU 0, where there is no such route).
  returned: success
  type: dict
  contains:
    interface:
      description: Its name.
      type: str
      sample: enp3s0
    address:
      description: Its first IPv4 address.
      type: str
      sample: 192.168.10.11
    cidr:
      description: The network it is in.
      type: str
      sample: 192.168.10.0/24
    mtu:
      description: Its MTU.
      type: int
      sample: 1500
addresses:
  description: All IPv4 addresses of the PC.
  returned: success
  type: list
  elements: str
  sample: ["127.0.0.1", "192.168.10.11"]
routes:
  description: The IPv4 routes of the main table, without default routes.
  returned: success
  type: list
  elements: dict
  contains:
    interface:
      description: Interface that the route leads to.
      type: str
      sample: enp3s0
    cidr:
      description: Network that it reaches.
      type: str
      sample: 192.168.10.0/24
listeners:
  description: Sockets that listen on one of O(ports).
  returned: success
  type: list
  elements: dict
  contains:
    port:
      description: Port number.
      type: int
      sample: 2377
    protocol:
      description: V(tcp) or V(udp).
      type: str
      sample: tcp
    process:
      description: Name of the process that holds the socket; empty when it is the kernel or not known.
      type: str
      sample: dockerd
apparmor:
  description: Whether the kernel has AppArmor turned on.
  returned: success
  type: bool
  sample: true
snap:
  description: Paths that tell of a Docker engine from snap.
  returned: success
  type: list
  elements: str
  sample: ["/snap/docker"]
rootless:
  description: Sockets of rootless engines.
  returned: success
  type: list
  elements: str
  sample: ["/run/user/1000/docker.sock"]
dockerd:
  description: Path of an installed engine that root would start; empty when there is none.
  returned: success
  type: str
  sample: /usr/sbin/dockerd
engine:
  description: The engine that answers on C(/var/run/docker.sock), none when there is no answer.
  returned: success
  type: dict
  contains:
    id:
      description: Its identity. Engines on cloned disks have the same.
      type: str
      sample: GJNJ:WUA7:YDPM:HJU4:CIJA:FQAQ:L3KD:4YUL:AMBI:MLRJ:ZL67:HZUF
    name:
      description: What the engine calls its PC.
      type: str
      sample: bob
    version:
      description: Version.
      type: str
      sample: 20.10.24
    api_version:
      description: Newest version of the API that it speaks.
      type: str
      sample: "1.41"
    data_root:
      description: Where it keeps its data.
      type: str
      sample: /var/lib/docker
    storage_driver:
      description: Its storage driver.
      type: str
      sample: overlay2
    cgroup_version:
      description: Version of control groups.
      type: str
      sample: "2"
    rootless:
      description: Whether it runs without root.
      type: bool
      sample: false
    security_options:
      description: Its security options.
      type: list
      elements: str
      sample: ["name=seccomp,profile=default"]
    mirrors:
      description: Its registry mirrors.
      type: list
      elements: str
      sample: []
    http_proxy:
      description: Whether it goes through a proxy.
      type: bool
      sample: false
swarm:
  description: The engine's view of its Swarm.
  returned: success
  type: dict
  contains:
    state:
      description: V(inactive), V(pending), V(active), V(error) or V(locked); V(inactive) where no engine answers as well.
      type: str
      sample: active
    error:
      description: What the engine says is wrong.
      type: str
      sample: ""
    node_id:
      description: The node's identity; empty outside of a Swarm.
      type: str
      sample: 0p9ojjqepvjnqhlgyjx4zxe3k
    address:
      description: Address under which the Swarm knows the PC.
      type: str
      sample: 192.168.10.11
    manager:
      description: Whether the PC is a manager.
      type: bool
      sample: true
    remote_managers:
      description: Addresses of the managers that the PC knows.
      type: list
      elements: str
      sample: ["192.168.10.11:2377"]
    cluster_id:
      description: Identity of the Swarm, on managers; else empty.
      type: str
      sample: mv1v2ih8vc0eq1cp3wzzvm0cm
    address_pool:
      description: Address pool of the Swarm, on managers.
      type: list
      elements: str
      sample: ["10.213.0.0/16"]
    subnet_size:
      description: Prefix length of the networks taken from it, on managers; else 0.
      type: int
      sample: 24
    cert_expiry:
      description: How long node certificates last, in nanoseconds, on managers; else 0.
      type: int
      sample: 63072000000000000
    nodes:
      description: The Swarm's list of nodes, on managers.
      type: list
      elements: dict
      contains:
        id:
          description: Identity of the node.
          type: str
          sample: 0p9ojjqepvjnqhlgyjx4zxe3k
        name:
          description: Its host name.
          type: str
          sample: bob
        state:
          description: V(ready), V(down), V(disconnected) or V(unknown).
          type: str
          sample: ready
        role:
          description: V(manager) or V(worker).
          type: str
          sample: manager
        availability:
          description: V(active), V(pause) or V(drain).
          type: str
          sample: active
        address:
          description: Its address.
          type: str
          sample: 192.168.10.11
        labels:
          description: Its labels.
          type: dict
          sample: {"hpclab.cores": "4"}
sdk:
  description: Version of the Docker SDK for Python that this module's interpreter finds; empty when there is none.
  returned: success
  type: str
  sample: 5.0.3
packages:
  description: Versions of those of O(packages) that are installed.
  returned: success
  type: dict
  sample: {"docker.io": "20.10.24+dfsg1-1+b3"}
files:
  description: Those of O(files) that exist, by path.
  returned: success
  type: dict
  contains:
    mode:
      description: Permissions, in octal.
      type: str
      sample: "0644"
    content:
      description: Text of the file. Empty if not everybody may read it, if it is larger than 64 KiB, or no text.
      type: str
  sample: {"/etc/hostname": {"type": "file", "mode": "0644", "content": "bob\n"}}
records:
  description: What the roles wrote down on this PC, by role.
  returned: success
  type: dict
  sample: {"swarm_init": {"packages": ["docker.io"]}}
"""

import fcntl
import glob
import http.client
import importlib.util
import ipaddress
import json
import os
import re
import shutil
import stat
import socket
import struct
from importlib import metadata

from ansible.module_utils.basic import AnsibleModule

SOCKET = "/var/run/docker.sock"


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(resource, path=SOCKET):
    """What the engine answers, or None."""
    connection = EngineConnection(path)
    try:
        connection.request("GET", resource)
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def operating_system(text):
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.M))
    return {"id": release.get("ID", ""), "version": release.get("VERSION_ID", ""), "codename": release.get("VERSION_CODENAME", "")}


def cores(cpus, topology="/sys/devices/system/cpu"):
    siblings = (read("%s/cpu%d/topology/thread_siblings_list" % (topology, cpu)).strip() or "cpu%d" % cpu for cpu in cpus)
    return len(set(siblings))


def routes(table):
    """The routes of /proc/net/route, default routes included, lowest metric first."""
    found = []
    for line in table.splitlines()[1:]:
        field = line.split()
        address, mask = (socket.inet_ntoa(struct.pack("=L", int(field[i], 16))) for i in (1, 7))
        found.append((int(field[6]), {"interface": field[0], "cidr": str(ipaddress.ip_network("%s/%s" % (address, mask), strict=False))}))
    return [route for metric, route in sorted(found, key=lambda item: item[0])]


def addresses(trie):
    """The local addresses in /proc/net/fib_trie: each is a leaf with a line `/32 host LOCAL` below it."""
    found = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", trie)
    return sorted(set(found), key=ipaddress.ip_address)


def interface_address(interface):
    """First address of an interface and the network it is in (SIOCGIFADDR, SIOCGIFNETMASK)."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            address, mask = (socket.inet_ntoa(fcntl.ioctl(sock, number, request)[20:24]) for number in (0x8915, 0x891B))
        except OSError:
            return None, None
    return address, str(ipaddress.ip_network("%s/%s" % (address, mask), strict=False))


def network(default):
    if not default:
        return {"interface": None, "address": None, "cidr": None, "mtu": 0}
    interface = default[0]["interface"]
    address, cidr = interface_address(interface)
    return {"interface": interface, "address": address, "cidr": cidr, "mtu": int(read("/sys/class/net/%s/mtu" % interface) or 0)}


def sockets(protocol, table, ports):
    """(port, protocol, inode) of the listening sockets in /proc/net/tcp and the like."""
    state = "0A" if protocol == "tcp" else "07"
    for line in table.splitlines()[1:]:
        field = line.split()
        port = int(field[1].rsplit(":", 1)[1], 16)
        if field[3] == state and port in ports:
            yield port, protocol, field[9]


def holders(inodes):
    """Process names by inode of the sockets they hold."""
    found = {}
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            found[target[8:-1]] = read(link.split("/fd/")[0] + "/comm").strip()
    return found


def listeners(ports):
    found = [entry for table in ("tcp", "tcp6", "udp", "udp6")
             for entry in sockets(table[:3], read("/proc/net/" + table), ports)]
    names = holders({inode for port, protocol, inode in found}) if found else {}
    unique = sorted({(port, protocol, names.get(inode, "")) for port, protocol, inode in found})
    return [{"port": port, "protocol": protocol, "process": process} for port, protocol, process in unique]


def installed(status, packages):
    """Versions of installed packages, from dpkg's status file."""
    found = {}
    for package in packages:
        entry = re.search(r"^Package: %s\nStatus: \S+ \S+ installed\n(?:.+\n)*?Version: (.+)$" % re.escape(package), status, re.M)
        if entry:
            found[package] = entry.group(1)
    return found


def sdk():
    """Found without importing it, which would take half a second."""
    try:
        return metadata.version("docker") if importlib.util.find_spec("docker") and importlib.util.find_spec("requests") else ""
    except metadata.PackageNotFoundError:
        return ""


def engine(info, version):
    if not info or not version:
        return None
    options = info.get("SecurityOptions") or []
    return {
        "id": info.get("ID", ""),
        "name": info.get("Name", ""),
        "version": version.get("Version", ""),
        "api_version": version.get("ApiVersion", ""),
        "data_root": info.get("DockerRootDir", ""),
        "storage_driver": info.get("Driver", ""),
        "cgroup_version": info.get("CgroupVersion", ""),
        "rootless": any("name=rootless" in option for option in options),
        "security_options": options,
        "mirrors": (info.get("RegistryConfig") or {}).get("Mirrors") or [],
        # not the proxy itself: a password may be in it
        "http_proxy": bool(info.get("HttpProxy") or info.get("HttpsProxy")),
    }


def swarm(info, nodes):
    swarm_info = (info or {}).get("Swarm") or {}
    cluster = swarm_info.get("Cluster") or {}
    return {
        "state": swarm_info.get("LocalNodeState") or "inactive",
        "error": swarm_info.get("Error") or "",
        "node_id": swarm_info.get("NodeID") or "",
        "address": swarm_info.get("NodeAddr") or "",
        "manager": bool(swarm_info.get("ControlAvailable")),
        "remote_managers": [manager["Addr"] for manager in swarm_info.get("RemoteManagers") or []],
        "cluster_id": cluster.get("ID") or "",
        "address_pool": cluster.get("DefaultAddrPool") or [],
        "subnet_size": cluster.get("SubnetSize") or 0,
        "cert_expiry": ((cluster.get("Spec") or {}).get("CAConfig") or {}).get("NodeCertExpiry") or 0,
        "nodes": [{
            "id": node["ID"],
            "name": node["Description"].get("Hostname", ""),
            "state": node["Status"].get("State", "unknown"),
            "role": node["Spec"]["Role"],
            "availability": node["Spec"]["Availability"],
            "address": node["Status"].get("Addr", ""),
            "labels": node["Spec"].get("Labels") or {},
        } for node in nodes or []],
    }


def disk(path):
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    state = os.statvfs(existing)
    return {"path": path, "free": state.f_bavail * state.f_frsize, "total": state.f_blocks * state.f_frsize}


def files(paths):
    """Types and modes of the files that exist, and what everybody may read of them: never a private key."""
    found = {}
    for path in paths:
        try:
            status = os.stat(path)
            content = b""
            if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_size <= 64 * 1024:
                with open(path, "rb") as stream:
                    content = stream.read()
        except OSError:
            continue
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        kind = "link" if os.path.islink(path) else "directory" if stat.S_ISDIR(status.st_mode) else "file"
        found[path] = {"type": kind, "mode": "%04o" % stat.S_IMODE(status.st_mode), "content": text}
    return found


def records(directory):
    found = {}
    for path in sorted(glob.glob(os.path.join(directory, "*.json"))):
        try:
            found[os.path.basename(path)[:-5]] = json.loads(read(path))
        except ValueError:
            continue
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": [2377, 7946, 4789]},
            "packages": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "records": {"type": "path", "default": "/etc/hpclab/record"},
        },
        supports_check_mode=True,
    )
    info = ask("/info")
    manager = ((info or {}).get("Swarm") or {}).get("ControlAvailable")
    table = routes(read("/proc/net/route"))
    cpus = os.sched_getaffinity(0)
    memory = re.search(r"^MemTotal:\s+(\d+)", read("/proc/meminfo"), re.M)
    module.exit_json(
        changed=False,
        hostname=os.uname().nodename,
        machine_id=read("/etc/machine-id").strip(),
        os=operating_system(read("/etc/os-release")),
        architecture=os.uname().machine,
        cores=cores(cpus),
        cpus=len(cpus),
        memory=int(memory.group(1)) * 1024 if memory else 0,
        disk=disk((info or {}).get("DockerRootDir") or "/var/lib/docker"),
        network=network([route for route in table if route["cidr"] == "0.0.0.0/0"]),
        addresses=addresses(read("/proc/net/fib_trie")),
        routes=[route for route in table if route["cidr"] != "0.0.0.0/0"],
        listeners=listeners(set(module.params["ports"])),
        apparmor=read("/sys/module/apparmor/parameters/enabled").startswith("Y"),
        snap=[path for path in ("/snap/docker", "/var/snap/docker") if os.path.exists(path)],
        rootless=sorted(glob.glob("/run/user/*/docker.sock")),
        dockerd=shutil.which("dockerd", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin") or "",
        engine=engine(info, ask("/version")),
        swarm=swarm(info, ask("/nodes") if manager else None),
        sdk=sdk(),
        packages=installed(read("/var/lib/dpkg/status"), module.params["packages"]),
        files=files(module.params["files"]),
        records=records(module.params["records"]),
    )


if __name__ == "__main__":
    main()
