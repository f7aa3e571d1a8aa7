"""The command that forwards a server's port to the user's own machine."""

import getpass
import os


def ssh_line(port: int) -> str:
    """``ssh -L 8000:127.0.0.1:8000 me@server``, with user and host as this ssh session knows them."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    host = connection[2] if len(connection) == 4 else os.uname().nodename
    return f"ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@{host}"
