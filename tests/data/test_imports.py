"""Reading formats, sources and presets needs no heavy library until records are tokenised."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "datasets", "pyarrow", "numpy", "pandas", "trl", "peft", "huggingface_hub", "jinja2")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, workbench.recipe.presets, workbench.data.records.detect, workbench.data.sources, "
        "workbench.data.templates, "
        "workbench.data.facts, workbench.data.tokens.encode, workbench.data.statistics\n"
        "from workbench.data.sources import load_records\n"
        "from workbench.recipe.schema import DataSection\n"
        "assert load_records(DataSection()).format == 'instruction'\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
