"""What was measured of a run: its evaluation on records, its results on tasks, and ratings of its replies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from screens.runs.evaluation_text import figures_text, table_lines
from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from workbench.evaluation.preferences import Preference
    from workbench.evaluation.result import Evaluation
    from workbench.evaluation.task_result import TaskEvaluation
    from workbench.runs.folder import RunFolder


@dataclass(frozen=True)
class Measurements:
    """The newest of each kind."""

    evaluation: Evaluation | None = None
    tasks: TaskEvaluation | None = None
    preferences: tuple[Preference, ...] = ()

    @classmethod
    def of(cls, run: RunFolder) -> Measurements:
        """Read a run's files."""
        from workbench.evaluation.preferences import preferences_of
        from workbench.evaluation.result import newest_evaluation
        from workbench.evaluation.task_result import TASK_RESULTS

        return cls(newest_evaluation(run), TASK_RESULTS.newest(run), tuple(preferences_of(run)))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was measured."""
        return self.evaluation is None and self.tasks is None and not self.preferences

    def text(self, *, is_wide: bool) -> Content:
        """All figures as tables and sentences, the replies excepted."""
        parts = [
            figures_text(self.evaluation, is_wide=is_wide) if self.evaluation else None,
            _tasks_text(self.tasks, is_wide=is_wide) if self.tasks else None,
            _preferences_text(self.preferences) if self.preferences else None,
        ]
        return Content("\n\n").join([part for part in parts if part is not None])


def _tasks_text(tasks: TaskEvaluation, *, is_wide: bool) -> Content:
    from workbench.evaluation.comparison_text import task_head, task_table, task_texts

    lines = [plain_content(task_head(tasks), "$text-muted")]
    lines += table_lines(task_table(tasks, bounds=is_wide and len(tasks.models) == 2))
    lines += [plain_content(sentence, "bold") for sentence in task_texts(tasks)]
    return Content("\n").join(lines)


def _preferences_text(preferences: tuple[Preference, ...]) -> Content:
    from workbench.evaluation.comparison_text import preference_text

    return Content("\n").join([plain_content(preference_text(one), "bold") for one in preferences])
