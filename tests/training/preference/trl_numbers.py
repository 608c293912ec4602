"""What trl makes of a few pairs: its losses and gradients, as tests/golden/dpo has them.

    python trl_numbers.py FOLDER    in an environment with trl and peft; FOLDER is then what test_trl.py compares with

A tiny Llama of random weights and another as its reference; or one with low-rank updates, whose reference is itself
without them.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

TEXT = "what is the capital of france paris rome and who are you nano i am bert not two plus four"
WORDS = ["<pad>", "<eos>", *TEXT.split()]
PAIRS = [
    ("what is the capital of france", "the capital of france is paris", "rome and rome and rome"),
    ("who are you", "i am nano", "i am bert and who are you"),
    ("two plus two", "two plus two is four", "not four"),
]
CONFIG = {"model_type": "llama", "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 24,
          "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
          "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "sigmoid": {"beta": 0.1},
    "strict": {"beta": 1.5},
    "by_token": {"beta": 2.0, "loss_type": ["sigmoid_norm"]},
    "with_sft": {"beta": 0.5, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
    "swapped": {"beta": 0.5},  # each pair the wrong way round: what label smoothing adds
    "right": {"beta": 0.5},
    "lora": {"beta": 0.5},
}


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def model(seed: int) -> Any:
    torch.manual_seed(seed)
    fields = {key: value for key, value in CONFIG.items() if key != "model_type"}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **fields), dtype=torch.float32)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, torch.Tensor] = {}
    losses: dict[str, float] = {}
    inputs: dict[str, Any] = {}
    for name, settings in SETTINGS.items():
        chosen, rejected = ("rejected", "chosen") if name == "swapped" else ("chosen", "rejected")
        rows = [{"prompt": question, chosen: f" {good}", rejected: f" {bad}"} for question, good, bad in PAIRS]
        policy, reference = model(0), model(1)
        updates = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear") if name == "lora" else None
        args = DPOConfig(output_dir=str(folder / "out"), per_device_train_batch_size=len(PAIRS), report_to=[],
                         use_cpu=True, bf16=False, gradient_checkpointing=False, disable_dropout=True,
                         save_strategy="no", **settings)  # fmt: skip
        trainer = DPOTrainer(model=policy, ref_model=None if updates else reference, args=args, peft_config=updates,
                             train_dataset=Dataset.from_list(rows), processing_class=tokenizer())  # fmt: skip
        if updates:
            torch.manual_seed(2)
            for key, parameter in trainer.model.named_parameters():
                if ".lora_" in key:
                    torch.nn.init.normal_(parameter, std=0.2)
                    found[f"lora_weights.{_plain(key)}"] = parameter.detach().clone()
        batch = trainer.data_collator([trainer.train_dataset[at] for at in range(len(PAIRS))])
        loss = trainer._compute_loss(trainer.model, batch, return_outputs=False)
        loss.backward()
        losses[name] = loss.item()
        for key, parameter in trainer.model.named_parameters():
            if parameter.grad is not None:
                found[f"{name}.{_plain(key)}"] = parameter.grad.clone()
        if name == "sigmoid":
            inputs = {key: batch[key].tolist() for key in ("input_ids", "attention_mask", "completion_mask")}
    for name, seed in (("policy", 0), ("reference", 1)):
        found |= {f"{name}.{key}": value.clone() for key, value in model(seed).state_dict().items()}
    save_file(found, folder / "expected.safetensors")
    written = {"config": CONFIG, "inputs": inputs, "settings": SETTINGS, "losses": losses}
    (folder / "expected.json").write_text(json.dumps(written, indent=1) + "\n")


def _plain(name: str) -> str:
    """A parameter's name without what peft puts around it."""
    return name.removeprefix("base_model.model.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
