"""Turns of a conversation with a tiny random model: equal to what training computes, resumable, clonable, cut."""

import copy
import dataclasses

import pytest
import torch

from duologue.model.adaptor.stack import StackConfig
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoderConfig
from duologue.model.dialogue_state import pick
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.unit_decoder import UnitDecoderConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoderConfig
from duologue.model.speech_lm import PromptConfig, Sampling, SpeechLM, SpeechLMConfig, TokenKind
from duologue.model.tokens import TokenLayout

BOS, EOS, PAD, USER, TRANSCRIPT, REPLY, QUERY = 1, 2, 0, 3, 4, 5, 6
LAYOUT = TokenLayout(
    bos=BOS, eos=EOS, pad=PAD, user=USER, transcript=TRANSCRIPT, reply=REPLY, query=QUERY, text=(10, 40), units=12
)
CONFIG = SpeechLMConfig(
    mel=LogMelConfig(n_mels=16),
    encoder=WhisperEncoderConfig(n_mels=16, n_audio_ctx=200, n_audio_state=24, n_audio_head=2, n_audio_layer=2, chunk=4,
                                 left_context=16, causal_conv=True),
    adaptor=StackConfig(in_dim=24, hidden_dim=32, out_dim=32, stack=2),
    llm={"model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2},
    unit_decoder=UnitDecoderConfig(in_dim=32, dim=32, ffn_dim=48, units=12, upsample=6, band=3, fuse_token=True,
                                   sub_position=True),
    vocoder=UnitVocoderConfig(units=12, embedding_dim=8, channels=32, upsample_rates=(4, 2), upsample_kernels=(8, 4),
                              resblock_kernels=(3,), duration_hidden=8),
    layout=LAYOUT,
    prompt=PromptConfig(prefix_ids=(BOS, USER), suffix_ids=(TRANSCRIPT,), next_prefix_ids=(EOS, USER)),
)  # fmt: skip
SAMPLED = Sampling(temperature=1.0, max_tokens=30)


def build(**changes):
    torch.manual_seed(0)
    model = SpeechLM(dataclasses.replace(CONFIG, **changes)).eval().requires_grad_(False)
    for parameter in model.llm.parameters():
        if parameter.ndim > 1:
            parameter.mul_(5.0)  # at their initial size the states hardly depend on what was fed
    model.unit_decoder.output_proj.bias[-1] = -2.0  # blanks now and then, not always
    return model


@pytest.fixture(scope="module")
def model():
    return build()


def sound(seed, samples=9000):
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def hear(model, state, pcm, chunk=1600):
    model.begin_turn(state)
    for piece in pcm.split(chunk, dim=1):
        model.listen(piece, state)
    model.end_turn(state)


def force(model, ids):
    """A model that says these tokens, one after the other, whatever it is asked."""
    forced = copy.deepcopy(model)
    row = iter(ids)
    head = forced.llm.head

    def next_one(hidden):
        logits = torch.zeros_like(head(hidden))
        logits[..., next(row)] = 1e4
        return logits

    forced.llm.head = next_one
    return forced


def finish(model, state, sampling=SAMPLED):
    """All steps to END, and all samples."""
    steps = [model.reply_step(state, sampling)]
    while steps[-1].kind is not TokenKind.END:
        steps.append(model.reply_step(state, sampling))
    return steps, torch.cat([*[s.pcm for s in steps], model.reply_flush(state)], dim=1)


def assert_close(a, b):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("chunk", [1, 160, 777, 9000])
def test_a_spoken_turn_is_the_training_sequence(model, chunk):
    """What is heard in chunks leaves the state that one pass over prompt and embeddings ends in."""
    pcm = sound(1) if chunk > 1 else sound(1, 1500)
    state = model.init_state()
    hear(model, state, pcm, chunk)
    before, after = (model.llm.embed(torch.tensor([ids])) for ids in ([BOS, USER], [TRANSCRIPT]))
    whole = model.llm(torch.cat([before, model.stages.hearing(pcm), after], dim=1))
    assert state.llm.length == whole.hidden.shape[1]
    assert_close(state.hidden, whole.hidden[:, -1:])


@pytest.mark.parametrize("streams", [True, False])
def test_a_tail_is_silence_behind_what_was_said(streams):
    changes = {} if streams else {"mel": LogMelConfig(n_mels=16, norm="whisper")}
    plain, tailed = build(**changes), build(tail_s=0.2, **changes)
    state, other = plain.init_state(), tailed.init_state()
    pcm = sound(2)
    hear(plain, state, torch.cat([pcm, torch.zeros(1, 3200)], dim=1))
    hear(tailed, other, pcm)
    assert other.llm.length == state.llm.length and other.transcript.room == state.transcript.room
    assert_close(other.hidden, state.hidden)
    with pytest.raises(DuologueError, match=r"tail_s is -0\.1; it must be 0 or more seconds"):
        build(tail_s=-0.1)


def unforeseen(model, state, **options):
    """A step for which the language model is fed the last token alone."""
    if state.pending is not None:
        model._drop_draft(state)
        model._feed_ids([state.pending], state)
        state.pending = None
    return model.reply_step(state, SAMPLED, **options)


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])  # of CTC: the more, the more of the draft comes true
@pytest.mark.parametrize("written", [None, [12, 13]])
def test_a_draft_changes_nothing_but_how_often_the_language_model_is_asked(fraction, written):
    """Steps behind a draft are those without one, to rounding: their tokens, where they stand, what they leave behind;
    also of a clone made midway, and where something else is to be written than anybody foresaw."""
    joint = build(transcript_ctc=fraction)
    state, plain = joint.init_state(7), joint.init_state(7)
    foreseen = 0
    for turn in range(3):
        for each in (state, plain):
            hear(joint, each, sound(turn, 12_000))
            if written:
                each.transcript.question = list(written)
        for step in range(40):
            forced = 11 if step == 3 and turn == 1 else None
            if step == 4:
                state = state.clone()
            one, other = joint.reply_step(state, SAMPLED, forced=forced), unforeseen(joint, plain, forced=forced)
            foreseen += one.foreseen
            assert (one.token, one.kind, one.position) == (other.token, other.kind, other.position)
            if one.kind is TokenKind.END:
                break
            torch.testing.assert_close(state.hidden, plain.hidden, atol=1e-4, rtol=1e-4)
        assert state.llm.length == plain.llm.length and not state.transcript.draft and not state.transcript.foreseen
    assert foreseen >= (6 if fraction > 0.9 and not written else 3)  # of each turn the first


