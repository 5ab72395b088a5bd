"""Which model a user means: a recipe, a folder of Hugging Face, a file, a packet, a function.

Rules of this file: torch is loaded by what builds; a folder is read where it lies, nothing is
fetched and no code of it runs; a function runs only where the user says so.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfd.cli.errors import CommandError, Misuse, nearest
from mfd.cli.packets import open_packet
from mfd.cli.plans import parse_recipe, read_plan
from mfd.cli.saving import noted_recipe, plan_of
from mfd.cli.sending import build
from mfd.core.blocks import BASE_KEY
from mfd.packet.errors import PacketError
from mfd.packet.plan import Plan
from mfd.packet.safetensors import map_safetensors

if TYPE_CHECKING:
    from torch import nn

__all__ = ["HfOrder", "from_hf", "hf_order", "module_of", "with_base"]

RANDOM = "random"  # --init: values by the seed instead of those in the folder
HEAD_NAMES = {
    "causal": "AutoModelForCausalLM",
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "image": "AutoModelForImageClassification",
}
ENDINGS = {  # of a class that a configuration names, and the head that it has
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForImageClassification": "image",
}
CONFIG_BYTES_MAX = 4 << 20
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HfOrder:
    """A model of Hugging Face, as the flags tell."""

    place: Path  # config.json, or the folder in which it lies
    head: str | None = None  # causal, sequence, token or image; as the configuration says
    labels: int | None = None  # of a classifier
    lora: str | None = None  # as r=8,alpha=16,targets=c_attn+c_proj
    init: Path | None = None  # tensors from elsewhere, or the word random
    seed: int = 0


def from_hf(order: HfOrder, recipe: Mapping[str, Any] | None = None) -> tuple[Table, nn.Module]:
    """Read configuration and weights; return the recipe that travels and the model.

    `recipe`: what a plan file says beside hf, such as its own names of layers. Raises: Misuse.
    """
    if not order.place.exists():
        raise Misuse(f"--hf {order.place}: there is no such folder or configuration")
    folder = order.place if order.place.is_dir() else order.place.parent
    config = order.place if order.place.is_file() else folder / "config.json"
    if not config.is_file():
        raise Misuse(f"--hf {order.place}: there is no {config}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from mfd.learn import hf, recipes
    except ImportError as exc:
        raise Misuse(f"building models needs {exc.name}: pip install 'mfd[hf]'") from exc
    told = _read_json(config)
    kind = HEAD_NAMES[_head(order, told)]
    values = {k: v for k, v in told.items() if k not in hf.LEFT_OUT}
    if order.labels is not None:
        values["num_labels"] = order.labels
    elif isinstance(told.get("id2label"), dict):
        values["num_labels"] = len(told["id2label"])
    made: Table = {k: v for k, v in (recipe or {}).items() if k in ("lora", "layers")}
    try:
        made["hf"] = hf.portable(hf.config_from(values), kind)
        dtype = told.get("dtype", told.get("torch_dtype"))
        if dtype not in (None, "float32"):
            made["hf"]["dtype"] = dtype
        if order.lora is not None:
            made["lora"] = _parse_lora(order.lora)
        base = recipes.init({"hf": made["hf"]}, order.seed)
        _fill(order, folder, config, kind, base)
        seeded = recipes.seeded(order.seed, lambda: hf.build(made, base))
    except ValueError as exc:
        raise Misuse(f"--hf {order.place}: {exc}") from exc
    return made, seeded


def _read_json(path: Path) -> Table:
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise Misuse(f"{path} is too large for a configuration")
        told = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as exc:
        raise Misuse(f"{path} cannot be read as a configuration: {exc}") from exc
    if not isinstance(told, dict) or "model_type" not in told:
        raise Misuse(f"{path} has no model_type: it is no configuration of a model")
    return told


def _head(order: HfOrder, told: Table) -> str:
    if order.head is not None:
        if order.head not in HEAD_NAMES:
            raise Misuse(f"--head {order.head}: {nearest(order.head, HEAD_NAMES)}")
        return order.head
    named = [name for name in told.get("architectures") or [] if isinstance(name, str)]
    for name in named:
        for ending, head in ENDINGS.items():
            if name.endswith(ending):
                return head
    what = f"is a {named[0]}, which" if named else "does not say its class; such a model"
    heads = ", ".join(HEAD_NAMES)
    raise Misuse(f"{order.place} {what} has no head that could learn here: give --head ({heads})")


def _parse_lora(text: str) -> Table:
    """Read `r=8,alpha=16,targets=c_attn+c_proj`. Raises: Misuse."""
    made: Table = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise Misuse(f"--lora {text}: {pair!r} is not KEY=VALUE, such as r=8")
        if key in ("targets", "keep"):
            made[key] = value.split("+")
        else:
            made[key] = parse_recipe(f"x:{key}={value}")[key]
    return made


def _fill(order: HfOrder, folder: Path, config: Path, kind: str, base: nn.Module) -> None:
    """Put the values of the folder, or of --init, into the model. Raises: Misuse, ValueError."""
    if order.init is not None and str(order.init) == RANDOM:
        return
    if order.init is not None:
        from mfd.cli.sending import load_into

        load_into(base, order.init)
        return
    if not any(folder.glob("*.safetensors")):
        raise Misuse(
            f"{folder} has no weights in the safetensors format: give --init FILE, or "
            f"--init {RANDOM} for initial values by --seed"
        )
    found, info = _read_weights(folder, kind, base, order.seed)
    new = sorted(info["missing_keys"])
    state = base.state_dict()
    lacking = sum(state[key].numel() for key in new if key in state)
    if info["mismatched_keys"] or lacking * 2 > sum(t.numel() for t in state.values()):
        names = ", ".join(str(key) for key in (*info["mismatched_keys"], *new))[:200]
        raise Misuse(f"the weights in {folder} are not those of {config}: {names}")
    if new:
        shown = ", ".join(new[:4]) + (" ..." if len(new) > 4 else "")
        print(f"not among the weights and new, by --seed: {shown}", file=sys.stderr)
    base.load_state_dict(found)


def _read_weights(
    folder: Path, kind: str, base: nn.Module, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a folder's model under today's names, and what was missing. Raises: Misuse."""
    import transformers

    from mfd.learn import recipes

    own: Any = base.config
    log: Any = transformers.utils.logging
    family = getattr(transformers, kind)
    before, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()  # it would draw a table of what we say in one sentence
    log.disable_progress_bar()
    try:
        module, info = recipes.seeded(
            seed,
            lambda: family.from_pretrained(
                folder,
                config=own,
                dtype=own.dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            ),
        )
    except (OSError, RuntimeError) as exc:
        reason = " ".join(str(exc).split())[:300]
        raise Misuse(f"the weights in {folder} do not fit its configuration: {reason}") from exc
    finally:
        log.set_verbosity(before)
        if bar:
            log.enable_progress_bar()
    return module.state_dict(), info


