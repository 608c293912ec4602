"""The unit decoder: band and flags, training equal to streaming, collapsing, and what a long reply costs."""

import time

import pytest
import torch
import torch.nn.functional as F
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaModel

from duologue.model.errors import DuologueError
from duologue.model.layers.transformer import RopeScaling, banded_attention
from duologue.model.speech_decoder.unit_decoder import CTCCollapse, UnitDecoder, UnitDecoderConfig

BASE = {"in_dim": 24, "dim": 32, "heads": 4, "ffn_dim": 40, "units": 11, "upsample": 5}
VARIANTS = {
    "llama-omni": {},
    "banded": {"band": 3},
    "band-of-one": {"band": 1},
    "grouped": {"band": 4, "kv_heads": 2},
    "nano": {"band": 3, "fuse_token": True, "sub_position": True, "blank_bias": -2.0},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def build(variant, **changes):
    torch.manual_seed(0)
    return UnitDecoder(UnitDecoderConfig(**{**BASE, **VARIANTS[variant], **changes})).eval().requires_grad_(False)


def inputs(decoder, tokens, batch=2):
    """States, and token embeddings if the decoder wants them."""
    hidden = torch.randn(batch, tokens, 24)
    return hidden, torch.randn(batch, tokens, 24) if decoder.config.fuse_token else None


def piece(x, begin, end):
    return None if x is None else x[:, begin:end]


def assert_close(a, b):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@each_variant
@pytest.mark.parametrize("sizes", [[1], [2, 0, 5, 1], [23], [4]], ids=str)
def test_streamed_equals_whole(variant, sizes):
    decoder = build(variant)
    hidden, embeds = inputs(decoder, 23)
    state, outputs, at, turn = decoder.init_state(2), [], 0, 0
    while at < 23:
        size = sizes[turn % len(sizes)]
        outputs.append(decoder.step(hidden[:, at : at + size], state, piece(embeds, at, at + size)))
        at, turn = at + size, turn + 1
    outputs.append(decoder.flush(state))
    whole = decoder(hidden, embeds)
    assert whole.shape == (2, 23 * 5, 12)
    assert_close(torch.cat(outputs, dim=1), whole)


@pytest.mark.parametrize("frames", [0, 1, 11, 12, 13, 24, 25, 36, 61])
def test_banded_attention_is_masked_attention(frames):
    """In blocks or with one big mask: the same."""
    torch.manual_seed(1)
    cell, band = 4, 3
    query, key, value = torch.randn(3, 2, 2, frames, 8)
    i = torch.arange(frames)
    mask = (i[None] <= i[:, None]) & (i[None] // cell > i[:, None] // cell - band)
    wanted = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(banded_attention(query, key, value, cell, band), wanted)


def test_the_band_is_what_it_says():
    """Two layers with a band of 3 tokens see 2 · 2 tokens back, and no further."""
    decoder = build("banded")
    hidden, _ = inputs(decoder, 20, batch=1)
    changed = hidden.clone()
    changed[:, 10] += 1.0
    differs = (decoder(changed) - decoder(hidden)).abs().amax(dim=-1)[0].view(20, 5).amax(dim=1) > 1e-6
    assert differs.nonzero().flatten().tolist() == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("scaling", [False, True])
def test_layers_are_llamas(scaling):
    """Our layers, with transformers' weights, give transformers' numbers."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    if scaling:
        rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
    sizes = {"vocab_size": 8, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    theirs = LlamaModel(LlamaConfig(**sizes, **heads, rope_parameters=rope, rms_norm_eps=1e-5)).eval()
    stretch = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=16)
    decoder = build("llama-omni", kv_heads=2, rope_scaling=stretch if scaling else None)
    decoder.layers.load_state_dict(theirs.layers.state_dict(), strict=True)
    theirs.norm = torch.nn.Identity()
    hidden, _ = inputs(decoder, 7)
    frames = decoder.input_proj(hidden).repeat_interleave(5, dim=1)
    with torch.no_grad():
        wanted = decoder.output_proj(theirs(inputs_embeds=frames).last_hidden_state)
    assert_close(decoder(hidden), wanted)


def test_frames_given_spread_the_tokens():
    """Lengths and frames that say the usual are the usual; more frames hold each token longer; padding is nothing."""
    decoder = build("llama-omni", sub_position=True)
    hidden, _ = inputs(decoder, 6)
    usual = decoder(hidden)
    lengths, frames = torch.tensor([6, 4]), torch.tensor([30, 20])
    assert_close(decoder(hidden, lengths=lengths, frames=frames)[:, :20], usual[:, :20])
    stretched = decoder(hidden[1:, :4], lengths=torch.tensor([4]), frames=torch.tensor([33]))
    batched = decoder(hidden, lengths=lengths, frames=torch.tensor([30, 33]))
    assert_close(batched[1:, :33], stretched)
    assert stretched.shape == (1, 33, 12)


def test_nano_flags_do_something():
    decoder = build("nano")
    hidden, embeds = inputs(decoder, 4)
    assert decoder.output_proj.bias[11] == -2.0
    assert (decoder(hidden, embeds) - decoder(hidden, embeds.flip(0))).abs().max() > 1e-3
    decoder.sub_position.zero_()
    one = decoder.step(hidden[:, :1], decoder.init_state(2), embeds[:, :1])
    assert (one[:, :1] - one).abs().max() < 1e-5, "without sub-positions, frames of the first token are all alike"
    with pytest.raises(DuologueError, match="needs token embeddings"):
        decoder(hidden)
    with pytest.raises(DuologueError, match="takes no token embeddings"):
        build("banded")(hidden, embeds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"band": 0}, "band is 0"), ({"heads": 5}, "width 32"), ({"kv_heads": 3}, "kv_heads"), ({"units": 0}, "units")],
)
def test_bad_sizes_are_refused(changes, message):
    with pytest.raises(DuologueError, match=message):
        UnitDecoderConfig(**{**BASE, **changes})


def one_hot(labels):
    return F.one_hot(torch.tensor(labels), 4).float()


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_collapse(size):
    """Blank is 3. Repeats merge, also across pieces; a blank between two equal labels keeps both."""
    frames = one_hot([[3, 1, 1, 3, 1, 0, 0, 2, 2, 2, 3, 3], [0, 0, 0, 3, 3, 3, 0, 3, 3, 3, 3, 3]])
    wanted = [[1, 1, 0, 2], [0, 0]]
    collapse = CTCCollapse(blank=3)
    assert collapse(frames).tolist() == [wanted[0], [0, 0, -1, -1]]
    for row in range(2):
        state, units = collapse.init_state(1), []
        for chunk in frames[row : row + 1].split(size, dim=1):
            units += collapse.step(chunk, state)[0].tolist()
        assert units == wanted[row]


def nano():
    torch.manual_seed(0)
    config = UnitDecoderConfig(in_dim=256, dim=256, heads=4, ffn_dim=688, units=200, upsample=25, band=20)
    return UnitDecoder(config).eval().requires_grad_(False)


def seconds(run):
    """Computing time of this process, so that others on the machine do not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


@pytest.fixture(scope="module")
def replies():
    """Replies of 400 tokens: decoder, states, the units after each token, and each token's cost, the lesser of two."""
    decoder, collapse = nano(), CTCCollapse(200)
    hidden = torch.randn(1, 400, 256)
    costs = []
    with torch.inference_mode():
        for _ in range(2):
            state, last, units, spent = decoder.init_state(), collapse.init_state(), [], []
            for x in hidden.split(1, dim=1):
                start = time.process_time()
                units.append(collapse.step(decoder.step(x, state), last))
                spent.append(time.process_time() - start)
            costs.append(spent)
    return decoder, hidden, units, torch.tensor(costs).amin(dim=0)


def test_cost_grows_linearly(replies):
    """Cost of a streamed reply of 50 to 400 tokens: exponent at most 1.15 at nano's size."""
    lengths = torch.tensor([50, 100, 200, 400])
    costs = replies[3].cumsum(0)[lengths - 1]
    x, y = lengths.log() - lengths.log().mean(), costs.log() - costs.log().mean()
    exponent = float((x * y).sum() / x.square().sum())
    print(f"\nstreamed unit decoder, 50 to 400 tokens: {[f'{c * 1e3:.0f} ms' for c in costs]}, exponent {exponent:.2f}")
    assert exponent <= 1.15


@torch.inference_mode()
def test_streaming_is_cheaper_than_the_whole_prefix(replies):
    """100 tokens, the same weights in the same run: at least 25 times cheaper than running over the prefix each time.

    That is what LLaMA-Omni's reference does; every twentieth prefix is measured here and stands for its neighbours.
    """
    decoder, hidden, units, costs = replies
    collapse = CTCCollapse(200)
    slow = 0.0
    for length in range(10, 100, 20):
        prefix = hidden[:, :length]
        assert torch.equal(torch.cat(units[:length], dim=1), collapse(decoder(prefix)))
        slow += 20 * min(seconds(lambda prefix=prefix: collapse(decoder(prefix))) for _ in range(2))
    fast = float(costs[:100].sum())
    print(f"\n100 tokens: streamed {fast * 1e3:.0f} ms, whole prefix each time {slow:.1f} s: {slow / fast:.0f} times")
    assert slow / fast >= 25
