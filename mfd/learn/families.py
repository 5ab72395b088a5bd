"""Which models of Hugging Face a plan may name, which of their settings, and with what values.

Rules of this file: what is not listed is refused. A family is here if its code lies in transformers
itself, reads neither hub nor files, and takes its memory in tensors, so that it can be sized on the
meta device. A setting is one that the family's own configuration declares; a value is plain.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

__all__ = ["FAMILIES", "NEVER", "bounded", "check_plain", "check_settings", "settings_of"]

FAMILIES = frozenset((
    "biogpt", "bloom", "cohere", "falcon", "gemma", "gemma2", "gpt2", "gpt_bigcode",
    "gpt_neo", "gpt_neox", "gptj", "granite", "llama", "mistral", "mixtral", "olmo",
    "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2",
    "albert", "bart", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra",
    "ernie", "mobilebert", "modernbert", "mpnet", "mt5", "roberta", "squeezebert", "t5",
    "xlm-roberta", "beit", "convnext", "convnextv2", "dinov2", "mobilenet_v1",
    "mobilenet_v2", "poolformer", "regnet", "resnet", "segformer", "swin", "vit",
))  # fmt: skip
NUMBER_MAX = 1 << 21  # one width, length or size of a vocabulary in a configuration
DEPTH_MAX = 1024  # blocks, or entries of a list: neighbouring layers are grouped beyond 256
LABELS_MAX = 1 << 16  # a configuration keeps a name for each
MODULES_MAX = 1 << 14  # of a model; a hundred blocks with adapters have about 8,000
FORBIDDEN = (  # parts of keys behind which code, kernels, weights or places could stand
    "auto_map", "trust", "quantization", "implementation", "kernel", "backbone", "pretrained",
    "path", "url", "revision", "timm", "adapter", "repo",
)  # fmt: skip
COMMON = (  # of all families, whether a version of the library declares them or not
    "bos_token_id", "eos_token_id", "num_labels", "pad_token_id", "problem_type",
    "tie_word_embeddings",
)  # fmt: skip
NEVER = (  # declared, and not a plan's business: form of the answer, origin, labels' names, tables
    "self", "args", "kwargs", "architectures", "chunk_size_feed_forward", "dtype", "id2label",
    "label2id", "output_attentions", "output_hidden_states", "return_dict", "sinusoidal_pos_embds",
    "torch_dtype", "transformers_version", "use_cache",
)  # fmt: skip
MAPPINGS = ("rope_parameters", "rope_scaling")  # the only settings that are tables
WORD = re.compile(r"[A-Za-z0-9_.+-]{0,64}")  # no place and no name of a repository fits it


@lru_cache(maxsize=len(FAMILIES))
def settings_of(family: str) -> frozenset[str]:
    """Names of the settings that a plan may give to a family of `FAMILIES`."""
    from transformers import CONFIG_MAPPING

    made: Any = CONFIG_MAPPING[family]
    declared = inspect.signature(made.__init__).parameters
    aliases: Mapping[str, str] = getattr(made, "attribute_map", {})
    found = {*declared, *COMMON, *(a for a, name in aliases.items() if name in declared)}
    return frozenset(found - {name for name in found if name in NEVER or forbids(name)})


def forbids(key: str) -> bool:
    """Whether code, weights or a place could stand behind a key."""
    words = key.lower().replace("drop_path", "")  # a rate of many vision models, and no path
    return any(part in words for part in FORBIDDEN)


def check_settings(family: str, values: Mapping[str, Any]) -> None:
    """Refuse settings that are not the family's, and values that are not plain.

    Raises: ValueError, one sentence.
    """
    known = settings_of(family)
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"recipe hf: config.{key} is not allowed in a plan for {family}")
        if isinstance(value, Mapping) and key not in MAPPINGS:
            raise ValueError(f"recipe hf: config.{key} is a number, a word or a list, not a table")
        _check_words(value, f"config.{key}")


def _check_words(value: object, where: str) -> None:
    match value:
        case Mapping():
            for key, inner in value.items():
                _check_words(key, where)
                _check_words(inner, where)
        case list() | tuple():
            for inner in value:
                _check_words(inner, where)
        case str():
            if not WORD.fullmatch(value):
                raise ValueError(f"recipe hf: {where} is {value[:80]!r}, not a plain word")
        case None | bool() | int() | float():
            pass
        case _:
            raise ValueError(f"recipe hf: {where} is a {type(value).__name__}, not a plain value")


def check_plain(value: object, where: str) -> None:
    """Refuse what could name code or a place, and sizes out of range. Raises: ValueError."""
    match value:
        case Mapping():
            if len(value) > DEPTH_MAX:
                raise ValueError(f"recipe hf: {where} has {len(value)} entries > {DEPTH_MAX}")
            for key, inner in value.items():
                words = str(key).lower()
                if inner is not None and forbids(words):
                    raise ValueError(f"recipe hf: {where}.{key} is not allowed in a plan")
                most = _most(words)
                if type(inner) is int and abs(inner) > most:
                    raise ValueError(f"recipe hf: {where}.{key} is {inner}, above {most}")
                check_plain(inner, f"{where}.{key}")
        case list() | tuple():
            if len(value) > DEPTH_MAX:
                raise ValueError(f"recipe hf: {where} has {len(value)} entries > {DEPTH_MAX}")
            for inner in value:
                check_plain(inner, where)
        case int() if abs(value) > NUMBER_MAX:
            raise ValueError(f"recipe hf: {where} is {value}, above {NUMBER_MAX}")


def _most(key: str) -> int:
    if key == "num_labels":
        return LABELS_MAX
    return DEPTH_MAX if "layer" in key else NUMBER_MAX


@contextmanager
def bounded() -> Iterator[None]:
    """Stop the building of a model that would have too many modules. Raises: ValueError."""
    from torch.nn.modules.module import register_module_module_registration_hook as watch

    count = 0

    def counted(_: object, name: str, __: object) -> None:
        nonlocal count
        count += 1
        if count > MODULES_MAX:
            raise ValueError(f"it has more than {MODULES_MAX} modules")

    hook = watch(counted)
    try:
        yield
    finally:
        hook.remove()
