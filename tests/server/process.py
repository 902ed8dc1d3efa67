"""`prism serve` as a user runs it: a process of its own, spoken to over sockets."""

import http.client
import json
import os
import signal
import subprocess
import sys

import psutil


def spawn_server(log, *arguments):
    """Start a server on any port, and do not wait for it."""
    with log.open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "prism", "serve", *map(str, arguments), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )


class ServerProcess:
    """A server that lets requests in once this is made.

    Args:
        log: file for what it says on stderr.
        arguments: of `prism serve`, without the port.
    """

    def __init__(self, log, *arguments):
        self._log = log
        self._process = spawn_server(log, *arguments)
        self.greeting = self._process.stdout.readline()
        assert self.greeting, log.read_text()
        self.port = int(self.greeting.split(";")[0].rpartition(":")[2])

    @property
    def address(self):
        """Host and port in one text."""
        return f"127.0.0.1:{self.port}"

    @property
    def said(self):
        """What it wrote on stderr so far."""
        return self._log.read_text()

    def connect(self):
        """Return a connection of its own."""
        return http.client.HTTPConnection("127.0.0.1", self.port)

    def ask(self, method, path, body=None, headers=()):
        """Return status, headers and body of a response."""
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def get(self, path, **headers):
        """Return status and JSON of a page."""
        status, _, body = self.ask("GET", path, headers=headers)
        return status, json.loads(body)

    def post(self, path, document, **headers):
        """Return status and JSON of the answer to a JSON document."""
        headers["Content-Type"] = "application/json"
        status, _, body = self.ask("POST", path, json.dumps(document), headers)
        return status, json.loads(body)

    def family(self):
        """Return the process and all it has started."""
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]

    def tell(self, number=signal.SIGTERM):
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self):
        """Wait until it has ended; return its exit code."""
        code = self._process.wait()
        self._process.stdout.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.tell()
            self.wait()
