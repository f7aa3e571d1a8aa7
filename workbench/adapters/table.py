"""The table of all methods in docs/adapters.md, made from the registry."""

from workbench.adapters.method import QUANTIZED
from workbench.adapters.registry import methods

_HEAD = ("method", "when", "layers", "trained on", "merges", "scales, sums", "served beside the base by")


def table() -> str:
    """The methods as a Markdown table."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for method in methods().values():
        servers = ("this program", *method.serves)
        bases = "any base" if method.quantized >= QUANTIZED else "unquantized bases"
        can = ("no" if method.merge_refusal else "yes", "yes" if method.scales else "no")
        kinds = ", ".join(kind for kind in ("linear", "conv1d", "embedding", "convolution") if kind in method.layers)
        rows.append((f"`{method.name}` ({method.label})", method.help, kinds, bases, *can, ", ".join(servers)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
