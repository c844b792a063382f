"""A small Llama of random weights, large enough that computing 3,000 tokens costs noticeably more than reading them.

The weights are drawn with a spread that makes attention matter: with vLLM's `--load-format dummy` (all weights near zero) every prefix
gives the same tokens, and a comparison of tokens would prove nothing. arm.py checks that it does.
"""
from __future__ import annotations

import json
from pathlib import Path

VOCAB = 512
HIDDEN = 192
INTERMEDIATE = 512
LAYERS = 3
HEADS = 3
KV_HEADS = 1
HEAD_DIM = 64
MAX_LEN = 16384
FIRST_TOKEN = 3  # below it are the special ones

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM, "max_position_embeddings": MAX_LEN, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "float32",
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "hidden_act": "silu",
}


def write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(FIRST_TOKEN, VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
             "model_max_length": MAX_LEN}
    (directory / "tokenizer_config.json").write_text(json.dumps(about))


def write_weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(20261122)

    def drawn(rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * gain / columns**0.5

    tensors = {"model.embed_tokens.weight": torch.randn(VOCAB, HIDDEN, generator=generator), "lm_head.weight": drawn(VOCAB, HIDDEN, 2.0),
               "model.norm.weight": torch.ones(HIDDEN)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        tensors[p + "input_layernorm.weight"] = torch.ones(HIDDEN)
        tensors[p + "post_attention_layernorm.weight"] = torch.ones(HIDDEN)
        # Queries and keys of this spread look at few tokens each instead of at the mean of 3,000.
        tensors[p + "self_attn.q_proj.weight"] = drawn(HEADS * HEAD_DIM, HIDDEN, 1.8)
        tensors[p + "self_attn.k_proj.weight"] = drawn(KV_HEADS * HEAD_DIM, HIDDEN, 1.8)
        tensors[p + "self_attn.v_proj.weight"] = drawn(KV_HEADS * HEAD_DIM, HIDDEN, 2.0)
        tensors[p + "self_attn.o_proj.weight"] = drawn(HIDDEN, HEADS * HEAD_DIM)
        tensors[p + "mlp.gate_proj.weight"] = drawn(INTERMEDIATE, HIDDEN)
        tensors[p + "mlp.up_proj.weight"] = drawn(INTERMEDIATE, HIDDEN)
        tensors[p + "mlp.down_proj.weight"] = drawn(HIDDEN, INTERMEDIATE)
    save_file(tensors, str(path), metadata={"format": "pt"})


def write_model(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    write_tokenizer(directory)
    write_weights(directory / "model.safetensors")
