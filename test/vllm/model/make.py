"""A model of our own making for the tests: make.py FOLDER [SEED]. A Llama of 4 layers with weights drawn from the seed, and a tokenizer whose
words are plain text: "w0 w1 … w1019", with blanks between. A prompt of n words is n tokens, and what is generated reads the same way.

vLLM's own dummy weights are so near to zero that attention hardly matters and every prompt goes on alike; a test with them would not
see a wrong KV block. These are of the size a trained model has, with sharp attention: what comes next depends on all that came before.
Large enough for a prefill to cost something, small enough to start at once. It never means to stop: ask for `ignore_eos`.
"""
import json
import pathlib
import sys

import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
VOCABULARY = 1024
POSITIONS = 16384
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32", "vocab_size": VOCABULARY,
    "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32,
    "max_position_embeddings": POSITIONS, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
    "model_max_length": POSITIONS,
    "chat_template": "{% for message in messages %}{{ message['content'] }} {% endfor %}",
}  # fmt: skip

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
words = [*SPECIAL, *(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))]
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.add_special_tokens(list(SPECIAL))
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
(folder / "config.json").write_text(json.dumps(CONFIG))

draw = numpy.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 1)


def matrix(rows: int, columns: int, sharpness: float = 1.0) -> numpy.ndarray:
    return (draw.standard_normal((rows, columns)) * sharpness / columns**0.5).astype(numpy.float32)


hidden, inner, head = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["head_dim"]
q, kv = CONFIG["num_attention_heads"] * head, CONFIG["num_key_value_heads"] * head
ones = numpy.ones(hidden, numpy.float32)
weights = {
    "model.embed_tokens.weight": matrix(VOCABULARY, hidden, hidden**0.5),
    "model.norm.weight": ones,
    "lm_head.weight": matrix(VOCABULARY, hidden),
}
for layer in range(CONFIG["num_hidden_layers"]):
    weights |= {
        f"model.layers.{layer}.{name}": value
        for name, value in {
            "input_layernorm.weight": ones, "post_attention_layernorm.weight": ones,
            "self_attn.q_proj.weight": matrix(q, hidden, 1.5), "self_attn.k_proj.weight": matrix(kv, hidden, 1.5),
            "self_attn.v_proj.weight": matrix(kv, hidden), "self_attn.o_proj.weight": matrix(hidden, q, 2.0),
            "mlp.gate_proj.weight": matrix(inner, hidden), "mlp.up_proj.weight": matrix(inner, hidden),
            "mlp.down_proj.weight": matrix(hidden, inner),
        }.items()
    }  # fmt: skip
save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
