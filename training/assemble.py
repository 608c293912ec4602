"""Put what the stages learnt together: each part from the run that made it, one checkpoint folder.

    duologue assemble OUT encoder=runs/asr_pretrain adaptor=runs/speech_to_text \
        llm=runs/speech_to_text unit_decoder=runs/unit_decoder vocoder=runs/unit_vocoder \
        monitor=runs/duplex word_monitor=runs/word_monitor
    duologue assemble OUT … codec=FOLDER            instead of vocoder=…: a codec as the voice
    duologue assemble OUT base=FILE.json …          parts that FILE names (encoder, llm) are named, not stored
    duologue assemble OUT … llm_dtype=bfloat16      its language model is run in bfloat16
    duologue assemble OUT … instructions="Be brief."    its system prompt, where a conversation has none
    duologue assemble OUT … lm=questions.arpa           it hears words by a beam with this n-gram model
    duologue assemble OUT codec=runs/codec          a codec, in the sizes of its run

A part comes from a run, a checkpoint or an imported part, whose sizes it keeps; a run that does not say them has
nano's. It may be a mean of the weights of several runs that began alike: llm=runs/a+runs/b, or
llm=0.3*runs/a+0.7*runs/b. What is optional may be left out. Where the adaptor's run, or the checkpoint that it is from,
joined a language model from elsewhere, turns are written by that one's tokenizer, otherwise in nano's words; and the
window that an encoder of whole clips is heard through is that of the run of the monitor, or else of the adaptor.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ..checkpoints import store
from ..checkpoints.base.cache import imported
from ..checkpoints.base.declared import read_base_file
from ..checkpoints.cards.facts import Card
from ..checkpoints.config_io import config_from_dict
from ..checkpoints.files import expanded, read_object
from ..checkpoints.outputs import keep_apart
from ..checkpoints.parts import RECIPE, load_part, read_run, read_sizes, save_part
from ..checkpoints.source import CONFIG, resolve
from ..checkpoints.store import StoredDecoder, read_model_config
from ..data_prep.datasets.question_sets import question_set
from ..data_prep.text import ngram_files
from ..model.audio_encoder.windowed import WindowConfig
from ..model.codec.codec import Codec, CodecConfig
from ..model.codec.codec_vocoder import CodecVoice
from ..model.decoding.decoder import NO_DECODER
from ..model.errors import DuologueError
from ..model.speech_lm import SpeechLM
from ..model.speech_lm_config import SpeechLMConfig, parts_of
from .data.chat_tokens import joined_config
from .data.marked_turns import marked_config
from .loop.parts import load_parts, weighted_runs
from .presets import preset

NANO = "nano"  # the preset of what no run says, and the question set whose words are written where no run says one
_BESIDE = {name for part in parts_of(SpeechLMConfig).values() for name in part.beside}  # they come with their part


_SETTINGS = ("llm_dtype", "instructions")  # of the whole, beside its parts
_DECODER = ("beam", "lm", "lm_weight", "lm_bonus")


def config_of(model: type[SpeechLMConfig]) -> Any:
    """A frozen dataclass with a field for each part of a model: a folder, or a mean of several; empty: without it.
    And ``base``: a JSON file that names the parts which are not stored; ``llm_dtype``: what the LLM is computed in;
    ``instructions``: the system prompt where a conversation has none; ``lm``: an ARPA file of what is likely to be
    said, for a model that hears words, with the width of the beam, its weight and bonus (model/decoding/decoder.py)."""
    names = (*parts_of(model), "codec", "base")  # a codec is a voice too
    fields: list[Any] = [(name, str, field(default="")) for name in names if name not in _BESIDE]
    fields.append(("llm_dtype", get_type_hints(model)["llm_dtype"], field(default="float32")))
    fields.append(("instructions", str, field(default="")))
    decoder = StoredDecoder()
    fields += [("lm", str, field(default="")), ("beam", int, field(default=decoder.beam))]
    fields += [("lm_weight", float, field(default=decoder.lm_weight))]
    fields += [("lm_bonus", float | None, field(default=decoder.lm_bonus))]
    return make_dataclass("Config", fields, frozen=True, kw_only=True)


Config = config_of(SpeechLMConfig)


def run(out: str | Path, config: Any) -> Path:
    """Write a checkpoint of the parts in ``config`` (see :func:`config_of`), or of ``codec`` alone; weights in float16.

    Raises:
        DuologueError: a part that a model cannot do without is not given, a run without that part, tensors or sizes
            that do not fit; base weights that cannot be had, or that another tokenizer wrote the turns of.
    """
    given = {name: source for name, source in vars(config).items() if source and name not in (*_SETTINGS, *_DECODER)}
    folders = {name: [folder for _, folder in weighted_runs(source)] for name, source in given.items()}
    keep_apart({"the folder": out}, folders, replaces=True)
    base_file = given.pop("base", None)
    base = {} if base_file is None else read_base_file(expanded(base_file))
    if twice := [name for name in base if name in given]:
        raise DuologueError(f"{twice[0]}={given[twice[0]]}: {base_file} names the {twice[0]} already; leave one out")
    for name, weights in base.items():
        given[name] = str(imported(name, weights))
        folders[name] = [given[name]]
    if given.keys() == {"codec"}:
        return _codec_alone(out, given["codec"])
    if "codec" in given and "vocoder" in given:
        raise DuologueError("vocoder=… and codec=… are two voices: give one of them")
    declared = parts_of(SpeechLMConfig)
    wanted = [name for name, part in declared.items() if not part.optional and name not in _BESIDE]
    if missing := [name for name in wanted if name not in given]:
        raise DuologueError(f"no run given for {', '.join(missing)}; each of {', '.join(wanted)} needs PART=FOLDER")
    voice = CodecVoice.of(read_codec(given.pop("codec"))) if "codec" in given else None
    sizes: dict[str, Any] = {name: getattr(config, name) for name in _SETTINGS}
    if voice is not None:
        sizes["vocoder"] = voice.config
    for name in given:
        sizes |= read_sizes(folders[name][0], name)
    joined, questions = _written_by(folders["adaptor"][0])
    if "llm" in base:
        joined = _same_words(joined, given["llm"])
    if joined:
        runs = [read_run(folders[name][0]) for name in ("monitor", "adaptor") if name in given]
        window = next((run["window"] for run in runs if run.get("window")), None)
        sizes |= {"window": config_from_dict(WindowConfig, window)} if window else {}
    else:
        absent = {name: None for name, part in declared.items() if part.optional and name not in {*given, *sizes}}
        sizes = preset(NANO, "assemble") | absent | sizes
    model = SpeechLM(joined_config(joined, **sizes) if joined else marked_config(questions, **sizes)).eval()
    if voice is not None:
        model.vocoder = voice
    load_parts(dict(model.named_children()), [f"{name}={source}" for name, source in given.items()])
    decoder = None
    if config.lm:
        decoder = StoredDecoder(beam=config.beam, lm_weight=config.lm_weight, lm_bonus=config.lm_bonus)
        tokenizer = store.load_tokenizer(resolve(joined)) if joined else None
        if tokenizer is None or not model.read_by(tokenizer).takes_decoder:
            raise DuologueError(f"lm={config.lm}: {NO_DECODER}")
        model = model.with_decoder(decoder.config(ngram_files.load(Path(config.lm))))
    if joined:
        return store.save(out, model, resolve(joined), half=True, base=base, decoder=decoder)
    with tempfile.TemporaryDirectory() as tokenizer:
        question_set(questions).save_tokenizer(tokenizer)
        return store.save(out, model, tokenizer, half=True, base=base)


def _same_words(joined: str | None, llm: str) -> str:
    """The folder of base weights ``llm``, whose tokenizer must be the one that the adaptor's run wrote turns by."""
    theirs = store.load_tokenizer(Path(llm)).get_vocab()
    if joined is None or store.load_tokenizer(resolve(joined)).get_vocab() != theirs:
        raise DuologueError(f"the adaptor learnt turns of {joined or 'nano'}'s tokenizer, which is not that of {llm}")
    return llm


