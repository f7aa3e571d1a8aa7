"""Watches the step times of a run and gives hints when the device waits for data or computes much padding."""

from collections import deque
from collections.abc import Mapping

from workbench.runs.hints.loss import Hint

WINDOW = 20
"""How many logged points are judged together."""

_DATA_SHARE = 0.1
_PADDING_SHARE = 0.3


class TimeWatch:
    """Follows the step times of a run and gives each kind of hint once.

    The first point is ignored: caches are filled and kernels selected in it.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)
        self._is_first = True
        self._given: set[str] = set()

    def add(self, parts: Mapping[str, float], padding: float) -> Hint | None:
        """Add one logged point.

        Args:
            parts: seconds of each part of its steps. padding: share of the computed positions that were padding.

        Returns:
            A hint, if there is one of a kind that was not given before.
        """
        if self._is_first:
            self._is_first = False
            return None
        self._recent.append((parts.get("data", 0.0), sum(parts.values()), padding))
        if len(self._recent) < WINDOW:
            return None
        hint = next((hint for hint in self._hints() if hint.kind not in self._given), None)
        if hint is not None:
            self._given.add(hint.kind)
        return hint

    def _hints(self) -> list[Hint]:
        """The hints on the last points; their texts are short, as the Train tab has two lines for them."""
        whole = sum(seconds for _, seconds, _ in self._recent)
        waiting = sum(data for data, _, _ in self._recent) / whole if whole else 0.0
        padding = sum(share for _, _, share in self._recent) / WINDOW
        hints = []
        if waiting > _DATA_SHARE:
            hints.append(
                Hint(
                    "data",
                    f"The device waits for data {waiting:.0%} of the time.",
                    "Stop other CPU work, put LORAWORKBENCH_HOME on a local disk, or raise "
                    "per_device_train_batch_size.",
                )
            )
        if padding > _PADDING_SHARE:
            hints.append(
                Hint(
                    "padding",
                    f"{padding:.0%} of the computed tokens are padding.",
                    "Use a smaller per_device_train_batch_size with more gradient_accumulation_steps, or "
                    "lower data.max_length.",
                )
            )
        return hints
