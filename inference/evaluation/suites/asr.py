"""What a model understands of recorded speech: word and character error rates, greedy and with a decoder.

Understood by the model, or by another system, whose words are in a file:

    a model that writes transcripts    its transcript: greedily, and with a beam where one can search it
    any other model                    its reply to the speech and `instruction`
    --outputs DIR                      DIR/hypotheses.jsonl, {"id": …, "text": …} a line, or DIR/ID.txt for each

The beam goes with an n-gram model (`lm=`) and hot words (`hotwords=`); or, of a model that hears words by CTC, all that
may be said is in a grammar (`grammar=`, JSGF). Of a list of words that matter (`keywords=`; the hot words, if not
given) there are recall, precision and F1, in how many utterances one was understood that was not said, and the word
error rates of them and of all others. With `joined=10` every ten utterances of a set are one long recording, which is
cut at its pauses as users' are.

Both sides go through Whisper's normaliser for English, or its basic one for other languages; where a language puts no
spaces between words, characters are counted alone. A recording that cannot be read is named, counted and in no figure;
an utterance for which another system wrote nothing counts as nothing understood.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ....checkpoints.recognisers.recogniser import ENGLISH
from ....data_prep.audio import read_audio
from ....data_prep.datasets.conversations import TURNS_FILE
from ....data_prep.datasets.speech_sets import Utterance, find_utterances
from ....data_prep.text.context import INSTRUCTION
from ....model.decoding.decoder import WEIGHT
from ....model.decoding.joint_beam import JointConfig
from ....model.errors import DuologueError
from ...assistant.assistant import Assistant
from ...assistant.transcribe import require_asked, transcribe
from ...assistant.word_lists import beside_its_own, decoder_of, phrases_in
from ..inputs.generated import generated, recorded_turns
from ..inputs.hypotheses import texts_in
from ..inputs.joined import PAUSE_S, join
from ..inputs.questions import BUNDLED, is_question_file
from ..metrics.keywords import Keywords
from ..metrics.statistics import Better, Metric
from ..metrics.words import LETTERS, alignment, error_measures, usual_normaliser
from ..metrics.words import normaliser as normaliser_of
from ..report.page import Section, aligned, example, sounds, table
from ..report.plots import bars, number
from ..report.reporting import Parts, by_part, finish, good_rows, ranked
from ..report.run_folder import Row, loaded, open_folder, resume_rows

PROFILES = {"quick": (60, "dev"), "card": (300, "flite:awb,flite:slt,festival:ked_diphone")}
BEAM = 4  # of a model that has no decoder of its own
PREFIXES = {"greedy": "", "beam": "beam_"}
_SHOWN, _HEARD = 20, 8  # alignments; those with sound


def run(
    *,
    out: Path,
    model: str | Assistant | None = None,
    outputs: Path | None = None,
    data: Path | None = None,
    profile: str = "quick",
    voices: str | None = None,
    limit: int | None = None,
    beam: int = 0,
    lm: Path | None = None,
    lm_weight: float | None = None,
    lm_bonus: float | None = None,
    hotwords: str = "",
    hot_weight: float = WEIGHT,
    grammar: Path | None = None,
    keywords: str = "",
    context: str = "",
    alpha: float = 1.0,
    margin: float = 5.0,
    joined: int = 1,
    pause: float = PAUSE_S,
    instruction: str = INSTRUCTION,
    language: str = ENGLISH,
    normaliser: str | None = None,
    seed: int = 0,
    split: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure and write the reports into ``out``.

    Args:
        data: a set of recordings (see data_prep/datasets/speech_sets.py), the recorded turns of a folder with a
            turns.jsonl, or a question set's file, whose questions ``voices`` say; None: the bundled question set.
        limit: at most so many utterances (of generated ones: how many).
        beam: width of the beam; 0: that of the model's own decoder, else 4; 1: greedy alone, as with a model whose
            transcripts no beam can search.
        lm, hotwords: an n-gram model's file, and a file of phrases or phrases with commas between; of the beam.
        lm_weight, lm_bonus, hot_weight: of the n-gram model's log-probabilities, nats for each of its words, nats for
            each token of a hot word; None: the usual one.
        grammar: a JSGF file.
        keywords: phrases that are counted, as ``hotwords``. joined: utterances of a set that are one recording, with
            ``pause`` seconds between two.
        context: phrases, as ``hotwords``, of which a model is told that writes no transcript of its own; what it writes
            then is found by a joint beam search with alpha and margin (see model/decoding/joint_beam.py).
        instruction: what a model is asked that writes no transcript of its own.
        language: of what is said (ISO 639).
        split: which questions are said; None: the test's, of a question set's file all.
        normaliser: of words (see :mod:`..metrics.words`); None: the language's.

    Raises:
        DuologueError: nothing to understand it, an unknown set, normaliser, profile or voice; a split or voices of
            recordings; a decoder for a model that takes none.
    """
    if outputs is not None and model is not None:
        raise DuologueError("give a model, or the outputs of another system, and not both")
    if outputs is not None and (lm or hotwords or grammar or context):
        raise DuologueError("lm=, hotwords=, grammar= and context= are for a model; to count another system's words "
                            "give keywords=")  # fmt: skip
    if outputs is None and model is None:
        model = BUNDLED
    if profile not in PROFILES:
        raise DuologueError(f"unknown profile {profile!r}: the profiles are {', '.join(PROFILES)}")
    normaliser = normaliser or usual_normaliser(language, "english")
    normaliser_of(normaliser)
    count, usual = PROFILES[profile]
    spoken = data is None or is_question_file(data)
    if spoken:
        found = generated(voices or usual, limit or count, seed, split, str(data or BUNDLED))
    else:
        assert data is not None
        for name, value in (("split", split), ("voices", voices)):
            if value:
                raise DuologueError(f"{name} is {value!r}; it is of questions that are said, and {data} has recordings")
        own = (data / TURNS_FILE).is_file()
        found = itertools.islice(recorded_turns(data) if own else find_utterances(data), limit)
    utterances = list(found)
    if not utterances:
        raise DuologueError(f"{data} has no utterances with words")
    utterances = join(utterances, joined, pause)
    assistant, source = (None, None) if model is None else loaded(model)
    told, its_own = phrases_in(context) if context else [], None if assistant is None else assistant.model.decoder
    if told and assistant is not None:
        require_asked(assistant.model)
    beam = beam or (its_own.beam.width if its_own else BEAM)
    joint = JointConfig(width=beam, alpha=alpha, margin=margin)
    beam = beam if told or (assistant is not None and assistant.model.takes_decoder) else 1
    if assistant is not None and its_own is not None:
        assistant = assistant.with_decoder(None)  # what it hears moment by moment
    decoded = assistant
    if assistant is not None and (lm or hotwords or grammar or (beam > 1 and assistant.model.takes_decoder)):
        config = decoder_of(
            beam, lm, hotwords, grammar, lm_weight=lm_weight, lm_bonus=lm_bonus, hot_weight=hot_weight
        )
        decoded = assistant.with_decoder(beside_its_own(config, its_own, beam))
    wide = beam > 1 or decoded is not assistant or bool(told)
    listed = keywords or hotwords or context
    counted = Keywords(phrases_in(listed), normaliser) if listed else None
    settings = {
        "suite": "asr", "model": source, "outputs": None if outputs is None else str(outputs),
        "data": None if data is None else str(data), "utterances": len(utterances), "beam": beam,
        "normaliser": normaliser, "seed": seed,
        "voices": sorted({u.set for u in utterances}) if spoken else None,
    }  # fmt: skip
    settings |= {} if language == ENGLISH else {"language": language}  # reports of before do not say it
    given: dict[str, Any] = {
        "lm": lm and str(lm), "lm_weight": lm_weight, "lm_bonus": lm_bonus, "hotwords": hotwords,
        "hot_weight": hot_weight if hotwords else 0, "keywords": keywords, "joined": joined if joined > 1 else 0,
        "own_lm": its_own is not None and its_own.lm is not None and wide and not lm and not grammar,
        "grammar": grammar and str(grammar), "pause": pause if joined > 1 and pause != PAUSE_S else 0,
    }  # fmt: skip
    given |= {"context": context, "alpha": alpha, "margin": margin} if told else {}
    settings |= {name: value for name, value in given.items() if value}
    if assistant is not None and not assistant.model.transcribes:
        settings["instruction"] = instruction
    folder, metrics = open_folder(out, settings), _metrics(beam if wide else 0, normaliser, counted)
    understood = texts_in(outputs) if outputs is not None else None

    def work(at: int, utterance: Utterance) -> Row:
        row: Row = {"set": utterance.set, "text": utterance.text}
        if understood is not None:
            row["greedy"] = understood(utterance.id)
        else:
            assert assistant is not None
            wave = read_audio(utterance.sound(), assistant.input_rate)
            row["greedy"] = transcribe(assistant, wave, instruction=instruction)
            if told:
                row["beam"] = transcribe(assistant, wave, instruction=instruction, context=told, joint=joint)
            elif wide:
                assert decoded is not None
                row["beam"] = transcribe(decoded, wave)
        measures: dict[str, list[float]] = {}
        for name in (name for name in PREFIXES if name in row):
            measures |= error_measures(row[name], utterance.text, normaliser, PREFIXES[name])
            measures |= {} if counted is None else counted.measures(row[name], utterance.text, PREFIXES[name])
        return row | {"measures": measures}

    rows = resume_rows(folder / "heard.jsonl", "listening", utterances, work, quiet, lambda u: u.id)
    good = good_rows(rows)
    parts = by_part(good, "set", metrics, seed)
    sections = [_sets(parts), *_worst(good, {utterance.id: utterance for utterance in utterances}, normaliser)]
    return finish(folder, "Speech recognition", settings, metrics, rows, sections, parts=parts, quiet=quiet)


