"""Where a server may listen, and who may use it."""

import stat

import pytest

from workbench.errors import WorkbenchError
from workbench.serving.access import choose_access, listen


def _choose(path=None, host="127.0.0.1", port=0, token_file=None, *, no_token=False, allow_remote=False):
    return choose_access(path, host, port, token_file, no_token=no_token, allow_remote=allow_remote)


def test_a_server_has_a_token_of_its_own_by_default(tmp_path):
    one, other = _choose(), _choose()
    assert len(one.token) >= 32
    assert one.token != other.token
    assert _choose(no_token=True).token == ""
    (tmp_path / "token").write_text(" sesame\n")
    assert _choose(token_file=tmp_path / "token").token == "sesame"
    assert _choose(host="::1", port=80).url == "http://[::1]:80/v1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "other machines could use the model"),
        ({"host": "::"}, "other machines could use the model"),
        ({"host": "example.org"}, "other machines could use the model"),
        ({"host": "0.0.0.0", "allow_remote": True, "no_token": True}, "without a token"),
    ],
)
def test_other_machines_are_let_in_only_when_asked_twice_and_with_a_token(options, words):
    with pytest.raises(WorkbenchError) as error:
        _choose(**options)
    assert words in error.value.message
    assert not _choose(host="0.0.0.0", allow_remote=True).is_local


def test_a_token_that_cannot_be_read_or_is_empty_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    for name in ("empty", "missing"):
        with pytest.raises(WorkbenchError, match=name):
            _choose(token_file=tmp_path / name)


def test_a_socket_is_its_owners_alone_and_an_abandoned_one_is_replaced(tmp_path):
    path = tmp_path / "sockets" / "serve"
    with listen(_choose(path)) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        listener.listen()
        with pytest.raises(WorkbenchError, match="another server uses it"):
            listen(_choose(path))
    listen(_choose(path)).close()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(WorkbenchError, match="there is a file of that name"):
        listen(_choose(path))
    assert path.read_text() == "mine"


def test_a_port_in_use_is_a_sentence():
    with listen(_choose()) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        assert _choose().at(listener).port == port
        with pytest.raises(WorkbenchError, match=f"cannot listen on 127.0.0.1:{port}"):
            listen(_choose(port=port))
    listen(_choose(port=port)).close()