def with_base(plan: Plan, module: nn.Module) -> Plan:
    """Say in the plan how many layers are frozen, where the model has adapters."""
    from mfd.learn.layers import find_layers, frozen_count

    base = frozen_count(find_layers(module))
    return replace(plan, extra={**plan.extra, BASE_KEY: base}) if base else plan


def hf_order(
    place: Path | None, head: str | None, labels: int | None, lora: str | None
) -> HfOrder | None:
    """What the flags tell, or None without a place. Raises: Misuse."""
    if place is None:
        if head or labels or lora:
            raise Misuse("--head, --labels and --lora belong to a model given by --hf")
        return None
    return HfOrder(place, head, labels, lora)


def module_of(text: str, hf: HfOrder | None = None, *, allow_py: bool = False) -> nn.Module:
    """The model that `text` names, perhaps without its values. Raises: Misuse, CommandError."""
    path = Path(text)
    if path.is_dir() or path.suffix == ".json":
        return _sketch_hf(hf or HfOrder(path))
    if hf is not None and (hf.head or hf.labels or hf.lora):
        raise Misuse(
            f"--head, --labels and --lora belong to a folder of Hugging Face, not to {text}"
        )
    if path.suffix == ".safetensors":
        return _of_file(path)
    if path.suffix == ".mfd":
        return _of_packet(path)
    if path.suffix == ".toml":
        table = read_plan(path)
        if not table.get("recipe"):
            raise Misuse(f"plan {path} has no recipe")
        return build(table["recipe"])
    if text.startswith("py:"):
        return _of_function(text, allow_py=allow_py)
    if path.exists():
        raise Misuse(
            f"{text} is no model that can be read: folders and config.json of Hugging Face can, "
            ".safetensors, .mfd and plans in .toml; a function of yours is py:MODULE:FUNCTION"
        )
    recipe = parse_recipe(text)
    if ":" not in text and not _in_zoo(recipe["zoo"]):
        raise Misuse(
            f"there is no file or folder {text}, nor a model of that name in the zoo: give a "
            "recipe as cnn:inputs=1x8x8,classes=10, or a folder on this machine; nothing is fetched"
        )
    return build(recipe)


