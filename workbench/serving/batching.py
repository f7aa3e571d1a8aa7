"""Generates the replies of many requests at once, with transformers' continuous batching.

Each served model has a manager of its own, with its own cache of keys and values. All managers share the base in
memory: they take turns step by step, and each activates its adapter for its step.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from workbench.engine.model.adapters import ActiveAdapters, use_adapters
from workbench.engine.model.base import LoadedBase
from workbench.errors import WorkbenchError
from workbench.models.tokenizers import pad_token_id
from workbench.serving.draw import Draw, DrawEach

if TYPE_CHECKING:
    from transformers.generation.continuous_batching import ContinuousBatchingManager
    from transformers.generation.continuous_batching.requests import GenerationOutput

_PAGE_TOKENS = 32


class Batches:
    """Runs requests for several models on one base.

    Args:
        cache_tokens: how many tokens of keys and values each model may keep, for all of its requests together.
    """

    def __init__(self, base: LoadedBase, cache_tokens: int) -> None:
        self.cache_tokens = cache_tokens - cache_tokens % _PAGE_TOKENS
        self._base = base
        self._turn = threading.Lock()
        self._managers: dict[ActiveAdapters, ContinuousBatchingManager] = {}

    async def generate(
        self, adapters: ActiveAdapters, draw: Draw, max_new_tokens: int, ends: Sequence[int]
    ) -> AsyncGenerator[list[int], None]:
        """Continue ``draw.prompt``; yields the new tokens as they come. Closing it ends the request.

        Raises:
            WorkbenchError: the request failed, or the batch that it was in.
        """
        manager = await asyncio.to_thread(self._manager, adapters)
        outputs: asyncio.Queue[GenerationOutput] = asyncio.Queue()
        number, is_over, count = uuid4().hex, False, 0
        manager.register_result_handler(number, outputs.put_nowait)
        try:
            accepted = manager.add_request(
                list(draw.prompt), number, max_new_tokens, streaming=True, eos_token_id=list(ends), draw=draw
            )
            if accepted is None:
                raise WorkbenchError("The server is shutting down.", "Start it again.", kind="generation")
            while not is_over:
                output = await outputs.get()
                is_over = output.is_finished()
                if output.error is not None:
                    raise WorkbenchError(
                        f"The reply could not be generated: {output.error}.",
                        "Try again; if it happens again, restart the server.",
                        kind="generation",
                    )
                if new := output.generated_tokens[count:]:
                    count += len(new)
                    yield new
        finally:
            if not is_over:
                manager.cancel_request(number)
                manager.output_router.result_handlers.pop(number, None)

    def close(self) -> None:
        """End all requests and release the caches."""
        for manager in self._managers.values():
            manager.stop(block=True, timeout=5, hard_stop=True)
        self._managers.clear()

    def _manager(self, adapters: ActiveAdapters) -> "ContinuousBatchingManager":
        """The manager of a model; a new one if there is none yet, or its thread has ended with an error."""
        with self._turn:
            manager = self._managers.get(adapters)
            if manager is None or manager.background_thread_status.fatal_error is not None:
                manager = self._managers[adapters] = self._start(adapters)
            return manager

    def _start(self, adapters: ActiveAdapters) -> "ContinuousBatchingManager":
        from transformers import ContinuousBatchingConfig, GenerationConfig
        from transformers.generation.continuous_batching import ContinuousBatchingManager

        # Tokens are chosen on the host, which rules out CUDA graphs and batches that are prepared ahead.
        config = ContinuousBatchingConfig(
            page_size=_PAGE_TOKENS,
            num_blocks=self.cache_tokens // _PAGE_TOKENS,
            max_batch_tokens=min(self.cache_tokens, 4096),
            use_cuda_graph=False,
            use_async_batching=False,
            auto_switch_to_flash=False,
        )
        generation = GenerationConfig(
            do_sample=False, use_cache=False, eos_token_id=-1, pad_token_id=pad_token_id(self._base.tokenizer)
        )
        model = _WithAdapters(self._base, adapters, self._turn)
        manager = ContinuousBatchingManager(model, generation, config)
        manager.logit_processor = DrawEach()
        manager.start()
        return manager


class _WithAdapters:
    """The base as transformers' batching sees it, computing with certain adapters; one at a time takes its turn."""

    def __init__(self, base: LoadedBase, adapters: ActiveAdapters, turn: threading.Lock) -> None:
        self._base, self._adapters, self._turn = base, adapters, turn

    def __call__(self, **inputs: Any) -> Any:
        with self._turn, use_adapters(self._base, self._adapters):
            return self._base.model(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base.model, name)

    def eval(self) -> "_WithAdapters":
        return self
