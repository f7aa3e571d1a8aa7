"""Controls that apply each request at the same point in all processes of a run."""

from workbench.engine.steering.controls import Command, Controls
from workbench.engine.steering.ranks import Ranks

_POLL_SECONDS = 0.25


class SyncedControls(Controls):
    """Controls of a run in several processes.

    Requests arrive in the first process (``local``) and take effect in all of them at the next :meth:`sync`. So every
    process sees a request between the same two micro-steps, and none leaves while the others wait for it.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks
        self._local = Controls()

    @property
    def local(self) -> Controls:
        """The controls that receive requests in this process."""
        return self._local

    def sync(self) -> bool:
        """Apply in all processes what the first one received; returns whether the run should stop."""
        for request in self._ranks.broadcast(self._new_requests()) or ():
            if isinstance(request, Command):
                self.send(request)
            else:
                self.stop(save=request)
        return self.is_stopped()

    def ends_sampling(self) -> bool:
        """As in :class:`Controls`; a request counts before the other processes know of it: only one samples."""
        return super().ends_sampling() or self._local.ends_sampling()

    def _new_requests(self) -> list[Command | bool] | None:
        """Requests received since the last sync; a stop is represented by whether to save."""
        requests: list[Command | bool] = []
        while command := self._local.take():
            requests.append(command)
        if self._local.is_stopped() and not (self.is_stopped() and self._local.save == self.save):
            requests.append(self._local.save)
        return requests or None

    def wait(self, seconds: float | None = None) -> Command | None:
        """Wait in all processes for the next command and return it; None if the run should stop."""
        while not self.sync():
            if command := self.take():
                return command
            # The other processes wait in the next sync.
            if self._ranks.is_first:
                self._local.wait_for_request(_POLL_SECONDS)
        return None
