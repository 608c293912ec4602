"""Replies in SSML: what is a tag, what is text, and what becomes of pauses, rates and emphasis in samples."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_chat import chat_assistant

from duologue.inference.assistant.text_stream import ReplyText, dictation
from duologue.model.decoding.reply import reply
from duologue.model.dialogue_state import Sampling
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.manner import HIGHER, LONGER, LOUDER_DB, MannerState
from duologue.model.speech_decoder.source_filter import SourceFilterConfig
from duologue.model.speech_decoder.speech_decoder import SpeechDecoder
from duologue.model.speech_decoder.spelling_decoder import SpellingDecoder, SpellingDecoderConfig
from duologue.model.speech_decoder.ssml import Manner, Marked, ShownText, SSMLReader, parsed, without_tags
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from duologue.model.tokens import TokenKind

TEXT = (
    'I <emphasis level="strong">really</emphasis> like <break time="0.5s"/> x < y, <b>this</b> <prosody rate="120%">and'
    ' <prosody rate="slow">so</prosody> on</prosody> <brea <break strength=\'weak\'/> it</prosody>.<break/>'
)
HOP, RATE = 320, 16_000


def read(pieces):
    reader, found = SSMLReader(), []
    for runs in (*map(reader.push, pieces), reader.end()):
        for run in runs:
            found += zip(run.text, run.manners(), strict=True) if run.manner else []
    return found, reader.pause


def test_tags_are_told_from_text():
    found, rest = read([TEXT])
    text = "".join(sign for sign, _ in found)
    assert text == "I really like  x < y, <b>this</b> and so on <brea  it."
    manners = {word: found[text.index(word)][1] for word in ("I", "really", " x <", "and", "so ", "on ")}
    assert manners["I"] == Manner() and manners["really"] == Manner(emphasis=1.0)
    assert manners[" x <"] == Manner(pause=0.5) and manners["and"] == manners["on "] == Manner(rate=1.2)
    assert manners["so "].rate == pytest.approx(0.96)
    assert [manner.pause for _, manner in found if manner.pause] == [0.5, 0.1] and rest == 0.25
    assert without_tags(TEXT) == "I really like x < y, <b>this</b> and so on <brea it."
    assert without_tags('<break time="x"/>a<emphasis level="odd"> b</emphasis><speak>') == "a b"


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9)))
def test_a_text_is_read_alike_in_whatever_pieces_it_comes(sizes):
    pieces, at, shown = [], 0, ShownText()
    for size in [*sizes, len(TEXT)]:
        pieces.append(TEXT[at : at + size])
        at += size
    assert read(pieces) == read([TEXT])
    assert "".join(map(shown.push, pieces)) + shown.push("", last=True) == without_tags(TEXT)


def test_what_a_person_writes_is_checked():
    assert parsed('Tom &amp; <emphasis>Ann</emphasis> left.<break time="1s"/>') == [
        Marked("", "Tom &"), Marked("<emphasis>", " Ann"), Marked("</emphasis>", " left."),
        Marked('<break time="1s"/>', ""),
    ]  # fmt: skip
    for text, what in (
        ("<b>x</b>", "'<b>' is not rendered"), ('<break time="20s"/>', "'20s'"),
        ('<prosody rate="3">x</prosody>', "'3'"),
        ('<prosody rate="10%">x</prosody>', "50% to 150%"), ('<prosody pitch="high">x</prosody>', "no 'pitch'"),
        ("<emphasis>x", "not closed"), ("x</emphasis>", "closes what"), ('<emphasis level="big">x</emphasis>', "'big'"),
    ):  # fmt: skip
        with pytest.raises(DuologueError, match=what):
            parsed(text)


def vocoder(source_filter):
    torch.manual_seed(0)
    sizes = SourceFilterConfig(dim=16, ffn_dim=24, layers=2, cepstrum=20, noise_cepstrum=10) if source_filter else None
    made = UnitVocoder(UnitVocoderConfig(
        units=20, embedding_dim=16, channels=32, resblock_kernels=(3,), duration_hidden=16, source_filter=sizes)).eval()
    made.duration.proj.weight.data.zero_()
    made.duration.proj.bias.data.fill_(1.6)  # 4 frames a unit
    if made.config.source_filter:
        made.generator.head.bias.data.zero_().view(2, -1)[:, [2, 22]] = -2.0  # loud, but not clipped
    return made


def spoken(made, units, manners, chunk=1000, rest=()):
    state = made.init_state()
    state.manner, pieces = MannerState(torch.zeros(1, 0)), []
    with torch.no_grad():
        for at in range(0, units.shape[1], chunk):
            state.manner.units += manners[at : at + chunk]
            pieces.append(made.step(units[:, at : at + chunk], state))
        state.manner.units += rest
        return torch.cat([*pieces, made.flush(state)], dim=1)[0]


@pytest.mark.parametrize("source_filter", [False, True])
def test_a_vocoder_renders_what_it_is_told_in_whatever_pieces(source_filter):
    made, units = vocoder(source_filter), torch.arange(20)[None]
    plain = spoken(made, units, [Manner()] * 20)
    torch.testing.assert_close(plain, made(units)[0], atol=1e-5, rtol=0)
    manners = [Manner()] * 20
    manners[5] = Manner(pause=0.25)
    manners[0] = Manner(pause=0.1)
    paused = spoken(made, units, manners, rest=[Manner(pause=0.05)])
    assert len(paused) == len(plain) + RATE * 2 // 5  # 0.1 + 0.25 + 0.05 s
    at, fade = RATE // 10 + 20 * HOP, RATE // 100
    assert not paused[: RATE // 10].any() and not paused[at : at + RATE // 4].any()
    torch.testing.assert_close(paused[at + RATE // 4 + fade : -RATE // 20 - fade], plain[20 * HOP + fade : -fade])
    torch.testing.assert_close(paused[RATE // 10 + fade : at - fade], plain[fade : 20 * HOP - fade])
    slow = [Manner(rate=0.8) if 5 <= i < 10 else Manner() for i in range(20)]
    assert len(spoken(made, units, slow)) == len(plain) + 5 * HOP
    loud = [Manner(emphasis=1.0) if 5 <= i < 15 else Manner() for i in range(20)]
    assert len(spoken(made, units, loud)) == len(plain) + round(40 * (LONGER - 1)) * HOP
    mixed = [replace(b, pause=a.pause, rate=c.rate) for a, b, c in zip(manners, loud, slow, strict=True)]
    whole = spoken(made, units, mixed, rest=[Manner(pause=0.05)])
    for chunk in (1, 3, 7):
        pieces = spoken(made, units, mixed, chunk, [Manner(pause=0.05)])
        torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


def test_an_emphasised_word_is_louder_and_higher_and_glides_there(monkeypatch):
    monkeypatch.setattr("duologue.model.speech_decoder.manner.LONGER", 1.0)
    made, units = vocoder(True), torch.arange(20)[None]
    heights = []
    own = made.generator.sound
    monkeypatch.setattr(made.generator, "sound", lambda c, *rest: (heights.append(c.log_f0), own(c, *rest))[1])
    plain = spoken(made, units, [Manner()] * 20)
    flat, heights[:] = torch.cat(heights, dim=1), []
    loud = spoken(made, units, [Manner(emphasis=1.0) if 5 <= i < 10 else Manner() for i in range(20)], 3)
    change = (torch.cat(heights, dim=1) - flat)[0]  # two pieces a frame, of 10 ms
    change[change.abs() < 1e-6] = 0
    assert not change[:40].any() and not change[85:].any()
    torch.testing.assert_close(change[45:80], torch.full((35,), HIGHER))
    assert change.diff(dim=0).abs().max() <= HIGHER / 6 + 1e-6
    torch.testing.assert_close(loud[: 20 * HOP], plain[: 20 * HOP], atol=1e-5, rtol=0)
    louder = loud[24 * HOP : 40 * HOP].pow(2).mean() / plain[24 * HOP : 40 * HOP].pow(2).mean()
    assert 10 * louder.log10() == pytest.approx(LOUDER_DB, abs=1)


@pytest.mark.parametrize("spells", [False, True])
def test_a_reply_of_tokens_that_cut_tags_is_spoken_without_them(spells):
    assistant = chat_assistant()
    model, tokenizer = assistant.model, assistant.tokenizer
    if spells:
        sizes = SpellingDecoderConfig(in_dim=32, dim=16, layers=1, heads=2, ffn_dim=24, units=20, upsample=4, band=12)
        decoder = SpellingDecoder(sizes).eval()
        decoder.read_by(tokenizer.decode)
        model.stages = replace(model.stages, speech=SpeechDecoder(decoder, model.vocoder))
    model.vocoder.duration.proj.bias.data.fill_(0.7)
    told = 'the <emphasis>red</emphasis> one<break time="300ms"/> is it <b>'

    @torch.inference_mode()
    def said(ids, ssml, tags=()):
        state = model.init_state()
        state.ssml = ssml
        model.read_text(tokenizer.encode("hello"), state)
        state.tags, rest, text = list(tags), [*ids, model.layout.eos], ReplyText(tokenizer, ssml)
        steps = list(reply(model, state, Sampling(), choose=lambda: rest.pop(0)))
        for step in steps:
            text.push(step)
        assert steps[-1].kind is TokenKind.END and steps[-1].held == 0
        return text.reply.text, torch.cat([step.units for step in steps], 1), torch.cat([step.pcm for step in steps], 1)

    plain = said(tokenizer.encode("the red one is it <b>"), False)
    marked = said(tokenizer.encode(told), True)
    assert marked[0] == plain[0] == "the red one is it <b>"
    assert said(tokenizer.encode(told), False)[0] == told
    given = dictation(tokenizer, model.layout, told.replace("<b>", "b"), True)
    dictated = said(given.ids, True, given.tags)
    assert len(given.tags) == len(given.ids) + 1 and dictated[0] == "the red one is it b"
    untagged = said(given.ids, True, [""] * len(given.tags))
    assert torch.equal(dictated[1], untagged[1])  # the same units
    pause, longer = round(0.3 * RATE), dictated[2].shape[1] - untagged[2].shape[1]
    assert longer >= pause
    silent = (dictated[2][0] == 0).int()
    assert silent.unfold(0, pause, HOP // 4).sum(-1).max() == pause
