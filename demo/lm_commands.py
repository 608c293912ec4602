"""The commands ``duologue lm …``: n-gram language models of text, in ARPA files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..checkpoints.outputs import keep_apart
from ..checkpoints.program import say, say_progress
from .home import Commands

lm_commands = Commands(no_args_is_help=True, rich_markup_mode=None)
Model = Annotated[Path, typer.Argument(help="A model (.arpa).")]
Output = Annotated[Path, typer.Option("-o", "--output", help="The model to write (.arpa).")]
Tokens = Annotated[str, typer.Option(help="The folder of the tokenizer, if the model is over tokens.")]


@lm_commands.command("train")
def lm_train(
    words: Annotated[list[str], typer.Argument(metavar="TEXT... [KEY=VALUE]...", help="UTF-8, a sentence a line.")],
    output: Output,
) -> None:
    """Count the n-grams of texts, and write their model. Texts may be larger than memory.

    \b
    duologue lm train questions.txt -o questions.arpa                       words, order 3, Kneser-Ney
    duologue lm train questions.txt -o questions.arpa tokens=mini order=4   over a model's tokens
    duologue lm train a.txt b.txt held_out=dev.txt -o both.arpa             two models, interpolated as suits dev.txt
    duologue lm train a.txt smoothing=katz min_count=2 -o katz.arpa         a wrong key lists all
    """
    from ..checkpoints.settings import read_settings
    from ..data_prep.text.ngram_files import TrainConfig, save, train
    from ..model.errors import DuologueError

    texts = [Path(word) for word in words if "=" not in word]
    config = read_settings(TrainConfig, [word for word in words if "=" in word], "lm train")
    if not texts:
        raise DuologueError("lm train needs a text: duologue lm train text.txt -o lm.arpa")
    keep_apart({"-o": output}, {"a text": texts, "held_out=": config.held_out})
    model = train(texts, config, say_progress)
    save(model, output)
    sizes = ", ".join(f"{len(table.keys):,} of order {m}" for m, table in enumerate(model.tables, 1))
    say(f"{output}: n-grams: {sizes}")


@lm_commands.command("perplexity")
def lm_perplexity(
    model: Model,
    texts: Annotated[list[Path], typer.Argument(metavar="TEXT...", help="UTF-8, a sentence a line.")],
    tokens: Tokens = "",
) -> None:
    """How well a model predicts texts: exp of the mean negative log-probability of a word, sentence ends included.

    \b
    duologue lm perplexity questions.arpa dev.txt
    """
    from ..data_prep.text.ngram_files import load, perplexity

    found = perplexity(load(model), texts, tokens)
    say(f"perplexity {found.perplexity:.2f}; without {found.unknown} unknown words {found.known:.2f} "
        f"({found.words} words and sentence ends, {found.sentences} sentences)")  # fmt: skip


@lm_commands.command("sample")
def lm_sample(
    model: Model,
    n: Annotated[int, typer.Option("-n", min=1, help="How many sentences.")] = 10,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    tokens: Tokens = "",
) -> None:
    """Sentences as the model would say them.

    \b
    duologue lm sample questions.arpa -n 5
    """
    from ..data_prep.text.ngram_files import load, samples

    for line in samples(load(model), n, seed, tokens):
        say(line)


@lm_commands.command("prune")
def lm_prune(
    model: Model,
    output: Output,
    threshold: Annotated[float, typer.Option(help="Relative rise of perplexity that an n-gram must prevent.")] = 1e-7,
) -> None:
    """Leave out the n-grams that say least (Stolcke 1998).

    \b
    duologue lm prune questions.arpa -o small.arpa --threshold 1e-6
    """
    keep_apart({"-o": output}, {"the model": model})
    from ..data_prep.text.ngram_files import load, save
    from ..model.decoding.ngrams.combining import pruned

    whole = load(model)
    small = pruned(whole, threshold)
    save(small, output)
    counts = [sum(len(table.keys) for table in each.tables) for each in (small, whole)]
    say(f"{output}: {counts[0]:,} of {counts[1]:,} n-grams")
