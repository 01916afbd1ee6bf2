# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A forward proxy for plain HTTP and for CONNECT, as a school has it. One line of its log is one request."""

from __future__ import annotations

import select
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Proxy(BaseHTTPRequestHandler):
    def relay(self, there):
        ends = {self.connection: there, there: self.connection}
        with there:
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def do_CONNECT(self):
        self.log_request("-")
        host, port = self.path.rsplit(":", 1)
        there = socket.create_connection((host, int(port)), timeout=60)
        self.send_response(200)
        self.end_headers()
        self.relay(there)

    def do_GET(self):
        url = urlsplit(self.path)
        there = socket.create_connection((url.hostname, url.port or 80), timeout=60)
        self.headers.replace_header("Connection", "close") if "Connection" in self.headers else self.headers.add_header("Connection", "close")
        request = f"{self.command} {url.path or '/'}{'?' + url.query if url.query else ''} HTTP/1.1\r\n{self.headers}"
        there.sendall(request.encode())
        self.close_connection = True
        self.log_request("-")
        with there:
            while data := there.recv(65536):
                self.wfile.write(data)

    do_HEAD = do_GET


ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Proxy).serve_forever()
