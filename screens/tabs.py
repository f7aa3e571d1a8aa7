"""The tabs of the app, in their order."""

from __future__ import annotations

from typing import NamedTuple


class Tab(NamedTuple):
    """A tab and where its content is found once it is wanted."""

    id: str
    label: str
    module: str
    pane: str


TABS = (
    Tab("models", "Models", "screens.models", "ModelsPane"),
    Tab("architecture", "Architecture", "screens.architecture", "ArchitecturePane"),
    Tab("adapter", "Adapter", "screens.adapter", "AdapterPane"),
    Tab("data", "Data", "screens.data", "DataPane"),
    Tab("train", "Train", "screens.train", "TrainPane"),
    Tab("chat", "Chat", "screens.chat", "ChatPane"),
    Tab("runs", "Runs", "screens.runs", "RunsPane"),
)
