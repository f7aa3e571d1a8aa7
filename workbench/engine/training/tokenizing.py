"""Tokenizes a run's records in the background while its base is being loaded."""

import threading
from typing import TYPE_CHECKING

from workbench.data.open_source import needs_hub
from workbench.data.sources import Records, load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import EncodedData, encode_dataset
from workbench.engine.steering.ranks import Ranks
from workbench.progress import Cancelled, Progress, Report
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROGRESS = Progress(phase="tokenizing")


class BackgroundTokenizing:
    """Tokenizes records in a thread, from :meth:`begin` on; without it, :meth:`result` does the work.

    Local records are opened at once, so that most mistakes in them are reported before a model is downloaded or loaded.
    Several processes tokenize in :meth:`result`, since they must wait for each other in the same order.

    Args:
        cancelled: once true, tokenizing ends with ``kind="cancelled"``.

    Raises:
        WorkbenchError: the records do not exist, or have no known format.
    """

    def __init__(self, home: Home, recipe: Recipe, ranks: Ranks, cancelled: Cancelled) -> None:
        self._home = home
        self._section = data = recipe.data
        self._kind = recipe.objective.spec.records
        self._ranks = ranks
        self._cancelled = cancelled
        is_local = ranks.count == 1 and not needs_hub(data.source)
        self._records = load_records(data, home, kind=self._kind) if is_local else None
        self._is_abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        self._progress = _PROGRESS
        self._result: EncodedData | None = None
        self._error: Exception | None = None

    def begin(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Start tokenizing in the background; does nothing if there are several processes.

        Raises:
            WorkbenchError: the template cannot be used.
        """
        if self._ranks.count > 1:
            return
        self._thread = threading.Thread(
            target=self._work, args=(self._template(tokenizer),), name="tokenize", daemon=True
        )
        self._thread.start()

    def result(self, tokenizer: "PreTrainedTokenizerBase", report: Report) -> EncodedData:
        """Wait for the tokens, or tokenize now.

        Raises:
            WorkbenchError: as :func:`~workbench.data.tokens.encode.encode_dataset`, and as :meth:`begin`.
        """
        report(_PROGRESS)
        if self._thread is None:
            # One process of each machine downloads the data first; the others then read the same records.
            records = self._ranks.first_before_others(self._open_records)
            return encode_dataset(records, self._template(tokenizer), self._section, report, self._cancelled)
        while self._thread.is_alive():
            self._thread.join(0.25)
            report(self._progress)
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def abandon(self) -> None:
        """Stop tokenizing, since the result is no longer needed."""
        self._is_abandoned.set()

    def _template(self, tokenizer: "PreTrainedTokenizerBase") -> Template:
        return Template.for_model(tokenizer, self._section.template, self._section.system)

    def _open_records(self) -> Records:
        return self._records or load_records(self._section, self._home, kind=self._kind)

    def _work(self, template: Template) -> None:
        try:
            self._result = encode_dataset(
                self._open_records(), template, self._section, self._store_progress, self._should_stop
            )
        except Exception as error:
            self._error = error

    def _store_progress(self, progress: Progress) -> None:
        self._progress = progress

    def _should_stop(self) -> bool:
        return self._is_abandoned.is_set() or self._cancelled()
