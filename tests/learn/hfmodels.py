"""Recipes of tiny models of Hugging Face."""

from __future__ import annotations

from typing import Any

Recipe = dict[str, Any]
BLOCKS = 3


def _hf(family: str, kind: str = "AutoModelForCausalLM", **config: Any) -> Recipe:
    return {"hf": {"class": kind, "config": {"model_type": family, **config}}}


SMALL = {"hidden_size": 16, "num_hidden_layers": BLOCKS, "num_attention_heads": 2}
GPT2 = _hf(
    "gpt2", n_layer=BLOCKS, n_embd=16, n_head=2, vocab_size=64, n_positions=32,
    bos_token_id=0, eos_token_id=0,
)  # fmt: skip
OPT = _hf(
    "opt", **SMALL, ffn_dim=32, vocab_size=64, word_embed_proj_dim=16, max_position_embeddings=32
)
LLAMA = _hf("llama", **SMALL, intermediate_size=32, vocab_size=64)
ROWS = "AutoModelForSequenceClassification"
BERT = _hf("bert", ROWS, **SMALL, intermediate_size=32, vocab_size=64, max_position_embeddings=32)
GPT2_ROWS = _hf("gpt2", ROWS, **{**GPT2["hf"]["config"], "pad_token_id": 1})
T5_ROWS = _hf("t5", ROWS, num_layers=2, d_model=16, d_ff=32, num_heads=2, d_kv=8, vocab_size=64)
PICTURES = "AutoModelForImageClassification"
VIT = _hf("vit", PICTURES, **SMALL, intermediate_size=32, image_size=8, patch_size=4)
RESNET = _hf(
    "resnet", PICTURES, embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic"
)
LORA = {"r": 4, "alpha": 8}


def with_lora(recipe: Recipe, **lora: Any) -> Recipe:
    return {**recipe, "lora": {**LORA, **lora}}
