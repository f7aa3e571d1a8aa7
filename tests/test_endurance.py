"""A few of the blows that bench/endurance.py deals twenty of: a lost line, a killed engine."""

import asyncio
import random

import pytest

from bench.endurance import enduring, kill_the_engine, lose_the_line, whole_run
from workbench.engine.client.process import stop_engine
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    asyncio.run(stop_engine(home))


def test_a_run_outlives_its_terminal_and_a_new_one_shows_all_of_it(home, recipe):
    draw = random.Random(4)
    for _ in range(2):
        assert not lose_the_line(home, enduring(recipe), draw)


def test_a_run_outlives_its_engine_to_the_same_adapter(home, recipe):
    draw = random.Random(5)
    whole = whole_run(home, enduring(recipe))
    for _ in range(2):
        assert not kill_the_engine(home, enduring(recipe), draw, whole)
