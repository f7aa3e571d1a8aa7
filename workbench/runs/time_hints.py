"""What a run's time hints at: that the device waits for data, or computes padding. A hint never stops a run."""

from collections import deque
from collections.abc import Mapping

from workbench.runs.hints import Hint

WINDOW = 20
"""Points of the curve that are looked at together."""

_WAITS = 0.1
_PADS = 0.3


class TimeWatch:
    """Takes where the time of a run's steps went, point by point, and gives each kind of hint once.

    The first point is left out: caches are filled and kernels chosen in it.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)
        self._is_first = True
        self._told: set[str] = set()

    def see(self, parts: Mapping[str, float], padding: float) -> Hint | None:
        """Take one point into account.

        Args:
            parts: seconds of each part of its steps. padding: share of the computed places without a token.

        Returns:
            A hint, the first time that there is one of its kind.
        """
        if self._is_first:
            self._is_first = False
            return None
        self._recent.append((parts.get("data", 0.0), sum(parts.values()), padding))
        if len(self._recent) < WINDOW:
            return None
        hint = next((found for found in self._hints() if found.kind not in self._told), None)
        if hint is not None:
            self._told.add(hint.kind)
        return hint

    def _hints(self) -> list[Hint]:
        """What there is to tell; short, as Train has two lines for it."""
        whole = sum(seconds for _, seconds, _ in self._recent)
        waiting = sum(data for data, _, _ in self._recent) / whole if whole else 0.0
        padding = sum(share for _, _, share in self._recent) / WINDOW
        found = []
        if waiting > _WAITS:
            found.append(
                Hint(
                    "data",
                    f"The device waits for data {waiting:.0%} of the time.",
                    "Stop other CPU work, put LORAWORKBENCH_HOME on a local disk, or raise "
                    "per_device_train_batch_size.",
                )
            )
        if padding > _PADS:
            found.append(
                Hint(
                    "padding",
                    f"{padding:.0%} of the computed tokens are padding.",
                    "Use a smaller per_device_train_batch_size with more gradient_accumulation_steps, or "
                    "lower data.max_length.",
                )
            )
        return found
