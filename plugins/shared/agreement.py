"""Whether an engine says what another says: greedy texts of SmolLM2 for twenty prompts, up to numerical ties.

    python plugins/shared/agreement.py --rewrite

writes `agreement.json` anew: what transformers' own `generate` says in float32, without Stillhouse, token by
token, and by how much each token was ahead of the next one. The tests of transformers hold the file to the
library; those of the other engines compare with the file, so that none needs two engines in one environment.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["CHATS", "PARAMETERS", "differences", "expected", "of_the_library"]

FILE = Path(__file__).with_suffix(".json")

TIE = 0.05
"""Tokens whose log-probabilities are so near to each other may change places between engines."""

QUESTIONS = [
    "Name a river in Peru.",
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "How many days has a week?",
    "Say hello in Spanish.",
    "What do bees make?",
    "Name three colours.",
    "Why is the sky blue?",
    "Give me a word that rhymes with cat.",
    "What is two plus two?",
    "Who wrote Hamlet?",
    "Name a planet.",
    "Is ice cold or hot?",
    "Describe a mountain in five words.",
    "What is bread made of?",
    "Tell me a short story about a dog that found a key in the garden and gave it to a child.",
    "Which is larger, the sun or the moon?",
    "List two vegetables.",
    "What does a clock show?",
    "Finish the sentence: once upon a time",
]

CHATS: list[Any] = [[{"role": "user", "content": question}] for question in QUESTIONS]

PARAMETERS: dict[str, Any] = {"temperature": 0, "max_new_tokens": 8}


def of_the_library(model: Path) -> list[Any]:
    """For each chat, the pieces of the answer, a token each, and the lead of each over the next in nats."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    library = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    answers = []
    for chat in CHATS:
        prompt = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = library.generate(
            **prompt, max_new_tokens=PARAMETERS["max_new_tokens"], do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        ids = made.sequences[0, prompt["input_ids"].shape[1] :].tolist()
        best = [torch.topk(step.log_softmax(-1)[0], 2).values.tolist() for step in made.logits]
        pieces, leads, said, lead = [], [], "", float("inf")
        for end, (first, second) in enumerate(best, 1):
            text, lead = tokenizer.decode(ids[:end], skip_special_tokens=True), min(lead, first - second)
            if text.endswith("\ufffd") and end < len(ids):
                continue  # a part of a character: one piece with what completes it
            pieces.append(text[len(said) :])
            leads.append(round(lead, 3))
            said, lead = text, float("inf")
        answers.append({"pieces": pieces, "leads": leads})
    return answers


def expected() -> list[Any]:
    """What is in the file."""
    answers: list[Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return answers


def differences(outputs: Any) -> list[str]:
    """Where the first generations of the outputs part from the file and no tie excuses it.

    Args:
        outputs: of `CHATS` with `PARAMETERS`, in order.
    """
    found = []
    for question, answer, output in zip(QUESTIONS, expected(), outputs, strict=True):
        text, said = output["generations"][0] or "", ""
        for piece, lead in zip(answer["pieces"], answer["leads"], strict=True):
            if not text.startswith(said + piece):
                if lead >= TIE:
                    found.append(f"{question} {said!r}, then not {piece!r}, {lead} ahead, but {text!r}")
                break
            said += piece
        else:
            if text != said:
                found.append(f"{question} more than {said!r}: {text!r}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rewrite", action="store_true", required=True)
    parser.parse_args()
    from small_models import smollm2

    FILE.write_text(json.dumps(of_the_library(smollm2()), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
