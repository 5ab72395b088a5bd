"""Models of Hugging Face by recipe: built from a configuration that travels, never from a hub.

    {"hf": {"class": "AutoModelForCausalLM", "config": {"model_type": "gpt2", "n_layer": 2, ...}},
     "lora": {"r": 8, "alpha": 16, "targets": ["c_attn"]},      optional, see lora.py
     "layers": {"body": ["*.h.*"], "rest": ["*"]}}              optional, see finding.name_layers

Rules of this file: code never travels and none is fetched: `trust_remote_code` does not exist here,
a plan names families and settings that families.py lists and no others, and the hub is offline
while a model is built. Sizes come from strangers: all are bounded.
Tensors: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mfd.learn.families import FAMILIES, bounded, check_plain, check_settings, settings_of
from mfd.learn.finding import name_layers

__all__ = [
    "HEADS",
    "LEFT_OUT",
    "adapt",
    "build",
    "config_from",
    "config_json",
    "config_of",
    "is_hf",
    "portable",
]

HEADS = {  # class -> the plan's task
    "AutoModelForCausalLM": "language",
    "AutoModelForTokenClassification": "language",
    "AutoModelForSequenceClassification": "classification",
    "AutoModelForImageClassification": "classification",
}
LEFT_OUT = (  # of a configuration that is made into a recipe: where it came from, labels' names
    "_name_or_path", "architectures", "transformers_version", "auto_map", "id2label", "label2id",
    "dtype", "torch_dtype",
)  # fmt: skip
DTYPES = ("float32", "bfloat16", "float16")
MARK = "mfd_adapted"
KNOWN = ("hf", "lora", "layers", "axes")


def is_hf(module: nn.Module) -> bool:
    """Whether a module is a model of transformers or PEFT; neither is imported to find out."""
    return any(c.__name__ in ("PreTrainedModel", "PeftModel") for c in type(module).__mro__)


def adapt(module: nn.Module) -> nn.Module:
    """Let a model take rows of tokens and answer logits alone; others are left as they are.

    Names and tensors stay. Tokens that are the configuration's padding are masked where the model
    answers once a row: x_BT -> logits_BC. A language model sees no mask: x_BT -> logits_BTV.
    """
    if not is_hf(module) or getattr(module, MARK, False):
        return module
    config: Any = module.config
    config.use_cache = False
    module.register_forward_pre_hook(_mask, with_kwargs=True)
    module.register_forward_hook(_logits)
    setattr(module, MARK, True)
    return module


def _mask(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    config: Any = module.config
    pad = getattr(config, "pad_token_id", None)
    whole: Any = module
    inner = whole.get_base_model() if hasattr(module, "get_base_model") else module
    whole_rows = type(inner).__name__.endswith(("CausalLM", "LMHeadModel"))
    if pad is None or whole_rows or not args or "attention_mask" in kwargs:
        return None
    if args[0].is_floating_point():
        return None
    mask = args[0] != pad
    mask[:, 0] = True  # a row of nothing else still needs a token to look at
    return args, kwargs | {"attention_mask": mask.long()}


def _logits(_: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
    return getattr(out, "logits", out)


def build(recipe: Mapping[str, Any], base: nn.Module | None = None) -> nn.Module:
    """Make the model that a recipe names, with initial values of the library's own.

    `base` takes the place of the model without adapters, where its values are known already.
    Raises: ValueError, one sentence.
    """
    strange = [key for key in recipe if key not in KNOWN]
    if strange:
        raise ValueError(f"a recipe with hf has no {strange[0]!r}; it has {', '.join(KNOWN)}")
    with _offline(), bounded():
        config, kind = config_of(recipe)
        dtype = getattr(torch, recipe["hf"].get("dtype", "float32"))
        try:
            import transformers

            module = base or getattr(transformers, kind).from_config(config, dtype=dtype)
            if "lora" in recipe:
                from mfd.learn.lora import with_lora

                module = with_lora(module, recipe["lora"], kind)
        except Exception as exc:  # every family fails in its own way
            raise ValueError(f"the model cannot be built: {_first_line(exc)}") from exc
    if "layers" in recipe:
        name_layers(module, recipe["layers"])
    return adapt(module.eval())


def config_of(recipe: Mapping[str, Any]) -> tuple[Any, str]:
    """The configuration and the class of a recipe, checked. Raises: ValueError."""
    hf = recipe.get("hf")
    if not isinstance(hf, Mapping) or not isinstance(hf.get("config"), Mapping):
        raise ValueError('a recipe with hf is {"hf": {"class": ..., "config": {...}}}')
    for key in hf:
        if key not in ("class", "config", "dtype"):
            raise ValueError(f"recipe hf has no {key!r}; it has class, config, dtype")
    kind, values = hf.get("class", "AutoModelForCausalLM"), dict(hf["config"])
    if not isinstance(kind, str) or kind not in HEADS:
        raise ValueError(f"recipe hf: class is one of {', '.join(HEADS)}, not {kind!r}")
    if hf.get("dtype", "float32") not in DTYPES:
        raise ValueError(f"recipe hf: dtype is one of {', '.join(DTYPES)}, not {hf['dtype']!r}")
    family = values.pop("model_type", None)
    check_plain(values, "config")
    _check_family(family)
    check_settings(family, values)
    return _config(family, values), kind


def config_from(values: Mapping[str, Any]) -> Any:
    """The configuration of a user's own folder, in which more may stand than travels.

    Raises: ValueError.
    """
    rest = {key: value for key, value in values.items() if key != "model_type"}
    check_plain(rest, "config")
    family = values.get("model_type")
    _check_family(family)
    return _config(str(family), rest)


def _check_family(family: object) -> None:
    try:
        from transformers import CONFIG_MAPPING
    except ImportError as exc:
        raise ValueError(f"models of Hugging Face need {exc.name}: pip install 'mfd[hf]'") from exc
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no model_type {family!r}")
    if family not in FAMILIES:
        raise ValueError(
            f"model_type {family!r} is not one that a plan may name: {', '.join(sorted(FAMILIES))}"
        )


def _config(family: str, values: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    try:
        return CONFIG_MAPPING[family].from_dict(dict(values))
    except Exception as exc:  # every family checks its own values in its own way
        raise ValueError(f"the configuration does not fit {family}: {_first_line(exc)}") from exc


def _first_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300] or type(exc).__name__


def portable(config: Any, kind: str) -> dict[str, Any]:
    """Make `{"class": ..., "config": ...}` of a configuration. Raises: ValueError."""
    known = settings_of(config.model_type)
    values = {k: v for k, v in config.to_diff_dict().items() if k in known and v is not None}
    values["model_type"] = config.model_type
    if HEADS[kind] == "classification" or kind == "AutoModelForTokenClassification":
        values["num_labels"] = config.num_labels
    made = {"class": kind, "config": _plain(values)}
    dtype = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    if dtype != "float32":
        made["dtype"] = dtype
    config_of({"hf": made})
    return made


def config_json(recipe: Mapping[str, Any]) -> str:
    """What transformers expects as `config.json` beside the weights. Raises: ValueError."""
    with torch.device("meta"):
        module = build(recipe)
    config: Any = module.config
    config.architectures = [type(module).__name__]
    text: str = config.to_json_string()
    return text


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple() | set():
            return [_plain(v) for v in value]
        case bool() | int() | float() | str() | None:
            return value
        case _:
            raise ValueError(f"{value!r} in the configuration is no plain value")


@contextmanager
def _offline() -> Iterator[None]:
    """Nothing is fetched while a model is built, whatever a configuration says."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from huggingface_hub import constants
    except ImportError as exc:
        raise ValueError(f"models of Hugging Face need {exc.name}: pip install 'mfd[hf]'") from exc
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
