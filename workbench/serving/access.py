"""Where the server listens and who may ask: a Unix socket or this machine's own address, with a token."""

import ipaddress
import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.storage.paths import private_folder


@dataclass(frozen=True)
class Access:
    """Where to listen, and the token that clients must send (empty: none).

    Attributes:
        path: a Unix socket; None to listen on ``host`` and ``port``.
    """

    path: Path | None
    host: str
    port: int
    token: str

    @property
    def is_local(self) -> bool:
        return self.path is not None or _is_loopback(self.host)

    @property
    def url(self) -> str:
        """The base URL for clients; for a Unix socket the one to use with the socket's path."""
        if self.path is not None:
            return "http://localhost/v1"
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    def at(self, listener: socket.socket) -> "Access":
        """With the port that a listening socket has got."""
        return self if self.path is not None else replace(self, port=listener.getsockname()[1])


def choose_access(
    path: Path | None, host: str, port: int, token_file: Path | None, *, no_token: bool, allow_remote: bool
) -> Access:
    """Check where to listen, and read or make the token.

    Raises:
        WorkbenchError: other machines could connect and that was not asked for twice, or not without a token; the
            token's file cannot be read or is empty.
    """
    is_local = path is not None or _is_loopback(host)
    if not is_local and not allow_remote:
        raise WorkbenchError(
            f"On {host} other machines could use the model.",
            "Listen on 127.0.0.1 and forward the port over ssh (`ssh -L`), or add --allow-remote.",
            kind="remote",
        )
    if no_token and not is_local:
        raise WorkbenchError(
            f"On {host} anybody who reaches this machine could use the model without a token.",
            "Omit --no-token.",
            kind="remote",
        )
    if no_token:
        return Access(path, host, port, "")
    if token_file is None:
        return Access(path, host, port, secrets.token_urlsafe(24))
    try:
        token = token_file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WorkbenchError(
            f"The token could not be read from {token_file}: {error}.", "Check the path.", kind="token"
        ) from None
    if not token:
        raise WorkbenchError(f"{token_file} is empty.", "Write the token into it.", kind="token")
    return Access(path, host, port, token)


def listen(access: Access) -> socket.socket:
    """Open the listening socket; a Unix socket has mode 0600 before anybody can connect.

    Raises:
        WorkbenchError: the address is in use or not this machine's.
    """
    try:
        if access.path is None:
            family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((access.host, access.port))
            return listener
        _remove_unused(access.path)
        if not access.path.parent.exists():
            private_folder(access.path.parent)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(access.path))
        access.path.chmod(0o600)
    except OSError as error:
        where = access.path or f"{access.host}:{access.port}"
        raise WorkbenchError(
            f"The server cannot listen on {where}: {error.strerror or error}.",
            "Choose another one with --port or --socket.",
            kind="address",
        ) from None
    return listener


def _remove_unused(path: Path) -> None:
    """Remove a socket that nobody listens on any more.

    Raises:
        OSError: somebody listens on it, or it is not a socket.
    """
    if not path.exists():
        return
    if not path.is_socket():
        raise OSError(None, "there is a file of that name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(None, "another server uses it")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
