"""What the user wants of a live run, told from the API's thread to the one that trains."""

import threading


class Stop:
    """The wish to end a run, with or without its adapter saved."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.save = True

    def ask(self, *, save: bool) -> None:
        self.save = save
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()
