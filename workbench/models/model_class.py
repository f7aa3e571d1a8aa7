"""Chooses the transformers class that loads a model: a causal language model, or a model of images and text as a whole.

A model that also reads images or audio is loaded whole, and trained on text. Only its language part is trained; see
:mod:`workbench.models.language_part`. Importing this module is cheap; its functions import transformers.
"""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from transformers import AutoModelForCausalLM, PreTrainedModel

    AutoClass = type[AutoModelForCausalLM]

_CAUSAL, _IMAGE_TEXT, _MULTIMODAL = "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM"
# Models whose forward accepts text alone by its signature, and then asks for an image, or writes no text from left to
# right. Found by running each of them on text (transformers 5.23).
_WITHOUT_TEXT_FORWARD = {
    "IdeficsForVisionText2Text": "needs an image with each text",
    "Kosmos2ForConditionalGeneration": "needs an image with each text",
    "EvollaForProteinText2Text": "needs a protein with each text",
    "DiffusionGemmaForBlockDiffusion": "does not write its text token by token",
}
_CURE = "Choose a model that continues text, such as those on the Models screen (`loraworkbench models`)."


def auto_class_name(config: Mapping[str, object]) -> str:
    """The name of transformers' auto class for a ``config.json``: ``AutoModelForCausalLM``, or that of a whole model.

    A model that transformers can load both with and without its vision part is loaded whole, unless ``architectures``
    names the class without it.
    """
    from transformers.models.auto import modeling_auto as auto

    model_type = str(config.get("model_type"))
    causal = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    for name, mapping in (
        (_IMAGE_TEXT, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
        (_MULTIMODAL, auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES),
    ):
        whole = mapping.get(model_type)
        if whole is not None:
            is_text_alone = causal is not None and causal != whole and causal in _architectures(config)
            return _CAUSAL if is_text_alone else name
    if causal is None and (own := config.get("auto_map")) and isinstance(own, dict) and _CAUSAL not in own:
        return next((name for name in (_IMAGE_TEXT, _MULTIMODAL) if name in own), _CAUSAL)
    return _CAUSAL


def auto_class(config: Mapping[str, object]) -> "AutoClass":
    """The auto class of :func:`auto_class_name`."""
    import transformers

    chosen: AutoClass = getattr(transformers, auto_class_name(config))
    return chosen


def check_continues_text(config: Mapping[str, object]) -> None:
    """Check that transformers' model for a ``config.json`` takes text alone and continues it. Imports transformers.

    A model type that transformers does not know passes.

    Raises:
        WorkbenchError: it names no model type; kind ``model_config``. Or there are models of another kind only, or the
            model needs an image, audio or a second text; kind ``model_not_causal``.
    """
    import transformers
    from transformers.models.auto import modeling_auto as auto

    if not config.get("model_type"):
        raise WorkbenchError(
            "The config.json has no model_type, so transformers cannot know what model it is.",
            "Copy config.json from the model's repository again, or add model_type, such as llama.",
            kind="model_config",
        )
    model_type = str(config.get("model_type"))
    chosen = auto_class_name(config)
    if chosen == _CAUSAL:
        if model_type not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type in auto.MODEL_MAPPING_NAMES:
            raise WorkbenchError(f"{model_type} is not a causal language model.", _CURE, kind="model_not_causal")
        return
    if model_type not in transformers.CONFIG_MAPPING:
        return
    model_class = getattr(transformers, chosen)._model_mapping[type(transformers.CONFIG_MAPPING[model_type]())]
    if reason := _WITHOUT_TEXT_FORWARD.get(model_class.__name__) or _missing_in_forward(model_class):
        raise WorkbenchError(
            f"{model_class.__name__} {reason}, so it cannot be trained on text alone.", _CURE, kind="model_not_causal"
        )


def check_can_classify(model: "PreTrainedModel") -> None:
    """Check that transformers has a sequence classification of the model whose head reads the state of the last token.

    Raises:
        WorkbenchError: it has none, so that the adapter would load nowhere; kind ``model_not_classified``.
    """
    from transformers.models.auto import modeling_auto as auto

    config = model.config
    names = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    whole = config.get_text_config() is not config
    found = names.get(str(config.model_type))
    classifier = getattr(__import__("transformers"), found, None) if found and not whole else None
    if classifier is None or classifier.base_model_prefix != model.base_model_prefix:
        raise WorkbenchError(
            f"transformers has no sequence classification for {type(model).__name__}, so an adapter with a head on it "
            "would load nowhere.",
            "Choose another model, such as a Llama, Qwen or GPT-2; or set objective.kind to sft.",
            kind="model_not_classified",
        )


def _missing_in_forward(model_class: "type[PreTrainedModel]") -> str:
    if getattr(model_class.config_class, "is_encoder_decoder", False):
        return "reads one text and writes another (encoder and decoder)"
    parameters: dict[str, Any] = dict(inspect.signature(model_class.forward).parameters)
    if "input_ids" not in parameters:
        return "has no forward pass for text"
    needed = [
        name for name, one in parameters.items() if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    others = [name for name in needed if name not in ("self", "input_ids", "attention_mask")]
    return f"needs {' and '.join(others)} with each text" if others else ""


def _architectures(config: Mapping[str, object]) -> list[str]:
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []
