"""Runs the server until it is asked to end: loads the models, listens, answers."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from workbench.serving.api import Api
from workbench.serving.batching import Batches
from workbench.serving.finished import Finished
from workbench.serving.models import Served
from workbench.storage.paths import Home

_CPU_CACHE_TOKENS = 8192
_GPU_SHARE = 0.8


class Server:
    """Serves what was loaded.

    Args:
        token: what clients must send as their API key; empty asks for none.
        cache_tokens: how many tokens of keys and values each model may keep; None: 8,192 on a CPU, and on a GPU what
            fits into 80 % of its free memory, shared equally.
        report: called at the end of each request.
    """

    def __init__(
        self, home: Home, served: Served, token: str, cache_tokens: int | None, report: Callable[[Finished], None]
    ) -> None:
        self.cache_tokens = cache_tokens or cache_tokens_that_fit(served)
        self._batches = Batches(served.base, self.cache_tokens)
        self._app = Api(served, self._batches, token, home.terminal_log, report).app()

    async def run(self, listener: socket.socket, is_ending: asyncio.Event) -> None:
        """Answer requests until ``is_ending`` is set; those that still run are then canceled."""
        config = uvicorn.Config(
            self._app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await is_ending.wait()
        finally:
            server.should_exit = True
            await running
            await asyncio.to_thread(self._batches.close)


class _Server(uvicorn.Server):
    """A server that does not handle signals: the command does."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def cache_tokens_that_fit(served: Served) -> int:
    """Tokens of keys and values per model that fit into the device's free memory."""
    import torch

    if served.base.device.type != "cuda":
        return _CPU_CACHE_TOKENS
    free, _ = torch.cuda.mem_get_info(served.base.device)
    return max(int(free * _GPU_SHARE / len(served.models) / _bytes_per_token(served)), 1024)


def _bytes_per_token(served: Served) -> int:
    """Bytes of the keys and values of one token in all layers, at the width of the widest attention."""
    config = served.base.model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * width * served.base.model.dtype.itemsize)
