"""The heavy libraries, imported by one thread at a time.

Two threads that import them for the first time together can meet each other's half-made modules: their imports are
circular in places.
"""

import threading
from contextlib import suppress
from importlib import import_module

_lock = threading.Lock()


def import_libraries() -> None:
    """Import what loading, training and trees need; at once when that has been done. Slow the first time."""
    with _lock:
        for name in ("torch", "transformers", "bitsandbytes", "peft", "trl"):
            # One that cannot be imported is told of by the first that needs it.
            with suppress(Exception):
                import_module(name)
