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
    Tab("models", "Models", "screens.models.pane", "ModelsPane"),
    Tab("architecture", "Architecture", "screens.architecture.pane", "ArchitecturePane"),
    Tab("adapter", "Adapter", "screens.adapter.pane", "AdapterPane"),
    Tab("data", "Data", "screens.data.pane", "DataPane"),
    Tab("train", "Train", "screens.train.pane", "TrainPane"),
    Tab("chat", "Chat", "screens.chat.pane", "ChatPane"),
    Tab("runs", "Runs", "screens.runs.pane", "RunsPane"),
)
