"""One of each of the two blows that bench/endurance.py deals twenty of: a lost line, a killed engine."""

import asyncio
import random

import pytest

from bench.endurance import enduring, kill_the_engine, lose_the_line, whole_run
from tests.conftest import tiny_recipe
from workbench.engine.client.process import stop_engine
from workbench.storage.paths import Home

STEPS = 40


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("endurance") / "home")
    yield home
    asyncio.run(stop_engine(home))


@pytest.fixture(scope="module")
def recipe(tiny_llama, records):
    return enduring(tiny_recipe(tiny_llama, records), STEPS)


def test_a_run_outlives_its_terminal_and_a_new_one_shows_all_of_it(home, recipe):
    assert not lose_the_line(home, recipe, random.Random(4))


def test_a_run_outlives_its_engine_to_the_same_adapter(home, recipe):
    assert not kill_the_engine(home, recipe, random.Random(5), whole_run(home, recipe))
