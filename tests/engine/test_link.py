"""The line between the engine and one of its processes: whole objects, orders of the user, an end that is noticed."""

import socket

import pytest

from workbench.engine.distributed.link import Line, Peer, obey
from workbench.engine.steering.controls import Command, Controls


def test_an_object_comes_in_when_it_is_whole_and_a_closed_line_is_an_end():
    ours, theirs = socket.socketpair()
    line = Line(ours)
    theirs.sendall(b'{"paused": "yes"}\n{"pro')
    assert list(line.read(1)) == [{"paused": "yes"}]
    theirs.sendall(b'gress": null}\n')
    assert list(line.read(1)) == [{"progress": None}]
    assert list(line.read(0)) == []
    theirs.close()
    line.send(action="pause")
    with pytest.raises(EOFError):
        list(line.read(1))
    ours.close()


def test_a_peer_says_who_it_is_and_its_loss_is_noticed():
    ours, theirs = socket.socketpair()
    peer = Peer(ours)
    Line(theirs).send(rank=1, pid=1, started=0.0)
    peer.hear()
    assert peer.rank == 1
    assert peer.is_open
    theirs.close()
    peer.hear()
    assert not peer.is_open


def test_orders_reach_the_controls_of_the_run():
    controls = Controls()
    obey({"action": "learning_rate", "value": 0.001, "release": False}, controls)
    assert controls.take() == Command("learning_rate", 0.001)
    obey({"stop": True}, controls)
    assert controls.is_stopped()