def test_kinds_of_tokens_and_what_is_spoken(model):
    """A transcript, a reply, a stray marker; only the reply's words are spoken, EOS is not."""
    ids = [11, 12, QUERY, REPLY, 20, 21, 22, EOS]
    forced, state = force(model, ids), model.init_state()
    hear(forced, state, sound(2))
    steps, pcm = finish(forced, state)
    kinds = [TokenKind.TRANSCRIPT] * 2 + [TokenKind.CONTROL] * 2 + [TokenKind.REPLY] * 3 + [TokenKind.END]
    assert [s.token for s in steps] == ids
    assert [s.kind for s in steps] == kinds
    assert all(s.units.shape[1] == 0 and s.pcm.shape[1] == 0 for s in steps if s.kind is not TokenKind.REPLY)
    # The same reply whole: the states that predicted its words, their embeddings, all units, all samples.
    text = [BOS, USER], [TRANSCRIPT, *ids[:-1]]
    first, rest = (model.llm.embed(torch.tensor([part])) for part in text)
    hidden = model.llm(torch.cat([first, model.stages.hearing(sound(2)), rest], dim=1)).hidden
    words = model.llm.embed(torch.tensor([[20, 21, 22]]))
    units = model.stages.speech.collapse(model.unit_decoder(hidden[:, -4:-1], words))
    assert units.shape[1] > 0
    assert torch.equal(torch.cat([s.units for s in steps], dim=1), units)
    assert_close(pcm, model.vocoder(units))
    assert [s.position for s in steps] == [steps[0].position + i for i in range(len(ids))]


