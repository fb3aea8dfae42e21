"""Write a tiny Llama with random weights and a vocabulary of words for mlx_lm; run by the Python that has MLX."""

import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import Tokenizer, models, pre_tokenizers

folder, words = Path(sys.argv[1]), sys.argv[2].split(",")
folder.mkdir(parents=True, exist_ok=True)
vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2} | {word: 3 + n for n, word in enumerate(words)}
tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "tokenizer_config.json").write_text(
    json.dumps(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "chat_template": "{% for m in messages %}{{ m['content'] }} {% endfor %}",
        }
    )
)
config = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": len(vocabulary),
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
(folder / "config.json").write_text(json.dumps(config))
mx.random.seed(1)
weights = dict(tree_flatten(Model(ModelArgs.from_dict(config)).parameters()))
mx.save_safetensors(str(folder / "model.safetensors"), weights)
