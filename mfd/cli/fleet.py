"""Several `mfd-peer` processes on this machine: started from one topology, watched, stopped.

Rules of this file: a peer is a real process with its own folder; nothing is shared but the wires.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Any, Self

from mfd.cli.client import Client
from mfd.cli.errors import CommandError
from mfd.topology import Topology, TopologyError, dump

__all__ = ["Fleet", "Member", "with_free_ports"]

STOP_SECONDS = 5.0
Json = dict[str, Any]


@dataclass(slots=True)
class Member:
    """One peer of the fleet."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    peer: str = ""
    client: Client | None = None
    drain: Thread | None = None  # copies what the peer says to its log

    def why_ended(self) -> str:
        """One sentence about a process that is not there any more."""
        code = self.process.poll()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        words = [line for line in lines if line.strip() and not line.startswith("{")]
        said = f": {words[-1]}" if words else ""  # lines of JSON are reports, not last words
        return f"peer {self.name} has ended with {how}{said} (log: {self.log})"


def with_free_ports(topology: Topology) -> Topology:
    """Give every node a port on the loopback address that is free now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in topology.nodes]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    nodes = {
        name: replace(node, address=f"127.0.0.1:{port}")
        for (name, node), port in zip(topology.nodes.items(), ports, strict=True)
    }
    return replace(topology, nodes=nodes)


class Fleet:
    """A context manager: peers run inside, and are stopped and waited for on the way out."""

    def __init__(
        self,
        topology: Topology,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        emulate: bool = False,
    ) -> None:
        self.topology = topology
        self._emulate = emulate
        self.folder = folder
        self.members: dict[str, Member] = {}
        self._settings = settings

    def __enter__(self) -> Self:
        self._write_settings()
        try:
            for name in self.topology.nodes:
                self.members[name] = self._start(name)
            for member in self.members.values():
                self._wait_started(member)
        except BaseException:  # whatever it was, no process is left behind
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _write_settings(self) -> None:
        """Write what every member reads. Raises: CommandError."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in self._settings.items()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            dump(self.topology, self.folder / "topology.toml")
            (self.folder / "mfd.toml").write_text("\n".join(lines) + "\n")
        except TopologyError as exc:
            raise CommandError(str(exc)) from exc
        except OSError as exc:
            raise CommandError(f"{self.folder} cannot be written: {exc.strerror}") from exc

    def _start(self, name: str) -> Member:
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", "mfd.cli.peer", "--json"]
        command += ["--topology", str(self.folder / "topology.toml"), "--node", name]
        command += ["--config", str(self.folder / "mfd.toml"), "--state", str(self.folder / name)]
        command += ["--emulate"] if self._emulate else []
        command += ["--until-eof"]  # whatever happens to us, our end of the pipe closes
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for us; we stop them in order
            )
        return Member(name, process, log)

    def _wait_started(self, member: Member) -> None:
        """Read the first line; the rest goes to the log. Raises: CommandError."""
        assert member.process.stdout is not None
        line = member.process.stdout.readline()
        try:
            told = json.loads(line)
            member.peer, status = told["peer"], told["status"]
        except (ValueError, KeyError, TypeError) as error:
            member.process.wait(STOP_SECONDS)
            raise CommandError(member.why_ended()) from error
        member.client = Client(status)
        arguments = (member.process.stdout, member.log)
        member.drain = Thread(target=_drain, args=arguments, daemon=True)
        member.drain.start()

    def client(self, name: str) -> Client:
        """The API of a running member."""
        client = self.members[name].client
        assert client is not None
        return client

    def ended(self) -> list[Member]:
        """Members whose process is gone."""
        return [m for m in self.members.values() if m.process.poll() is not None]

    def why_gone(self, name: str) -> str:
        """Why a member that does not answer has ended; empty if it runs on."""
        member = self.members[name]
        try:
            member.process.wait(STOP_SECONDS)  # its sockets close before it can be waited for
        except subprocess.TimeoutExpired:
            return ""
        return member.why_ended()

    def names(self) -> dict[str, str]:
        """Peer id -> node name."""
        return {member.peer: name for name, member in self.members.items()}

    def sent_bytes(self) -> int:
        """Everything that members have written to sockets of the overlay so far."""
        total = 0
        for name, member in self.members.items():
            if member.process.poll() is None:
                told = self.client(name).get("status")["bytes"]
                total += told.get("control_out", 0) + told.get("bulk_out", 0)
        return total

    def stop(self) -> None:
        """Stop all at once and wait; kill what does not stop."""
        running = [m.process for m in self.members.values() if m.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for member in self.members.values():
            if member.process.stdin is not None:
                member.process.stdin.close()
            if member.drain is not None:
                member.drain.join()
            elif member.process.stdout is not None:
                member.process.stdout.close()


def _drain(stream: IO[str], log: Path) -> None:
    with stream, log.open("a") as file:
        for line in stream:
            file.write(line)
            file.flush()
