"""What a peer is told by its owner: flags over a topology file over `mfd.toml` over defaults.

Rules of this file: settings are checked whole before anything starts; secrets come from files,
never from flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mfd.cli.errors import Misuse, nearest, read_toml
from mfd.core.records import ADDRESSES_MAX, is_address
from mfd.net.addresses import parse_address, parse_listen
from mfd.net.keys import parse_peer_id
from mfd.topology.values import parse_bytes

__all__ = ["Settings", "SlowLink", "load_settings", "parse_hold", "read_secret"]

SECRET_BYTES_MAX = 4 << 10
SECRET_BYTES_MIN = 16
PATHS = ("state", "network_key_file", "api_token_file")


class SlowLink(BaseModel):
    """What an emulated link is like, each way; 0: like the one it runs over."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    latency_us: int = Field(0, ge=0, le=60_000_000)  # one way
    bandwidth_bps: int = Field(0, ge=0, le=10**13)  # bits a second
    loss: float = Field(0.0, ge=0.0, lt=1.0)  # part of the packets


class Settings(BaseModel):
    """Everything that `mfd.toml` may hold; relative paths are relative to that file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    listen: str = "127.0.0.1:0"  # port 0: any free one
    join: list[str] = Field(default_factory=list)  # host:port, or whole join lines
    hold: dict[str, str] = Field(default_factory=dict)  # data name -> address of the data
    state: str | None = None  # folder of key, ledger and objects
    network: str = Field("mfd", min_length=1, max_length=64)
    network_key_file: str | None = None  # a secret that all members share
    open_network: bool | None = None  # choose neighbours; not given: unless a topology tells them
    neighbours: int = Field(6, ge=3, le=64)  # wanted in an open network
    known: int = Field(32, ge=8, le=1024)  # others that could become neighbours
    links_max: int = Field(64, ge=1, le=4096)  # where links are given
    advertise: list[str] = Field(default_factory=list)  # where others dial this peer: host:port
    lan: bool = False  # find peers of the network on the LAN, and be found
    allow: list[str] | None = None  # peer ids; none given: everybody with the network's terms
    issuers: list[str] = Field(default_factory=list)  # ids whose tokens make holders members
    revoked: list[str] = Field(default_factory=list)  # as mfd token --revoke prints them
    token: str | None = None  # of this peer, as mfd token prints it
    custodian: bool = False  # take custody of walkers without holding data
    slots: int = Field(8, ge=1, le=10_000)  # walkers at work here or being received at once
    capacity: int = Field(0, ge=0, le=0xFFFF_FFFF)  # announced: such as samples a second; 0: untold
    errand_seconds: float = Field(120.0, ge=1, le=604_800)  # for one that others do for this peer
    lease_seconds: float = Field(60.0, ge=1, le=86_400)
    allow_py: bool = False  # py: data addresses run the owner's code
    task_seconds: float = Field(86_400.0, ge=1, le=31_536_000)  # of the trainer for one task
    threads: int = Field(0, ge=0, le=1024)  # of the trainer; 0: torch decides
    memory: str | int = 0  # for a model and its training, as 2GiB; 0: no limit
    whole: str | int = 0  # largest model taken as a whole, as 512MiB; of others parts; 0: any
    resident: str | None = None  # recipe of this peer's own model, which never travels
    tls: bool = False
    api_token_file: str | None = None  # opens the API to other machines, with this token
    costs: dict[str, int] = Field(default_factory=dict)  # peer id or address -> unit 10 us
    emulate: dict[str, SlowLink] | None = None  # address as joined -> its link; none: no emulation


def load_settings(path: Path | None, over: Mapping[str, Any]) -> Settings:
    """Merge a configuration file with what stands over it, and check the whole.

    Lists and tables add up; of single values the one in `over` counts. Raises: Misuse.
    """
    table = _read(path) if path is not None else {}
    if path is not None:
        _settled(table, str(path))  # what is wrong in the file is told as the file's
    for key, value in over.items():
        known = table.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            table[key] = {**known, **value}
        elif isinstance(value, list) and isinstance(known, list):
            table[key] = [*known, *value]
        elif known is None or not isinstance(value, dict | list):
            table[key] = value
    return _settled(table, "settings")


def _settled(table: Mapping[str, Any], where: str) -> Settings:
    """Check settings; `where` begins the sentence. Raises: Misuse."""
    try:
        settings = Settings.model_validate(table)
    except ValidationError as exc:
        raise Misuse(f"{where}: {_sentence(exc)}") from exc
    _check(settings, where)
    return settings


def _read(path: Path) -> dict[str, Any]:
    table = read_toml(path, "configuration")
    for key in PATHS:
        if isinstance(table.get(key), str):
            table[key] = str(path.parent / Path(table[key]).expanduser())
    return table


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"there is no setting {where!r}; {nearest(where, Settings.model_fields)}"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"


def _check(settings: Settings, where: str) -> None:
    """Check what has a form of its own. Raises: Misuse."""
    try:
        parse_listen(settings.listen)
        for name in ("memory", "whole"):
            try:
                parse_bytes(getattr(settings, name))
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from exc
        for address in settings.join:
            network = parse_address(address).network
            if network not in (None, settings.network):
                raise ValueError(
                    f"{address!r} leads into network {network!r}, but this peer is of "
                    f"network {settings.network!r}: set network, or use another join line"
                )
        wrong = [address for address in settings.advertise if not is_address(address)]
        if wrong or len(settings.advertise) > ADDRESSES_MAX:
            told = f"{wrong[0]!r} is not host:port" if wrong else f"at most {ADDRESSES_MAX}"
            raise ValueError(f"advertise: {told}; write addresses at which others reach this peer")
        for peer in settings.allow or []:
            try:
                parse_peer_id(peer)
            except ValueError as exc:
                raise ValueError(f"allow: {exc}") from exc
    except ValueError as exc:
        raise Misuse(f"{where}: {exc}") from exc


def parse_hold(text: str) -> tuple[str, str]:
    """Read `NAME=ADDRESS`. Raises: Misuse."""
    name, equals, address = text.partition("=")
    if not equals or not name or not address:
        raise Misuse(f"--hold {text}: write NAME=ADDRESS, such as digits/train=sklearn:digits")
    return name, address


def read_secret(path: str | None, what: str) -> bytes:
    """Read a secret from a file that only its owner can read; empty for no file. Raises: Misuse."""
    if path is None:
        return b""
    try:
        with Path(path).expanduser().open("rb") as file:
            if Path(path).expanduser().stat().st_mode & 0o077:
                raise Misuse(f"{what} {path} is open to others: run `chmod 600 {path}`")
            secret = file.read(SECRET_BYTES_MAX + 1).strip()
    except OSError as exc:
        raise Misuse(f"{what} {path} cannot be read: {exc.strerror}") from exc
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise Misuse(
            f"{what} {path} must hold {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes: "
            f"make one with `openssl rand -hex 32 > {path}`"
        )
    return secret
