"""The section ``quantization``: how the frozen base is stored, by bitsandbytes' names."""

from typing import Literal

from workbench.recipe.sections.section import Section, setting

QuantMethod = Literal["nf4", "fp4", "int8", "none"]


class QuantizationSection(Section):
    method: QuantMethod = setting(
        "nf4",
        "Quantization of the frozen base: nf4 or fp4 (4-bit, QLoRA), int8 (8-bit), none (16-bit LoRA).",
    )
    double_quant: bool = setting(
        True, "Quantize the quantization constants too: saves about 0.37 bit per parameter at almost no cost in speed."
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = setting(
        "auto",
        "Dtype of matrix multiplications. auto: bfloat16 if the device supports it, float16 on "
        "older GPUs (such as a T4), float32 on a CPU.",
    )