@pytest.mark.parametrize("turns", [1, 2])
def test_a_transcript_has_no_more_tokens_than_there_was_speech(model, turns):
    """A model that repeats itself is brought to its reply; each turn has as much room as it has speech."""
    speech = model.stages.hearing(sound(2)).shape[1]
    forced, state = force(model, [11] * 1000), model.init_state()
    for _ in range(turns):
        hear(forced, state, sound(2))
        steps, _ = finish(forced, state, Sampling(max_tokens=speech + 5))
        kinds = [TokenKind.TRANSCRIPT] * speech + [TokenKind.CONTROL] + [TokenKind.REPLY] * 4 + [TokenKind.END]
        assert [step.kind for step in steps] == kinds
        assert steps[speech].token == REPLY


def overhear(model, said, places):
    """A model that predicts these words at its places of speech (blanks else), and nothing but word 11 afterwards."""
    deaf, labels = copy.deepcopy(model), [PAD] * places
    for n, word in enumerate(said):
        labels[2 * n + 1] = word
    row = iter(labels)

    def head(hidden):
        logits = torch.zeros(*hidden.shape[:-1], 40)
        for t in range(hidden.shape[1]):
            logits[:, t, next(row, 11)] = 8.0
        return logits

    deaf.llm.head = head
    return deaf


@pytest.mark.parametrize("chunk", [160, 9000])
def test_ctc_keeps_a_transcript_to_what_was_said(chunk):
    """A language model that says one word for ever writes down what CTC heard, ends there, and is itself again."""
    joint = build(transcript_ctc=0.9)
    places, said = joint.stages.hearing(sound(2)).shape[1], [14, 14, 31, 12]
    model, state = overhear(joint, said, places), joint.init_state()
    for turn in range(2):
        model = overhear(joint, said if turn else said[:2], places)
        hear(model, state, sound(2), chunk)
        cut = state.clone()
        steps, _ = finish(model, state, Sampling(max_tokens=9))
        tokens = [step.token for step in steps]
        wanted = said if turn else said[:2]
        assert tokens == [*wanted, REPLY, *[11] * (8 - len(wanted)), EOS]
        # all of the transcript was asked for when the turn ended, and the draft came true
        assert [step.foreseen for step in steps[: len(wanted) + 2]] == [*[True] * (len(wanted) + 1), True]
        assert not any(step.foreseen for step in steps[len(wanted) + 2 :])
        broken_off = cut.clone()
        steps, _ = finish(model, broken_off, Sampling(max_tokens=2))
        assert broken_off.llm.length == steps[-1].position and not broken_off.transcript.foreseen
        # a clone writes the same, and a typed turn after a transcript that was broken off is not CTC's
        assert model.reply_step(cut, SAMPLED).token == wanted[0]
        model.read_text([13], cut)
        assert cut.transcript.ctc is None and model.reply_step(cut, Sampling()).token == 11
    assert not state.transcript.heard and state.transcript.ctc is None


def test_a_share_of_ctc_needs_a_transcript():
    with pytest.raises(DuologueError, match="at least 0 and below 1"):
        build(transcript_ctc=1.0)
    layout = dataclasses.replace(LAYOUT, transcript=None, reply=None)
    with pytest.raises(DuologueError, match="no transcript"):
        build(transcript_ctc=0.3, layout=layout)


def test_later_turns_go_on_in_one_sequence(model):
    """Two turns leave what one pass over the whole conversation ends in; the second may be typed."""
    forced, state = force(model, [11, REPLY, 20, EOS]), model.init_state()
    hear(forced, state, sound(3))
    finish(forced, state)
    model.read_text([13, 14], state)
    before = model.llm.embed(torch.tensor([[BOS, USER]]))
    after = [TRANSCRIPT, 11, REPLY, 20, EOS, USER, TRANSCRIPT, 13, 14, REPLY]
    whole = torch.cat([before, model.stages.hearing(sound(3)), model.llm.embed(torch.tensor([after]))], dim=1)
    assert state.llm.length == whole.shape[1]
    assert_close(state.hidden, model.llm(whole).hidden[:, -1:])
    assert model.reply_step(state, Sampling()).kind in (TokenKind.REPLY, TokenKind.CONTROL, TokenKind.END)


