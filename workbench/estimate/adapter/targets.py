"""Finds the modules and parameters that an adapter targets, by PEFT 0.21's rules, from the module tree.

The rules are those of ``peft.tuners.tuners_utils`` (``check_target_module_exists``,
``_maybe_include_all_linear_layers``) and of :mod:`workbench.estimate.adapter.experts`. What PEFT refuses is refused
too, with the reason in plain words (:mod:`workbench.estimate.adapter.refusals`). Some parts of a model get no adapter
(:mod:`workbench.models.language_part`).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from workbench.adapters.registry import check_model, method_of
from workbench.adapters.settings import AdapterSettings, check_settings, compiled
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.experts import leaf_names, rename_expert_targets
from workbench.estimate.adapter.matching import Groups, group_finder, matcher
from workbench.estimate.adapter.refusals import (
    check_parameters,
    nothing_matched,
    only_frozen,
    unknown_names,
)
from workbench.estimate.adapter.sites import Site, layer_of, sites
from workbench.models.skeleton import Skeleton, Tensor

EMBEDDING_NAMES = ("embed_tokens", "lm_head")
"""Targets by these names make PEFT save the base weight of the embedding beside the adapter."""


@dataclass(frozen=True)
class ModuleTarget:
    """Equal layers that get adapters of the same rank: the same layer in each module of a folded list."""

    sites: tuple[Site, ...]
    r: int

    @property
    def site(self) -> Site:
        return self.sites[0]


@dataclass(frozen=True)
class ParameterTarget:
    """A parameter of equal modules that is adapted on its own: fused experts, or a router's weight.

    ``depth``: by how many wrappers for other parameters of the same module this one's wrapper is enclosed.
    """

    sites: tuple[Site, ...]
    tensor: Tensor
    r: int
    depth: int

    @property
    def site(self) -> Site:
        return self.sites[0]


@dataclass(frozen=True)
class Targets:
    """The targets of an adapter.

    Attributes:
        saved_whole: modules trained and saved whole (``modules_to_save``).
        embedding_is_named: PEFT also saves the base weight of a targeted embedding or output layer.
        unmatched: target names that match nothing, if others do.
        left_out: matching layers that get no adapter, since they are in a frozen part.
    """

    modules: tuple[ModuleTarget, ...]
    parameters: tuple[ParameterTarget, ...]
    saved_whole: tuple[Site, ...]
    embedding_is_named: bool
    unmatched: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Ranks:
    """The usual rank, and rules for modules with another rank, of which the first with a matching pattern applies.

    ``groups`` numbers the rules: rules of the same rank share a number, and rules of the usual rank have None.
    """

    usual: int
    rules: tuple[tuple[str, int], ...]

    @property
    def groups(self) -> tuple[tuple[str, int | None], ...]:
        first: dict[int, int | None] = {self.usual: None}
        for number, (_, r) in enumerate(self.rules):
            first.setdefault(r, number)
        return tuple((pattern, first[r]) for pattern, r in self.rules)

    def of(self, group: int | None) -> int:
        return self.usual if group is None else self.rules[group][1]


def find_targets(skeleton: Skeleton, settings: AdapterSettings) -> Targets:
    """Find the targets of an adapter on this model.

    Raises:
        WorkbenchError: PEFT refuses these settings for this model, or they match nothing.
    """
    check_settings(settings)
    method = method_of(settings.method)
    method.check(settings)
    rows = bool(skeleton.root.facts.get("new_tokens"))
    check_model(method, trains_rows=rows, has_frozen_parts=bool(skeleton.frozen_parts))
    everything = sites(skeleton)
    names, parameter_names, patterns = _resolve(skeleton, settings, everything)
    ranks = _Ranks(settings.r, tuple(patterns.items()))
    groups = ranks.groups
    alike, left_out = _named_sites(skeleton, replace(settings, r=0, rank_pattern=()), names, groups)
    modules = tuple(ModuleTarget(members, ranks.of(group)) for members, group in alike)
    for target in modules:
        method.check_layer(layer_of(target.site, skeleton), target.r, settings)
    parameters = tuple(
        ParameterTarget(members, tensor, ranks.of(group), depth)
        for members, tensor, depth, group in _named_parameters(skeleton, parameter_names, groups)
    )
    if parameters:
        check_parameters(settings)
    if not modules and not parameters:
        raise only_frozen(skeleton, left_out) if left_out else nothing_matched(settings, everything)
    return Targets(
        modules=modules,
        parameters=parameters,
        saved_whole=_saved_whole(skeleton, settings, everything, modules),
        embedding_is_named=_embedding_is_named(names, everything),
        unmatched=_unmatched(settings, modules, parameters),
        left_out=left_out,
    )


def _resolve(
    skeleton: Skeleton, settings: AdapterSettings, everything: tuple[Site, ...]
) -> tuple[str | frozenset[str], frozenset[str], dict[str, int]]:
    """Resolve shorthands and old names of experts; returns a regex or names, parameter names, and rank patterns."""
    names: str | frozenset[str]
    if settings.is_all_linear:
        names = _all_linear(skeleton)
    elif isinstance(settings.target_modules, str):
        names = settings.target_modules
    else:
        names = frozenset(settings.target_modules)
    parameters = frozenset(settings.target_parameters)
    ranks = dict(settings.rank_pattern)
    family = skeleton.root.facts.get("moe_names")
    if family is None or not method_of(settings.method).adapts_parameters:
        return names, parameters, ranks
    if isinstance(names, str):
        names = _leaves_of_regex(settings, names, family, everything) or names
    if isinstance(names, str):
        return names, parameters, ranks
    return rename_expert_targets(family, names, parameters, ranks, settings)


@lru_cache(maxsize=64)
def _all_linear(skeleton: Skeleton) -> frozenset[str]:
    """Names of all linear layers except the output layer."""
    return frozenset(s.name for s in sites(skeleton) if s.kind in ("linear", "conv1d")) - {skeleton.output or ""}


def _leaves_of_regex(
    settings: AdapterSettings, regex: str, family: str, everything: tuple[Site, ...]
) -> frozenset[str] | None:
    parameter_names = [f"{site.name}.{tensor.name}" for site in everything for tensor in site.parameters]
    return leaf_names(family, matcher(settings, regex), [site.name for site in everything], parameter_names)


@lru_cache(maxsize=64)
def frozen_names(skeleton: Skeleton) -> frozenset[str]:
    """Full names of all modules in parts that get no adapter."""
    parts = tuple(part.name for part in skeleton.frozen_parts)
    inner = tuple(f"{name}." for name in parts)
    return (
        frozenset(s.name for s in sites(skeleton) if s.name in parts or s.name.startswith(inner))
        if parts
        else frozenset()
    )


# Cached: while the user changes the rank, the matching modules stay the same.
@lru_cache(maxsize=64)
def _named_sites(
    skeleton: Skeleton, settings: AdapterSettings, names: str | frozenset[str], groups: Groups
) -> tuple[tuple[tuple[tuple[Site, ...], int | None], ...], tuple[str, ...]]:
    """Group the matching sites that differ only in their layer and get the same rank; with the group of that rank.

    Second, the names of those that match and are frozen.
    """
    matches, group_of, frozen = matcher(settings, names), group_finder(groups), frozen_names(skeleton)
    alike: dict[tuple[str, int], dict[int | None, list[Site]]] = {}
    left_out = []
    for site in sites(skeleton):
        if not matches(site.name):
            continue
        if site.name in frozen:
            left_out.append(site.name)
            continue
        by_group = alike.setdefault((site.path, id(site.module)), {})
        by_group.setdefault(group_of(site.name), []).append(site)
    found = tuple((tuple(members), group) for by_group in alike.values() for group, members in by_group.items())
    return found, tuple(left_out)


@lru_cache(maxsize=64)
def _named_parameters(
    skeleton: Skeleton, names: frozenset[str], groups: Groups
) -> tuple[tuple[tuple[Site, ...], Tensor, int, int | None], ...]:
    """Group the modules with a parameter of these names; with the parameter, its depth, and the group of its rank."""
    suffixes = tuple(f".{name}" for name in names)
    group_of = group_finder(groups)
    alike: dict[tuple[str, int, Tensor, int | None, int], list[Site]] = {}
    for site in sites(skeleton):
        keys = [(f"{site.name}.{tensor.name}", tensor) for tensor in site.parameters]
        named = [(key, tensor) for key, tensor in keys if key in names or key.endswith(suffixes)]
        for position, (key, tensor) in enumerate(named):
            # Each further parameter of a module wraps the wrapper of the one before it.
            depth = len(named) - 1 - position
            alike.setdefault((site.path, id(site.module), tensor, group_of(key), depth), []).append(site)
    return tuple((tuple(members), tensor, depth, group) for (_, _, tensor, group, depth), members in alike.items())


def _saved_whole(
    skeleton: Skeleton, settings: AdapterSettings, everything: tuple[Site, ...], modules: tuple[ModuleTarget, ...]
) -> tuple[Site, ...]:
    """PEFT's ``_set_trainable``: any module whose full name ends with the given letters."""
    if not settings.modules_to_save:
        return ()
    for name in settings.modules_to_save:
        if not any(site.name.endswith(name) for site in everything):
            raise unknown_names(f"adapter.modules_to_save: no module is called {name!r}.", [name], everything)
    saved = tuple(site for site in everything if site.name.endswith(settings.modules_to_save))
    inner = [site.name for target in modules for site in target.sites] + [site.name for site in saved]
    if frozen := next((site for site in saved if site.name in frozen_names(skeleton)), None):
        raise WorkbenchError(
            f"adapter.modules_to_save contains {frozen.name}, which training on text does not reach.",
            "Remove it, or give the full name of a module of the language part.",
            kind="adapter_settings",
        )
    for site in saved:
        nested = next((name for name in inner if name.startswith(f"{site.name}.")), None)
        if nested is None and any(site in target.sites for target in modules):
            nested = site.name
        if nested is not None:
            raise WorkbenchError(
                f"adapter.modules_to_save contains {site.name}, and {nested} inside it is trained separately.",
                "Give the full name of the module to save, or remove one of the two.",
                kind="adapter_settings",
            )
    return saved


def _embedding_is_named(names: str | frozenset[str], everything: tuple[Site, ...]) -> bool:
    """PEFT's ``get_peft_model_state_dict`` with ``save_embedding_layers="auto"``."""
    if not isinstance(names, str):
        return any(name in names for name in EMBEDDING_NAMES)
    regex = compiled(names, "adapter.target_modules")
    return any(site.name.rpartition(".")[2] in EMBEDDING_NAMES and regex.fullmatch(site.name) for site in everything)


def _unmatched(
    settings: AdapterSettings, modules: tuple[ModuleTarget, ...], parameters: tuple[ParameterTarget, ...]
) -> tuple[str, ...]:
    if isinstance(settings.target_modules, str) or parameters:
        return ()
    names = [target.site.name for target in modules]
    return tuple(
        name for name in settings.target_modules if not any(hit == name or hit.endswith(f".{name}") for hit in names)
    )
