"""The connection between the engine and one of its processes: whole objects, the user's requests, a noticed end."""

import socket

import pytest

from workbench.engine.distributed.link import Connection, Peer, apply_message
from workbench.engine.steering.controls import Command, Controls


def test_an_object_arrives_when_it_is_whole_and_a_closed_connection_is_an_end():
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    theirs.sendall(b'{"paused": "yes"}\n{"pro')
    assert list(connection.read(1)) == [{"paused": "yes"}]
    theirs.sendall(b'gress": null}\n')
    assert list(connection.read(1)) == [{"progress": None}]
    assert list(connection.read(0)) == []
    theirs.close()
    connection.send({"action": "pause"})
    with pytest.raises(EOFError):
        list(connection.read(1))
    ours.close()


def test_a_peer_sends_its_rank_and_its_loss_is_noticed():
    ours, theirs = socket.socketpair()
    peer = Peer(ours)
    Connection(theirs).send({"rank": 1, "pid": 1, "started": 0.0})
    peer.receive()
    assert peer.rank == 1
    assert peer.is_open
    theirs.close()
    peer.receive()
    assert not peer.is_open


def test_requests_reach_the_controls_of_the_run():
    controls = Controls()
    apply_message({"action": "learning_rate", "value": 0.001, "release": False}, controls)
    assert controls.take() == Command("learning_rate", 0.001)
    apply_message({"stop": True}, controls)
    assert controls.is_stopped()