@pytest.mark.parametrize("fraction", [0.0, 0.5])
@pytest.mark.parametrize("heard", [None, 0, 1, 2])
def test_a_past_in_words_is_as_if_it_had_been_typed(fraction, heard):
    """With ``past_in_words`` the next turn begins behind what was written of the last one, as far as it was heard."""
    model = build(past_in_words=True, transcript_ctc=fraction)
    state, typed = model.init_state(), model.init_state()
    for turn in range(3):  # the second is typed
        said = [11 + turn, 12]
        if turn == 1:
            model.read_text(said, state)
        else:
            hear(model, state, sound(turn))
            for token in (*said, REPLY):
                model.reply_step(state, SAMPLED, forced=token)
        steps = [model.reply_step(state, SAMPLED, forced=token) for token in (20, 21, EOS)]
        if heard is not None:  # the answer was interrupted
            state.truncate(steps[heard].position)
        model.recall(said, [20, 21][:heard], typed)
    kept, length = state.clone(), typed.llm.length
    hear(model, state, sound(5))
    hear(model, typed, sound(5))
    assert state.llm.length == typed.llm.length > length
    assert_close(state.hidden, typed.hidden)
    hear(model, kept, sound(5))  # a clone from before is not changed by what the other forgot
    assert_close(kept.hidden, typed.hidden)


def test_only_what_is_written_can_be_remembered_in_words():
    layout = dataclasses.replace(LAYOUT, transcript=None, reply=None)
    with pytest.raises(DuologueError, match="no transcript to remember"):
        build(past_in_words=True, layout=layout)


def test_a_reply_cut_short_keeps_its_words(model):
    """Begin the next turn in the middle of a reply: the tokens picked so far are all fed, the last one too."""
    forced, state = force(model, [11, REPLY, 20, 21, 22]), model.init_state()
    hear(forced, state, sound(3))
    for _ in range(4):
        forced.reply_step(state, Sampling())
    model.begin_turn(state)
    before = model.llm.embed(torch.tensor([[BOS, USER]]))
    after = model.llm.embed(torch.tensor([[TRANSCRIPT, 11, REPLY, 20, 21, EOS, USER]]))
    whole = torch.cat([before, model.stages.hearing(sound(3)), after], dim=1)
    assert_close(state.hidden, model.llm(whole).hidden[:, -1:])


def test_truncating_forgets_what_was_not_heard(model):
    """Cut at the first word that the user cannot have heard, and go on as if it had never been generated."""
    forced, state = force(model, [REPLY, 20, 21, 22, 23, 24]), model.init_state()
    hear(forced, state, sound(4))
    steps = [forced.reply_step(state, Sampling()) for _ in range(6)]
    state.truncate(steps[3].position)
    with pytest.raises(DuologueError, match="reply_step comes after end_turn"):
        model.reply_step(state, Sampling())
    model.begin_turn(state)
    before = model.llm.embed(torch.tensor([[BOS, USER]]))
    after = model.llm.embed(torch.tensor([[TRANSCRIPT, REPLY, 20, 21, EOS, USER]]))
    whole = torch.cat([before, model.stages.hearing(sound(4)), after], dim=1)
    assert_close(state.hidden, model.llm(whole).hidden[:, -1:])


def same(a, b):
    return [s.token for s in a[0]] == [s.token for s in b[0]] and torch.equal(a[1], b[1])


