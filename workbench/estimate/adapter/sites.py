"""Lists every module of a model under its full name, as PEFT's name rules need it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from workbench.adapters.layer import Layer
from workbench.models.skeleton import Module, ModuleKind, Skeleton, Tensor


@dataclass(frozen=True)
class Site:
    """One module of the unfolded model. ``path`` has ``*`` where ``name`` has the index of a folded list."""

    name: str
    path: str
    module: Module

    @property
    def kind(self) -> ModuleKind:
        return self.module.kind

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters that hang directly on the module."""
        return tuple(tensor for tensor in self.module.tensors if not tensor.is_buffer)

    def parameter(self, name: str) -> Tensor | None:
        return next((tensor for tensor in self.module.tensors if tensor.name == name and not tensor.is_buffer), None)


@lru_cache(maxsize=64)
def sites(skeleton: Skeleton) -> tuple[Site, ...]:
    """Every module below the root, in the order of ``named_modules``."""
    return tuple(_unfold("", "", skeleton.root))[1:]


def layer_of(site: Site, skeleton: Skeleton) -> Layer:
    """The module as an adapter method knows it."""
    weight, facts = site.parameter("weight"), site.module.facts
    is_convolution = site.kind == "convolution"
    return Layer(
        name=site.name,
        kind=site.kind,
        class_name=site.module.class_name,
        weight=weight.shape if weight is not None else (),
        has_bias=site.parameter("bias") is not None,
        channels=(facts["in_channels"], facts["out_channels"]) if is_convolution else (0, 0),
        kernel=tuple(facts["kernel_size"]) if is_convolution else (),
        groups=facts["groups"] if is_convolution else 1,
        model_type=skeleton.model_type,
    )


def _unfold(name: str, path: str, module: Module) -> Iterator[Site]:
    yield Site(name, path, module)
    members = {index: child for child in module.children for index in child.indices}
    for index in sorted(members):
        yield from _unfold(f"{name}.{index}", f"{path}.*", members[index])
    for child in module.children:
        if not child.indices:
            yield from _unfold(
                f"{name}.{child.name}" if name else child.name, f"{path}.{child.name}" if path else child.name, child
            )
