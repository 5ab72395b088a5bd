"""Adapters of low rank on a frozen base: PEFT makes them, their layers alone learn and travel.

    "lora": {"r": 8, "alpha": 16, "targets": ["c_attn"], "dropout": 0.0, "keep": ["classifier"]}

`targets`: names of the modules that get an adapter; what PEFT takes for the family where left out.
`keep`: modules that learn as a whole; the head of a classifier where left out.
Rules of this file: the base never changes a bit; files are written under PEFT's own names.
Source: arXiv 2106.09685.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mfd.learn.errors import LearnError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["adapter_config", "adapter_name", "settings_of", "with_lora"]

RANK_MAX = 4096
NAMES_MAX = 64
TASKS = {
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForSequenceClassification": "SEQ_CLS",
}
KNOWN = ("r", "alpha", "targets", "dropout", "keep")
WHOLE = "modules_to_save."
ADAPTER = "default"  # PEFT's name for the only adapter; its files leave it out


def settings_of(lora: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for PEFT's LoraConfig. Raises: ValueError, one sentence."""
    for key in lora:
        if key not in KNOWN:
            raise ValueError(f"recipe lora has no {key!r}; it has {', '.join(KNOWN)}")
    rank, alpha, dropout = lora.get("r", 8), lora.get("alpha", 16), lora.get("dropout", 0.0)
    if type(rank) is not int or not 1 <= rank <= RANK_MAX:
        raise ValueError(f"recipe lora: r is a whole number from 1 to {RANK_MAX}, not {rank!r}")
    if type(alpha) not in (int, float) or not 0 < alpha <= 1e6:
        raise ValueError(f"recipe lora: alpha is a number above 0, not {alpha!r}")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise ValueError(f"recipe lora: dropout is a number from 0 to 1, not {dropout!r}")
    made = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
    for key, theirs in (("targets", "target_modules"), ("keep", "modules_to_save")):
        names = lora.get(key)
        if names is None:
            continue
        if not isinstance(names, list | tuple) or len(names) > NAMES_MAX:
            raise ValueError(f"recipe lora: {key} is a list of names of modules, not {names!r}")
        if not all(isinstance(name, str) and name for name in names):
            raise ValueError(f"recipe lora: {key} is a list of names of modules, not {names!r}")
        made[theirs] = list(names)
    return made


def with_lora(module: nn.Module, lora: Mapping[str, Any], kind: str) -> nn.Module:
    """Freeze a model and give it adapters. Raises: ValueError, one sentence."""
    try:
        import peft
    except ImportError as exc:
        raise ValueError(f"a recipe with lora needs {exc.name}: pip install 'mfd[hf]'") from exc
    settings = settings_of(lora)
    _check_targets(module, settings.get("target_modules", ()))
    if kind in TASKS:
        settings["task_type"] = TASKS[kind]
    elif "modules_to_save" not in settings:
        settings["modules_to_save"] = ["classifier"]
    # GPT-2 keeps its linear layers transposed, as a class of its own
    settings["fan_in_fan_out"] = _is_transposed(module, settings.get("target_modules"))
    with warnings.catch_warnings():  # PEFT asks transformers under a name that is going away
        warnings.simplefilter("ignore", FutureWarning)
        made: nn.Module = peft.get_peft_model(module, peft.LoraConfig(**settings))
    return made


def _check_targets(module: nn.Module, targets: Iterable[str]) -> None:
    """PEFT is content when one of them is found; we are not. Raises: ValueError."""
    named = dict(module.named_modules())
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in named):
            flat = {n.rpartition(".")[2] for n, m in named.items() if _is_flat(m)}
            known = ", ".join(sorted(flat)[:12])
            raise ValueError(
                f"recipe lora: no module is called {target!r}; adapters fit on {known}"
            )


def _is_flat(module: nn.Module) -> bool:
    """Whether it is a linear layer, a GPT-2's too."""
    return type(module).__name__ in ("Linear", "Conv1D")


def _is_transposed(module: nn.Module, targets: list[str] | None) -> bool:
    kinds = {
        type(child).__name__
        for name, child in module.named_modules()
        if targets is None or name.rpartition(".")[2] in targets
    }
    return "Conv1D" in kinds


def adapter_name(key: str) -> str:
    """The name of an adapter's tensor in PEFT's files, of its name in the state.

    Raises: LearnError for a tensor of the base.
    """
    if WHOLE in key:
        return key.replace(f"{WHOLE}{ADAPTER}.", "")
    if f".{ADAPTER}" not in key:
        raise LearnError(f"{key!r} is no tensor of an adapter")
    return key.replace(f".{ADAPTER}", "")


def adapter_config(recipe: Mapping[str, Any]) -> str:
    """What PEFT expects as `adapter_config.json` beside the adapter. Raises: ValueError."""
    import torch

    from mfd.learn import hf

    with torch.device("meta"):
        module: Any = hf.build(recipe)
    values = module.peft_config[ADAPTER].to_dict()
    plain = {
        k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in values.items()
    }
    return json.dumps(plain | {"inference_mode": True}, indent=2, sort_keys=True)