def _metrics(beam: int, how: str, counted: Keywords | None) -> tuple[Metric, ...]:
    """beam: width of the one beside the greedy transcripts; 0: there is none."""
    found: list[Metric] = []
    for prefix, wide in (("", ""), ("beam_", f", beam of {beam}"))[: 1 + (beam > 0)]:
        names = (("wer", "Word error rate"), ("cer", "Character error rate"))[how == LETTERS :]
        found += [Metric(key=prefix + key, name=name + wide, unit="%", better=Better.LOWER) for key, name in names]
        found += [] if counted is None else counted.metrics(prefix, wide)
    return tuple(found)


def _sets(parts: Parts) -> Section:
    columns = ("set", "utterances", *(found.metric.name for found in parts[0][1])) if parts else ("set",)
    rows = [(name, str(found[0].count), *(number(f.value, "%") for f in found)) for name, found in parts]
    plot = bars([(name, found[0].value, found[0].low, found[0].high) for name, found in parts], "%")
    return Section(title="By set", body=table(columns, rows, tuple(range(1, len(columns)))) + plot)


def _worst(rows: list[Row], spoken: dict[str, Utterance], how: str) -> list[Section]:
    out = []
    rate, of = ("cer", "characters") if how == LETTERS else ("wer", "words")
    order = ranked(rows, rate, Better.LOWER)
    wrong = [row for row in order[::-1] if row["measures"][rate][0]]
    for title, chosen in (("Worst understood", wrong[:_SHOWN]), ("Best understood", order[:3])):
        cards = []
        for at, row in enumerate(chosen):
            errors, words = row["measures"][rate]
            waves = sounds({"sound": spoken[row["id"]].sound} if at < _HEARD else {})
            lines = [(row["id"], f"{row['set']}, {errors:.0f} errors in {words:.0f} {of}"), ("said", row["text"])]
            if "beam" in row:
                lines.append(("with the beam", row["beam"]))
            cards.append(example(lines, waves, aligned(alignment(row["greedy"], row["text"], how))))
        if cards:
            note = '<p class="dim">Struck out: said and not understood. Underlined: understood instead.</p>'
            out.append(Section(title=title, body=note + "".join(cards)))
    return out
