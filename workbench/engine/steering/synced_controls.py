"""Controls that all processes of a run obey at the same place."""

from workbench.engine.steering.controls import Command, Controls
from workbench.engine.steering.ranks import Ranks

_WORD_SECONDS = 0.25


class AgreedControls(Controls):
    """What the first process ``heard`` holds for all once they have met in :meth:`agree`, and not before.

    So a wish that comes in at any moment is seen by every process between the same two micro-steps, and nobody leaves
    while the others wait for it.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks
        self._heard = Controls()

    @property
    def heard(self) -> Controls:
        return self._heard

    def agree(self) -> bool:
        for wish in self._ranks.broadcast(self._news()) or ():
            if isinstance(wish, Command):
                self.give(wish)
            else:
                self.stop(save=wish)
        return self.is_stopped()

    def _news(self) -> list[Command | bool] | None:
        """What is new in the first process; the wish to stop is told as whether to save."""
        news: list[Command | bool] = []
        while command := self._heard.take():
            news.append(command)
        if self._heard.is_stopped() and not (self.is_stopped() and self._heard.save == self.save):
            news.append(self._heard.save)
        return news or None

    def wait(self, seconds: float | None = None) -> Command | None:
        """The next command, waited for in all processes at once; None when the run is to end."""
        while not self.agree():
            if command := self.take():
                return command
            # The others wait in the next agreement.
            if self._ranks.is_first:
                self._heard.wait_for_word(_WORD_SECONDS)
        return None