def test_a_clone_is_a_conversation_of_its_own(model):
    """Clones in the middle of listening and of a reply, stepped in turns: each as if it were alone, to the bit."""
    alone = model.init_state(seed=5)
    hear(model, alone, sound(6))
    wanted = finish(model, alone)
    state = model.init_state(seed=5)
    model.begin_turn(state)
    model.listen(sound(6)[:, :4000], state)
    speculation = state.clone()  # as if the user had stopped here
    model.end_turn(speculation)
    aside = [model.reply_step(speculation, SAMPLED)]
    model.listen(sound(6)[:, 4000:], state)
    aside.append(model.reply_step(speculation, SAMPLED))
    model.end_turn(state)
    first = model.reply_step(state, SAMPLED)
    twin = state.clone()
    for result in (finish(model, twin), finish(model, state)):
        got = ([first, *result[0]], torch.cat([first.pcm, result[1]], dim=1))
        assert [s.token for s in got[0]] == [s.token for s in wanted[0]]
        assert_close(got[1], wanted[1])
    again = model.init_state(seed=5)
    hear(model, again, sound(6)[:, :4000], chunk=4000)
    assert [model.reply_step(again, SAMPLED).token for _ in aside] == [s.token for s in aside]


def test_the_seed_decides(model):
    replies = []
    for seed in (1, 1, 2, 3):
        state = model.init_state(seed)
        model.read_text([13, 14], state)
        replies.append(finish(model, state))
    assert same(replies[0], replies[1])
    assert not (same(replies[0], replies[2]) and same(replies[0], replies[3]))


def test_max_tokens_ends_a_reply(model):
    state = model.init_state()
    forced = force(model, [REPLY, 20, 21, 22])
    hear(forced, state, sound(7))
    steps, _ = finish(forced, state, Sampling(max_tokens=3))
    assert [s.token for s in steps] == [REPLY, 20, 21, EOS]
    assert steps[-1].kind is TokenKind.END


def test_a_model_without_transcript_replies_at_once():
    """LLaMA-Omni's way: all that is generated is reply; a text turn is prefix, words, suffix."""
    layout = TokenLayout(bos=BOS, eos=EOS, pad=PAD, text=(10, 40), units=12)
    prompt = PromptConfig(prefix_ids=(BOS, 7), suffix_ids=(8, 9), next_prefix_ids=(7,))
    model = build(layout=layout, prompt=prompt, vocoder=None)
    forced, state = force(model, [20, 7, EOS]), model.init_state()
    hear(forced, state, sound(8))
    steps, pcm = finish(forced, state)
    assert [s.kind for s in steps] == [TokenKind.REPLY, TokenKind.REPLY, TokenKind.END]
    assert pcm.shape == (1, 0)
    assert sum(s.units.shape[1] for s in steps) > 0
    state = model.init_state()
    model.read_text([13, 14], state)
    whole = model.llm.embed(torch.tensor([[BOS, 7, 13, 14, 8, 9]]))
    assert_close(state.hidden, model.llm(whole).hidden[:, -1:])


def test_an_encoder_that_needs_the_whole_clip_hears_it_at_the_end():
    """Whisper's normalisation and unmasked attention: 30 s there, 1 s here, padded or cut, whatever the chunks."""
    encoder = dataclasses.replace(CONFIG.encoder, chunk=None, causal_conv=False)
    model = build(mel=LogMelConfig(n_mels=16, norm="whisper"), encoder=encoder, listen_s=1.0)
    for samples in (5000, 25000):
        pcm, state = sound(9, samples), model.init_state()
        hear(model, state, pcm, 3333)
        wanted = torch.nn.functional.pad(pcm, (0, 16000 - samples))
        speech = model.adaptor(model.encoder(model.mel(wanted)))
        parts = [model.llm.embed(torch.tensor([[BOS, USER]])), speech, model.llm.embed(torch.tensor([[TRANSCRIPT]]))]
        assert speech.shape[1] == 25
        assert_close(state.hidden, model.llm(torch.cat(parts, dim=1)).hidden[:, -1:])


def test_no_sound_at_all_is_no_error(model):
    state = model.init_state()
    model.begin_turn(state)
    model.listen(torch.zeros(1, 0), state)
    model.end_turn(state)
    assert state.llm.length == 3
    finish(model, state)