def _in_zoo(name: str) -> bool:
    try:
        from mfd.learn.zoo import ZOO
    except ImportError as exc:
        raise Misuse(f"building models needs {exc.name}: pip install 'mfd[learn]'") from exc
    return name in ZOO


def _sketch(recipe: Mapping[str, Any], source: Path) -> nn.Module:
    """The model of a recipe in a file, without its values. Raises: CommandError."""
    try:
        import torch

        from mfd.learn import recipes

        with torch.device("meta"):
            return recipes.init(recipe, 0)
    except ImportError as exc:
        raise Misuse(f"building models needs {exc.name}: pip install 'mfd[learn]'") from exc
    except (ValueError, TypeError) as exc:
        raise CommandError(f"the recipe in {source} cannot be built: {exc}") from exc


def _of_packet(path: Path) -> nn.Module:
    """The model of the plan that a packet carries, or of the recipe that it claims."""
    packet = open_packet(path)
    try:
        plan = plan_of(packet)
    except PacketError as exc:
        raise CommandError(f"the plan in {path} cannot be read: {exc}") from exc
    claimed = packet.manifest.claims.get("recipe")
    if plan is not None and plan.recipe:
        return _sketch(plan.recipe, path)
    if isinstance(claimed, str):
        return _sketch(parse_recipe(claimed), path)
    raise CommandError(
        f"{path} carries no plan that names its model; its layers: mfd packet inspect {path}"
    )


def _sketch_hf(order: HfOrder) -> nn.Module:
    """The model without its values: nothing is read but the configuration."""
    try:
        import torch

        with torch.device("meta"):
            _, module = from_hf(replace(order, init=Path(RANDOM)))
    except ImportError as exc:
        raise Misuse(f"building models needs {exc.name}: pip install 'mfd[hf]'") from exc
    return module


def _of_function(text: str, *, allow_py: bool) -> nn.Module:
    if not allow_py:
        raise Misuse(f"{text} runs code of yours: say so with --allow-py")
    place, colon, function = text.removeprefix("py:").partition(":")
    if not colon:
        raise Misuse(f"{text}: say py:MODULE:FUNCTION")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(place), function)()
    except Exception as exc:  # a task boundary: the user's code may raise anything
        raise Misuse(f"{text} made no model: {type(exc).__name__}: {exc}") from exc
    from torch import nn

    if not isinstance(made, nn.Module):
        raise Misuse(f"{text} made a {type(made).__name__}, not an nn.Module")
    return made


def _of_file(path: Path) -> nn.Module:
    """A model of a safetensors file, without values and without code: of the recipe in its notes,
    else of the names of its tensors.
    """
    try:
        found = map_safetensors(path)
    except (OSError, PacketError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise Misuse(f"model {path} cannot be read: {reason}") from exc
    if (recipe := noted_recipe(found.metadata)) is not None:
        return _sketch(recipe, path)
    try:
        from mfd.learn.layers import sketch
    except ImportError as exc:
        raise Misuse(f"finding layers needs {exc.name}: pip install 'mfd[learn]'") from exc
    if not found.tensors:
        raise CommandError(f"{path} has no tensors")
    try:
        return sketch({name: (t.dtype, t.shape) for name, t in found.tensors.items()})
    except ValueError as exc:
        raise CommandError(f"{path}: {exc}") from exc
