"""Makes a tiny embedding model and a tiny reranker, and says what transformers itself answers with them: run inside the trainer's image.

    python3 -c <this text> <folder> [<s3 prefix>]

The embedding model is a Qwen3 with the modules of sentence-transformers (last token, normalized); the reranker a BERT that scores pairs. Printed
is one line of JSON: the vectors of TEXTS, and the scores of QUERY with each of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TEXTS = ["the secret word is swordfish", "hello world", "how are you today my friend"]
WIDTH = 128  # four heads of 32: vLLM's attention on CPUs knows none that is narrower
QUERY = "what is the secret word"
TRANSFORMER, POOLING, NORMALIZE = (f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize"))
_PAIR = "[CLS] $A [SEP] $B:1 [SEP]:1"


def tokenizer(folder: Path, *, pairs: bool) -> Any:
    """Write a tokenizer of bytes and return it; one of pairs marks them as BERT does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [*TEXTS, QUERY] * 10, trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    if pairs:
        ids = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=_PAIR, special_tokens=ids)
    marks = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    inputs = ["input_ids", *(["token_type_ids"] if pairs else []), "attention_mask"]
    fast = PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=inputs, model_max_length=512, **marks)
    fast.save_pretrained(folder)
    return fast


def embedding(folder: Path) -> list[list[float]]:
    """Make the embedding model and return its vectors of TEXTS."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer(folder, pairs=False)
    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    }
    torch.manual_seed(1)
    model = Qwen3Model(Qwen3Config(vocab_size=len(words), max_position_embeddings=512, pad_token_id=words.pad_token_id, **shape)).eval()
    model.save_pretrained(folder)
    modules = [(TRANSFORMER, ""), (POOLING, "1_Pooling"), (NORMALIZE, "2_Normalize")]
    listed = [{"idx": number, "name": str(number), "path": path, "type": kind} for number, (kind, path) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH, "pooling_mode_lasttoken": True}))
    with torch.no_grad():
        last = [model(**words(text, return_tensors="pt")).last_hidden_state[0, -1] for text in TEXTS]
    return [torch.nn.functional.normalize(vector, dim=0).tolist() for vector in last]


def reranker(folder: Path) -> list[float]:
    """Make the reranker and return the scores of QUERY with each of TEXTS."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer(folder, pairs=True)
    shape = {"hidden_size": WIDTH, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 1}
    torch.manual_seed(2)
    config = BertConfig(vocab_size=len(words), max_position_embeddings=512, pad_token_id=words.pad_token_id, initializer_range=0.3, **shape)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    with torch.no_grad():
        logits = [model(**words(QUERY, text, return_tensors="pt")).logits[0, 0] for text in TEXTS]
    return [float(torch.sigmoid(logit)) for logit in logits]


def main(given: list[str]) -> None:
    """Make both, put them into the bucket if one is named, and print what transformers answers."""
    folder = Path(given[0])
    answers = {"embedding": embedding(folder / "tiny-embedding"), "reranker": reranker(folder / "tiny-reranker")}
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if given[1:]:
        from graftwork_trainer import objects

        for name in ("tiny-embedding", "tiny-reranker"):
            objects.put_folder(folder / name, f"{given[1]}/{name}")
    print(f"\n{json.dumps(answers)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
