# SPDX-License-Identifier: Apache-2.0
"""How commands reach a server as its operator: the option that names its socket, and one question.

Whoever may open the socket may do everything there; the kernel says who that is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from troth.errors import ConfigurationError, DecodeError

if TYPE_CHECKING:
    from troth.adapters.operator_client import OperatorClient

__all__ = [
    "ADMIN_SOCKET_VARIABLE",
    "Operator",
    "admin_socket_option",
    "ask_server",
    "server_option",
    "usual_admin_socket",
]

ADMIN_SOCKET_VARIABLE: Final = "TROTH_ADMIN_SOCKET"
"""Environment variable that names the socket where --admin-socket does not."""

_USUAL: Final = Path("/var/lib/troth/admin.sock")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def admin_socket_option(help_text: str) -> Callable[[F], F]:
    """Return the option `--admin-socket`; None where it is not given."""
    return click.option("--admin-socket", metavar="PATH", help=help_text)


def usual_admin_socket() -> str:
    """Return the socket to use where the option is not given: of the environment, or the usual one.

    Raises:
        ConfigurationError: there is none at either place.
    """
    named = os.environ.get(ADMIN_SOCKET_VARIABLE)
    if named:
        return named
    if _USUAL.is_socket():
        return str(_USUAL)
    raise ConfigurationError(
        source="--admin-socket",
        accepted=f"the server's socket (admin.sock in its data_dir), or {ADMIN_SOCKET_VARIABLE}; "
        f"there is none at {_USUAL}",
    )


def server_option() -> Callable[[F], F]:
    """Return the option `--admin-socket` of commands that always ask a server."""
    return admin_socket_option(
        "Socket of the server. Default: TROTH_ADMIN_SOCKET, or the usual one."
    )


class Operator:
    """Asks and tells one server, a request at a time; errors are those of `ask_server`."""

    def __init__(self, socket: str | None) -> None:
        """Take the socket of the option, or the usual one.

        Raises:
            ConfigurationError: there is none.
        """
        self._socket = socket or usual_admin_socket()

    def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - a JSON tree
        """Return what is at `path`."""
        return self._do(lambda client: client.get(path, **query))

    def post(self, path: str, message: object = None, **query: str | int) -> Any:  # noqa: ANN401 - a JSON tree
        """Post `message` as JSON."""
        body = {} if message is None else message
        return self._do(lambda client: client.post(path, body, **query))

    def put(self, path: str, message: object) -> Any:  # noqa: ANN401 - a JSON tree
        """Put `message` as JSON."""
        return self._do(lambda client: client.put(path, message))

    def delete(self, path: str) -> Any:  # noqa: ANN401 - a JSON tree
        """Delete what is at `path`."""
        return self._do(lambda client: client.delete(path))

    def _do(self, request: Callable[[OperatorClient], Awaitable[Any]]) -> Any:  # noqa: ANN401 - a JSON tree
        from troth.adapters.operator_client import OperatorClient  # noqa: PLC0415 - start-up time

        async def do() -> Any:  # noqa: ANN401 - a JSON tree
            async with OperatorClient(Path(self._socket)) as client:
                return await request(client)

        return asyncio.run(do())


def ask_server(
    socket: str,
    path: str,
    *,
    kind: type[T],
    post: bytes | None = None,
    **query: str | int,
) -> T:
    """Return a server's answer.

    Args:
        socket: of the server.
        path: of the route.
        kind: what the answer is to be read as.
        post: post this body instead of asking with GET.
        query: parameters.

    Raises:
        UnavailableError: no server answers there.
        DecodeError: the answer is no `kind`: the server is of another version.
        TrothError: what the server answered instead.
    """
    from troth.adapters.operator_client import OperatorClient  # noqa: PLC0415 - start-up time

    async def ask() -> Any:  # noqa: ANN401 - a JSON tree
        async with OperatorClient(Path(socket)) as client:
            if post is None:
                return await client.get(path, **query)
            return await client.post(path, post, **query)

    answer = asyncio.run(ask())
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as exc:
        raise DecodeError(str(exc), format=f"reply to {path}") from exc
