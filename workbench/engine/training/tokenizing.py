"""A run's records on their way to tokens, while its base is still being loaded."""

import threading
from collections.abc import Callable
from typing import Any

from workbench.data.encode import EncodedData, encode_dataset
from workbench.data.sources import Records, load_records, needs_hub
from workbench.data.templates.template import Template
from workbench.engine.steering.ranks import Ranks
from workbench.progress import Progress
from workbench.recipe.schema import DataSection
from workbench.storage.paths import Home

Report = Callable[[Progress], None]
_PROGRESS = Progress(phase="tokenising")


class Tokenising:
    """Begun as soon as there is a tokenizer, or not before :meth:`result` is asked for where nothing was loaded.

    Records on this machine are opened at once: most mistakes in them are told before a model is fetched or loaded.
    Several processes tokenise after they have loaded, for what they wait for each other in must come in one order.

    Args:
        cancelled: ends it with ``kind="cancelled"``.

    Raises:
        WorkbenchError: there are no such records, or they have no known format.
    """

    def __init__(self, home: Home, data: DataSection, ranks: Ranks, cancelled: Callable[[], bool]) -> None:
        self._home = home
        self._section = data
        self._ranks = ranks
        self._cancelled = cancelled
        is_here = ranks.count == 1 and not needs_hub(data.source)
        self._records = load_records(data, home) if is_here else None
        self._is_abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        self._progress = _PROGRESS
        self._done: EncodedData | None = None
        self._error: Exception | None = None

    def begin(self, tokenizer: Any) -> None:
        """Tokenise in the background.

        Raises:
            WorkbenchError: the template cannot be used.
        """
        if self._ranks.count > 1:
            return
        self._thread = threading.Thread(
            target=self._work, args=(self._template(tokenizer),), name="tokenise", daemon=True
        )
        self._thread.start()

    def result(self, tokenizer: Any, report: Report) -> EncodedData:
        """The tokens, waited for or made now.

        Raises:
            WorkbenchError: as :func:`~workbench.data.encode.encode_dataset`, and as :meth:`begin`.
        """
        report(_PROGRESS)
        if self._thread is None:
            # One process of each machine brings the data there; the others then read the same records.
            records = self._ranks.first_before_others(self._opened)
            return encode_dataset(records, self._template(tokenizer), self._section, report, self._cancelled)
        while self._thread.is_alive():
            self._thread.join(0.25)
            report(self._progress)
        if self._error is not None:
            raise self._error
        assert self._done is not None
        return self._done

    def abandon(self) -> None:
        """Nobody will ask for the result."""
        self._is_abandoned.set()

    def _template(self, tokenizer: Any) -> Template:
        return Template.for_model(tokenizer, self._section.template, self._section.system)

    def _opened(self) -> Records:
        return self._records or load_records(self._section, self._home)

    def _work(self, template: Template) -> None:
        try:
            self._done = encode_dataset(self._opened(), template, self._section, self._show, self._is_unwanted)
        except Exception as error:
            self._error = error

    def _show(self, progress: Progress) -> None:
        self._progress = progress

    def _is_unwanted(self) -> bool:
        return self._is_abandoned.is_set() or self._cancelled()