def _written_by(adaptor: str) -> tuple[str | None, str]:
    """The tokenizer that writes the turns of the model which an adaptor is from, and otherwise the question set whose
    words they are in."""
    if run := read_run(adaptor):
        return run.get("tokenizer"), run.get("questions") or NANO
    path = resolve(adaptor)
    if (path / CONFIG).is_file() and "model" in read_object(path / CONFIG) and read_model_config(path).prompt is None:
        return str(path), NANO
    return None, NANO


def read_codec(folder: str | Path) -> Codec:
    """The codec of a run of recipe ``codec``, or of a folder that holds one by itself.

    Raises:
        DuologueError: neither, or its weights do not fit its sizes.
    """
    if not (recipe := read_run(folder)):
        return load_part(folder, "codec", CodecConfig, Codec)
    codec = Codec(config_from_dict(CodecConfig, recipe.get("codec"))).eval()
    load_parts({"codec": codec}, (f"codec={folder}",))
    return codec


def _codec_alone(out: str | Path, run: str) -> Path:
    """Write the codec of a run of recipe ``codec``, with a card of its sizes."""
    if not read_run(run):
        raise DuologueError(f"{run} is no run of the recipe codec: it has no {RECIPE}")
    codec = read_codec(run)
    config = codec.config
    q = config.quantiser
    books = f"{'one codebook' if q.codebooks == 1 else f'{q.codebooks} codebooks'} of {q.size} entries"
    if q.levels:
        books = f"finite scalar quantisation to {q.size} codes"
    streams = f" It streams exactly, {codec.delay_ms:g} ms behind the microphone." if codec.exact else ""
    card = Card(
        summary=f"A neural codec: speech at {config.sample_rate / 1000:g} kHz as {config.frame_rate:.4g} frames a "
        f"second, {books}, {config.bit_rate() / 1000:.2f} kbit/s.{streams}",
        pipeline="audio-to-audio",
        tags=("audio-codec", "speech-tokenizer", "streaming"),
    )
    return save_part(out, "codec", codec.half(), config, card)


if __name__ == "__main__":
    sys.exit("it is a command now: duologue assemble OUT PART=FOLDER …")