def test_calls_out_of_turn_are_refused(model):
    state = model.init_state()
    for call, message in (
        (lambda: model.listen(sound(1), state), "listen comes between begin_turn and end_turn; .* is idle"),
        (lambda: model.end_turn(state), "end_turn comes after begin_turn"),
        (lambda: model.reply_step(state, Sampling()), "reply_step comes after end_turn"),
    ):
        with pytest.raises(DuologueError, match=message):
            call()
    model.begin_turn(state)
    with pytest.raises(DuologueError, match="begun already"):
        model.begin_turn(state)
    with pytest.raises(DuologueError, match="token id 40"):
        model.read_text([40], model.init_state())


def test_nothing_of_a_conversation_stays_in_the_model(model):
    weights = copy.deepcopy(model.state_dict())
    for seed in (1, 2):
        state = model.init_state()
        hear(model, state, sound(seed))
        finish(model, state)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert {name.split(".")[0] for name in weights} == {"encoder", "adaptor", "llm", "unit_decoder", "vocoder"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mel": LogMelConfig(n_mels=20)}, r"encoder\.n_mels is 16; it must be 20, as mel\.n_mels"),
        ({"adaptor": StackConfig(in_dim=20, out_dim=32)}, r"adaptor\.in_dim is 20; it must be 24, as encoder\.width"),
        ({"unit_decoder": dataclasses.replace(CONFIG.unit_decoder, in_dim=16)}, r"in_dim is 16; it must be 32"),
        ({"unit_decoder": dataclasses.replace(CONFIG.unit_decoder, units=13)}, r"unit_decoder\.units is 13"),
        ({"vocoder": dataclasses.replace(CONFIG.vocoder, units=13)}, r"vocoder\.units is 13; it must be 12"),
        ({"unit_decoder": None}, "a model with a vocoder needs a unit_decoder"),
        ({"listen_s": 30.0}, "this encoder streams"),
        ({"llm": CONFIG.llm | {"hidden_size": 64}}, "the llm is 64 wide"),
        ({"llm": CONFIG.llm | {"vocab_size": 30}}, "token id 39"),
        ({"prompt": PromptConfig(prefix_ids=(99,), next_prefix_ids=())}, "the prompt has token id 99"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(DuologueError, match=message):
        SpeechLM(dataclasses.replace(CONFIG, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos": BOS}, "bos and eos both have id 1"),
        ({"user": -3}, "user has id -3"),
        ({"user": 12}, "among the text ids"),
        ({"text": (40, 40)}, "text ids"),
        ({"reply": None}, "both transcript and reply"),
        ({"units": -1}, "-1 units"),
    ],
)
def test_layouts_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(DuologueError, match=message):
        dataclasses.replace(LAYOUT, **changes)


@pytest.mark.parametrize("changes", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_tokens": 0}])
def test_bad_sampling_is_refused(changes):
    with pytest.raises(DuologueError, match=next(iter(changes))):
        Sampling(**changes)


def test_picking():
    """Greedy; and by chance, in the given proportions, from the nucleus alone."""
    logits = torch.tensor([0.1, 0.2, 0.65, 0.05]).log()
    rng = torch.Generator().manual_seed(0)
    before = rng.get_state()
    assert pick(logits, Sampling(), rng) == 2
    assert torch.equal(rng.get_state(), before)
    for top_p, wanted in ((1.0, [0.1, 0.2, 0.65, 0.05]), (0.8, [0, 0.2 / 0.85, 0.65 / 0.85, 0]), (0.5, [0, 0, 1, 0])):
        drawn = [pick(logits, Sampling(temperature=1.0, top_p=top_p), rng) for _ in range(2000)]
        fractions = torch.bincount(torch.tensor(drawn), minlength=4) / 2000
        assert (fractions - torch.tensor(wanted)).abs().max() < 0.05
        assert all(fraction == 0 for fraction, want in zip(fractions, wanted, strict=True) if want == 0)
