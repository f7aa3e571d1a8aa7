"""What the current recipe costs: parameters, file, memory by term, and what would fit. Repainted on every keystroke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from textual.content import Content

from screens.charts.stacked_bar import legend, stacked_bar
from screens.widgets.delay import Delay
from screens.widgets.glyphs import GLYPHS
from screens.widgets.key_texts import key
from screens.widgets.lines import Lines
from screens.widgets.plain import plain
from screens.widgets.sizes import NARROW_BELOW
from workbench.units import file_size, gib, gib_number

if TYPE_CHECKING:
    from screens.shell.cost_view import Costs, Outlook
    from screens.shell.fit import Fit
    from workbench.estimate import Price
    from workbench.estimate.adapter.plan import AdapterPlan
    from workbench.estimate.peak import Peak

CHANGE_SECONDS = 1.0
_LABEL_WIDTH = 14


@dataclass
class _Change:
    """The last change: the figures before it, and until when their direction is shown."""

    before: dict[str, float] = field(default_factory=dict)
    until: float = 0.0


class CostPanel(Lines):
    """The costs beside the form."""

    def __init__(self, **arguments: str) -> None:
        super().__init__(**arguments)
        self._costs: Costs | None = None
        self._outlook: Outlook | None = None
        self._change = _Change()
        self._clear_change_soon = Delay(self, self._clear_change, CHANGE_SECONDS)
        self._is_tracing = False

    def show(self, costs: Costs, *, moved: bool) -> None:
        """Show new costs. If the user ``moved`` a setting, also show for a second which figures rose or fell."""
        before = self._costs.figures if self._costs is not None else {}
        self._costs = costs
        if moved and before:
            self._change = _Change(
                {name: value for name, value in before.items() if costs.figures.get(name) != value},
                monotonic() + CHANGE_SECONDS,
            )
            self._clear_change_soon.ask()
        self._repaint()

    def show_outlook(self, outlook: Outlook | None) -> None:
        """Show what other settings would cost, which is computed after the costs themselves."""
        if outlook != self._outlook:
            self._outlook = outlook
            self._repaint()

    @property
    def _is_wide(self) -> bool:
        return bool(self.app.size.width >= NARROW_BELOW)

    @property
    def is_by_formula(self) -> bool:
        """Whether the peak in view is a formula's."""
        return self._costs is not None and self._costs.is_by_formula

    def show_tracing(self, is_tracing: bool) -> None:
        """Show whether a training step is being traced, to replace the formula's peak."""
        self._is_tracing = is_tracing
        self._repaint()

    def _clear_change(self) -> None:
        self._change = _Change()
        self._repaint()

    # -- painting -------------------------------------------------------------------------------------------------

    def _repaint(self) -> None:
        if self._costs is not None:
            self.set_lines(list(self._content(self._costs, max(self.size.width, 30))))

    def on_resize(self) -> None:
        self._repaint()

    def _content(self, costs: Costs, width: int) -> Iterator[Content]:
        if costs.no_tree:
            yield Content.styled(plain(costs.no_tree), "$muted")
        elif costs.refusal is not None:
            yield Content.styled(plain(costs.refusal.message), "$error")
            yield Content.styled(plain(costs.refusal.cure), "bold")
            if costs.suggested_fix is not None:
                yield Content.assemble(
                    plain(costs.suggested_fix.sentence), (f"  {key('adapter.fit')} apply", "bold $accent")
                )
        elif costs.price is not None and self._is_wide:
            yield from self._adapter(costs, costs.price)
            yield Content("")
            yield from self._memory(costs, costs.price, width)
            yield Content("")
            yield from self._alternatives()
        elif costs.price is not None:
            yield self._adapter_in_one_line(costs.price)
            yield from self._memory(costs, costs.price, width)
            yield from self._alternatives()

    def _adapter_in_one_line(self, price: Price) -> Content:
        """Parameters, file and base on one line, for 24 lines of screen."""
        plan = price.adapter
        count = f"{plan.trainable_parameters:,}"
        return Content("   ").join(
            (
                self._figure("trainable", count, f" {_percent(plan)}", "trainable", _as_ratio),
                Content.assemble(("file ", "$muted"), file_size(plan.file_bytes)),
                Content.assemble(("base ", "$muted"), gib(price.base.true_bytes)),
            )
        )

    def _adapter(self, costs: Costs, price: Price) -> Iterator[Content]:
        plan = price.adapter
        words = f"   {plan.dtype}, {sum(module.count for module in plan.modules)} layers"
        count = f"{plan.trainable_parameters:,}"
        yield self._figure("trainable", count, f"   {_percent(plan)}", "trainable", _as_ratio)
        yield self._figure("adapter file", file_size(plan.file_bytes), words, "file", None)
        yield self._figure("frozen base", gib(price.base.true_bytes), f"   {costs.storage}", "base", _as_gib)
        for name in plan.unmatched:
            yield Content.styled(f"No layer is called {plain(name)}.", "$warning")

    def _memory(self, costs: Costs, price: Price, width: int) -> Iterator[Content]:
        peak = f"{'≈ ' if price.is_by_formula else ''}{gib(price.peak.device_bytes)}"
        free = costs.budget.free_bytes
        head = self._figure(f"{costs.memory_word} peak", peak, "", "peak", _as_gib)
        if costs.fit is None or free is None:
            yield head
        else:
            whose = f" ({costs.budget.label})" if self._is_wide else ""
            words = f"{costs.fit.phrase}: {gib(free)} free{whose}"
            verdict = Content.styled(words, f"bold ${costs.fit.color}")
            yield from [head, verdict] if self._is_wide else [Content.assemble(head, "   ", verdict)]
        yield stacked_bar(costs.terms, free or price.peak.device_bytes, width)
        yield from legend(costs.terms, width)
        if self._is_wide:
            yield Content.styled(f"peak during {_moment(price.peak)}", "$muted")
            if price.is_by_formula:
                words = (
                    "tracing one step for an exact peak …"
                    if self._is_tracing
                    else f"≈ estimate, ±{100 * price.doubt:.0f} %"
                )
                yield Content.styled(words, "$muted")
        if costs.priced_length:
            yield Content.styled(costs.priced_length, "$muted")
        for words in price.choice.reasons:
            yield Content.assemble(("auto  ", "$muted"), plain(words))
        if price.host_note:
            yield Content.styled(plain(price.host_note), "$muted")
        for words in costs.warnings:
            yield Content.styled(plain(words), "$warning")
        if costs.fit is not None and costs.fit.word != "fits" and self._outlook is not None:
            yield from self._suggestions(self._outlook, costs.fit)
        elif self._is_wide and self._outlook is not None and self._outlook.faster and self._outlook.faster.changes:
            yield Content.assemble(
                plain(self._outlook.faster.sentence), (f"  {key('adapter.fast')} apply", "bold $accent")
            )
        for label, fit in costs.other_gpus:
            yield Content.assemble((f"{plain(label)}: ", "$muted"), (fit.phrase, f"bold ${fit.color}"))

    def _suggestions(self, outlook: Outlook, fit: Fit) -> Iterator[Content]:
        """The changes that make it fit, cheapest first, and the keys that make them."""
        if not outlook.suggestions:
            if fit.word == "no":
                what = f"{key('adapter.catalog_fit')} lists the models that fit."
                yield Content.styled(f"No single change makes it fit. {what}", "$error")
            return
        first, *rest = outlook.suggestions
        apply, others = f"{key('adapter.fit')} apply", f"{key('adapter.others')} other options"
        more = f"{apply} {GLYPHS.separator} {others}" if rest and not self._is_wide else apply
        yield Content.assemble(plain(first.sentence), (f"  {more}", "bold $accent"))
        if rest and self._is_wide:
            dot = f" {GLYPHS.separator} "
            yield Content.assemble(("or ", "$muted"), plain(dot.join(change.short for change in rest)),
                                   (f"  {others}", "bold $accent"))  # fmt: skip

    def _alternatives(self) -> Iterator[Content]:
        """The cost with other quantizations, and the largest settings that fit."""
        outlook = self._outlook
        if outlook is None:
            return
        dot = f" {GLYPHS.separator} "
        if outlook.by_method:
            parts = [f"{name} {gib_number(size)}" for name, size in outlook.by_method.items()]
            yield Content.assemble(("with ", "$muted"), f"{dot.join(parts)} GiB")
        if outlook.largest:
            parts = [f"{name} {value:,}" for name, value in outlook.largest.items()]
            yield Content.assemble(("largest that fits: ", "$muted"), dot.join(parts))
        if outlook.rule_of_thumb:
            yield Content.styled(plain(outlook.rule_of_thumb), "$muted")

    def _figure(
        self, label: str, value: str, tail: str, name: str, difference: Callable[[float, float], str] | None
    ) -> Content:
        """A labeled figure; if it has just changed, with the direction and the ``difference`` of its values as text.

        Args:
            tail: text after the value.
            name: its key in :attr:`Costs.figures`.
        """
        content = Content.assemble((f"{label:<{_LABEL_WIDTH}}", "$muted"), (value, "bold"), (tail, "$muted"))
        before = self._change.before.get(name)
        now = self._costs.figures.get(name) if self._costs is not None else None
        if difference is None or before is None or now is None or monotonic() > self._change.until:
            return content
        mark = GLYPHS.up if now > before else GLYPHS.down
        return Content.assemble(content, (f"  {mark} {difference(before, now)}", "bold $accent"))


def _moment(peak: Peak) -> str:
    return peak.moment if peak.highest_phase == "training" else peak.highest_phase


def _percent(plan: AdapterPlan) -> str:
    return f"{plan.trainable_percent:.2f} %" if plan.trainable_percent >= 0.01 else "<0.01 %"


def _as_ratio(before: float, now: float) -> str:
    """``×2`` where it is one, else a percentage."""
    if before and now / before >= 1.5:
        return f"×{now / before:.3g}"
    if now and before / now >= 1.5:
        return f"÷{before / now:.3g}"
    return f"{100 * (now - before) / before:+.1f} %" if before else ""


def _as_gib(before: float, now: float) -> str:
    return f"{'+' if now >= before else '−'}{gib(abs(now - before))}"
