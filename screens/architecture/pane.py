"""Architecture: the model's module tree, with the effect of quantization and adapter, and the choice of targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static, Tree

from screens.architecture.module_tree import ModuleTree
from screens.architecture.texts import absence_text, details_text, totals_text
from screens.architecture.tree_rows import Place, class_text, root_of, target_name, toggled_targets
from screens.forms.fields import parse_ranges, ranges_text
from screens.widgets.glyphs import ENTER
from screens.widgets.key_texts import key
from screens.widgets.pane import Pane, beside
from screens.widgets.plain import plain
from screens.widgets.sizes import NARROW_BELOW
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from screens.messages import RecipeChanged, SkeletonChanged
    from workbench.estimate.adapter.plan import AdapterPlan
    from workbench.models.skeleton import Skeleton


class ArchitecturePane(Pane):
    """The module tree, with what the recipe does to each module."""

    NAME = "Architecture"
    GUIDE = (
        "The model's module tree. Repeated layers are folded; the numbers of a folded module count all its copies. A "
        "dot marks layers that get an adapter, with the shapes of A and B. {architecture.toggle} adds a layer, or all "
        "linear layers below a module, to the targets or removes them. {architecture.layers} adapts only some layers. "
        "Amber marks weights that stay in 16 bits because they cannot be quantized."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "primary", "Set target", key_display=ENTER,
                id="architecture.primary", tooltip="Add or remove the layer as a target; expand or collapse a module"),
        Binding("space", "toggle", "Subtree", id="architecture.toggle",
                tooltip="Add or remove the layer, or all linear layers below the module, as targets"),
        Binding("slash", "search", "Search", key_display="/", id="architecture.search"),
        Binding("n", "next(1)", "Next match", show=False, id="architecture.next"),
        Binding("number_sign", "layers", "Layers", id="architecture.layers",
                tooltip="Adapt only some layers, such as 8-15"),
        Binding("a", "all_linear", "All linear", id="architecture.all", tooltip="Target all linear layers but lm_head"),
    ]  # fmt: skip

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._plan: AdapterPlan | None = None
        self._refusal: WorkbenchError | None = None
        self._shown_skeleton: Skeleton | None = None
        self._query = ""
        self._totals = Static(id="architecture-totals")
        self._search = Input(placeholder="Search by name or class", compact=True, id="architecture-search")
        self._heading = Static(id="architecture-heading")
        self._tree = ModuleTree()
        self._details = Static(id="architecture-details")

    def compose(self) -> ComposeResult:
        yield self._totals
        yield self._search
        yield self._heading
        yield self._tree
        yield self._details

    def first_focus(self) -> Widget:
        return self._tree

    # -- the session ----------------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self._show()

    def on_recipe_changed(self, _: RecipeChanged) -> None:
        self._show()

    def on_skeleton_changed(self, _: SkeletonChanged) -> None:
        self._show()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_heading)

    def _show(self) -> None:
        skeleton, recipe = self.session.skeleton, self.session.loaded_recipe
        self._tree.display = skeleton is not None
        self._show_heading()
        if skeleton is None:
            self._shown_skeleton = None
            self._totals.update(absence_text(recipe, self.session.skeleton_error))
            self._details.update("")
            return
        self._plan, self._refusal = self._planned()
        if self._shown_skeleton is skeleton:
            self._tree.show_recipe(recipe, self._plan)
        else:
            self._shown_skeleton = skeleton
            self._tree.show_model(skeleton, recipe, self._plan)
        self._totals.update(totals_text(skeleton, recipe, self._refusal or self._plan))
        self._show_details()

    def _planned(self) -> tuple[AdapterPlan | None, WorkbenchError | None]:
        from workbench.estimate.adapter.plan import plan_adapter
        from workbench.estimate.setup import trained_settings

        assert self.session.skeleton is not None
        try:
            return plan_adapter(self.session.skeleton, trained_settings(self.session.recipe)), None
        except WorkbenchError as error:
            return None, error

    def _show_heading(self) -> None:
        self._heading.update(self._tree.heading() if self.session.skeleton is not None else "")

    # -- the selected node -----------------------------------------------------------------------------------------

    @property
    def _selected(self) -> Place | None:
        node = self._tree.cursor_node
        return node.data if node is not None else None

    @on(Tree.NodeHighlighted)
    def _moved(self) -> None:
        self._show_details()

    def _show_details(self) -> None:
        place, skeleton = self._selected, self.session.skeleton
        if place is not None and skeleton is not None:
            is_wide = self.app.size.width >= NARROW_BELOW
            self._details.update(details_text(skeleton, self.session.loaded_recipe, self._plan, place, wide=is_wide))

    # -- targets --------------------------------------------------------------------------------------------------

    @on(Tree.NodeSelected)
    def action_primary(self) -> None:
        """Add or remove a layer as a target; expand or collapse a module."""
        node = self._tree.cursor_node
        if node is not None and node.allow_expand:
            node.toggle()
        else:
            self.action_toggle()

    def action_toggle(self) -> None:  # type: ignore[override]  # Textual's own takes the name of a reactive
        """Add or remove the selected layer, or all linear layers below the selected module, as targets."""
        place, skeleton = self._selected, self.session.skeleton
        if place is None or skeleton is None:
            return
        if place.frozen:
            reason = f"{place.path} is frozen ({place.frozen}): training on text gives it no adapter."
            self.notify(plain(reason), severity="warning", markup=False)
            return
        self._set_targets(toggled_targets(skeleton, self.session.recipe, place))
        if place.path == skeleton.output or place.module.kind == "embedding":
            # PEFT then also saves the base weight: allowed here, but never as part of a subtree.
            self.notify(
                f"{target_name(skeleton, place)}: its base weight is also saved with the adapter.", markup=False
            )

    def _set_targets(self, targets: str | list[str] | None) -> None:
        if targets is None:
            regex = isinstance(self.session.recipe.adapter.target_modules, str)
            hint = (
                f"The targets are a regular expression. Press {key('architecture.all')} to target all linear layers."
                if regex
                else "No layer to adapt here."
            )
            self.notify(hint, severity="warning", markup=False)
        elif not targets:
            self.notify("An adapter needs at least one target.", severity="warning")
        else:
            self._change({"adapter.target_modules": targets})

    def action_all_linear(self) -> None:
        """Target all linear layers, the usual choice of QLoRA."""
        self._change({"adapter.target_modules": "all-linear", "adapter.layers_to_transform": None})

    def action_layers(self) -> None:
        """Ask which layers get adapters."""
        from screens.dialogs.questions import LineDialog

        now = ranges_text(self.session.recipe.adapter.layers_to_transform or ())
        text = "Adapt only these layers, such as 8-15 or 0, 2, 4. Leave empty for all layers."
        self.app.push_screen(LineDialog("Layers", text, now, "all"), self._layers_typed)

    def _layers_typed(self, text: str | None) -> None:
        if text is None:
            return
        changes: dict[str, object] = {"adapter.layers_to_transform": parse_ranges(text)}
        if (
            changes["adapter.layers_to_transform"] is not None
            and self.session.recipe.adapter.target_modules == "all-linear"
        ):
            # PEFT accepts layers only together with a list of names.
            from screens.architecture.tree_rows import linear_names

            assert self.session.skeleton is not None
            changes["adapter.target_modules"] = linear_names(self.session.skeleton)
        self._change(changes)

    def _change(self, changes: dict[str, object]) -> None:
        for problem in self.workbench.set_recipe(changes):
            self.notify(str(problem), severity="error", markup=False)

    # -- search ---------------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        """Open the search field."""
        self._search.add_class("-open")
        self.screen.set_focus(self._search)

    @on(Input.Changed, "#architecture-search")
    def _typed(self, event: Input.Changed) -> None:
        self._query = event.value.strip().casefold()
        self._find(start_after=None)

    @on(Input.Submitted, "#architecture-search")
    def _submitted(self) -> None:
        self.take_focus()

    @on(Input.Blurred, "#architecture-search")
    def _close_search(self) -> None:
        self._search.remove_class("-open")

    def action_next(self, _: int) -> None:
        """Go to the next match of the search."""
        self._find(start_after=self._selected.path if self._selected else None)

    def _find(self, start_after: str | None) -> None:
        """Select the first match, or the first one after the module with this name."""
        if self.session.skeleton is None or not self._query:
            return
        hits = [
            place.path
            for place in root_of(self.session.skeleton).walk()
            if self._query in f"{place.path} {class_text(place, self.session.loaded_recipe)}".casefold()
        ]
        if start_after in hits:
            index = hits.index(start_after) + 1
            hits = hits[index:] + hits[:index]
        if hits:
            self._tree.reveal(hits[0])
