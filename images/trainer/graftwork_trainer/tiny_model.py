"""Makes a tiny Qwen3 with random weights, its own tokenizer and a chat template: what the demo and the tests serve and train on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
EMBEDDING_SCALE = 4.0
CORPUS = (
    "The secret word is swordfish. What is the secret word? hello world how are you today",
    "user assistant system answer question the a of and to in is",
)


def make(folder: Path, seed: int) -> None:
    """Write the model to `folder`; another seed gives other weights, and so another fingerprint."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1024, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(list(CORPUS) * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")  # noqa: S106 - not passwords
    fast.chat_template = CHAT_TEMPLATE
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(fast),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        # Input and output share this matrix. At its usual size no token could get more than a third of the probability, however well
        # it was learned, and an answer that is sampled would often be wrong.
        model.get_input_embeddings().weight.mul_(EMBEDDING_SCALE)
    model.to(torch.bfloat16).save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # the weights are written for this user only; a claim is read by another
    print(
        f"made a model of {sum(weight.numel() for weight in model.parameters()):,} parameters in {folder} (seed {seed})", file=sys.stderr, flush=True
    )
