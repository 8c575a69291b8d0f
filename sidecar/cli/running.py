"""Finds the running sidecar of a command: the only one here, or the one that the options name."""

import argparse
import os
from typing import Any

from sidecar.app.local_socket import DEFAULT, CannotAsk, Running, at, running
from sidecar.common.encoding import host_and_port
from sidecar.common.loopback import from_here

NONE_HERE = (
    f"no sidecar of yours runs here, and none answers at {DEFAULT}; start one, or name its listener with --admin URL"
)


def add_options(command: argparse.ArgumentParser, of_config: str = "the sidecar that runs with this file") -> None:
    """The options that name one, where several run; `of_config` is what the help says of -c."""
    which = command.add_mutually_exclusive_group()
    which.add_argument("--pid", type=int, help="the sidecar with this process id")
    which.add_argument("-c", "--config", metavar="FILE", help=of_config)
    which.add_argument(
        "--admin",
        metavar="URL",
        help=f"the sidecar whose admin listener is at this URL (default: the only one here, or {DEFAULT})",
    )


def chosen(options: argparse.Namespace) -> Running:
    """The chosen sidecar. Raises CannotAsk, and ValueError for options that name none."""
    if options.admin is not None:
        return at(options.admin)
    found = running()
    if options.pid is not None:
        found = [one for one in found if one.pid == options.pid]
        if not found:
            raise CannotAsk(f"--pid {options.pid}: none of your sidecars has this process id")
    elif options.config is not None:
        found = [one for one in found if _runs_with(one, options.config)]
        if not found:
            return at(_admin_url(options.config))
    if len(found) > 1:
        raise CannotAsk(f"several sidecars run here; choose one: {'; '.join(map(_named, found))}")
    return found[0] if found else at(DEFAULT, NONE_HERE)


def who(about: dict[str, Any]) -> str:
    """A running sidecar for messages; `about` is its own answer."""
    file = about["configuration"]["file"]
    return f"pid {about['pid']}, {about['listens']}" + (f", {file}" if file else "")


def _named(one: Running) -> str:
    try:
        return f"--pid {one.pid} ({who(one.ask('GET', '/sidecar'))})"
    except CannotAsk:
        return f"--pid {one.pid} (does not answer)"


def _runs_with(one: Running, file: str) -> bool:
    try:
        used = one.ask("GET", "/sidecar")["configuration"]["file"]
    except CannotAsk:
        return False
    return used is not None and os.path.realpath(used) == os.path.realpath(file)


def _admin_url(file: str) -> str:
    """The URL of the file's admin listener. Raises ValueError if it is unknown."""
    from sidecar.config import ConfigError, load

    try:
        host, port = load(file).admin.listen
    except ConfigError as error:
        raise ValueError(f"no sidecar runs with {file} here, and its admin.listen cannot be read:\n{error}") from None
    if port == 0:
        raise ValueError(
            f"no sidecar runs with {file} here, and its admin.listen has port 0, so the port is printed only at the start; "
            "name it with --admin"
        )
    return f"http://{host_and_port(from_here(host), port)}"
