"""Buffers of keys and values: shared by clones, cut in no time, copied only where two futures part."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.model.errors import DuologueError
from duologue.model.layers.kv_cache import KVBuffer


def frames(first, count):
    """Keys (1, 2, count, 3) that say which frame they are; values are their negatives."""
    keys = torch.arange(first, first + count, dtype=torch.float32)[None, None, :, None].expand(1, 2, count, 3)
    return keys, -keys


def seen(buffer):
    return [] if buffer.keys is None else buffer.keys[0, 0, :, 0].tolist()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_history_of_clones_and_cuts(data):
    """Every buffer always holds what a plain list would hold, whatever the others do."""
    window = data.draw(st.sampled_from([None, 0, 3, 90]))
    buffers, lists, number = [KVBuffer(window)], [[]], 0
    for _ in range(data.draw(st.integers(1, 25))):
        i = data.draw(st.integers(0, len(buffers) - 1))
        action = data.draw(st.sampled_from(["append", "append", "clone", "truncate", "drop", "move"]))
        if action == "append":
            count = data.draw(st.integers(0, 80))
            before = lists[i] if window is None else lists[i][max(0, len(lists[i]) - window) :]
            keys, values = buffers[i].append(*frames(number, count))
            lists[i] = before + list(range(number, number + count))
            number += count
            assert keys[0, 1, :, 2].tolist() == lists[i]
            assert torch.equal(values, -keys)
        elif action == "clone":
            buffers.append(buffers[i].clone())
            lists.append(list(lists[i]))
        elif action == "move":
            buffers[i] = buffers[i].to("cpu")
        elif action == "truncate":
            cut = data.draw(st.integers(0, len(lists[i])))
            buffers[i].truncate(buffers[i].length - cut)
            lists[i] = lists[i][: len(lists[i]) - cut]
        elif len(buffers) > 1:
            del buffers[i], lists[i]
        assert [seen(buffer) for buffer in buffers] == lists


def pointer(buffer):
    return buffer.keys.untyped_storage().data_ptr()


def test_a_clone_shares_the_storage_until_it_parts():
    buffer = KVBuffer()
    buffer.append(*frames(0, 4096))
    clone = buffer.clone()
    assert pointer(clone) == pointer(buffer)
    buffer.append(*frames(4096, 1))  # the first to append goes on where it is
    assert pointer(clone) == pointer(buffer)
    clone.append(*frames(9000, 1))  # the second takes its own block, once
    assert pointer(clone) != pointer(buffer)
    own = pointer(clone)
    for i in range(100):
        clone.append(*frames(9001 + i, 1))
    assert pointer(clone) == own


def test_the_last_one_left_overwrites_without_copying():
    buffer = KVBuffer()
    buffer.append(*frames(0, 1000))
    before = pointer(buffer)
    speculation = buffer.clone()
    speculation.append(*frames(5000, 10))
    del speculation
    buffer.append(*frames(1000, 10))
    buffer.truncate(500)
    buffer.append(*frames(500, 100))
    assert pointer(buffer) == before
    assert seen(buffer) == [float(i) for i in range(600)]


def test_growth_copies_a_constant_per_frame():
    buffer, blocks = KVBuffer(), set()
    for i in range(5000):
        buffer.append(*frames(i, 1))
        blocks.add(pointer(buffer))
    assert len(blocks) <= 9  # 64, 130, 262, ...: doubling


def test_truncating_outside_is_refused():
    buffer = KVBuffer(window=5)
    buffer.append(*frames(0, 10))
    buffer.append(*frames(10, 2))
    assert buffer.length == 12
    with pytest.raises(DuologueError, match="cannot truncate to 4; it must be between 5 and 12"):
        buffer.truncate(4)
    with pytest.raises(DuologueError, match="13"):
        buffer.truncate(13)
    buffer.truncate(9)
    assert seen(buffer) == [5, 6, 7, 8]


def test_a_buffer_made_in_inference_mode_can_be_used_outside():
    buffer = KVBuffer()
    with torch.inference_mode():
        buffer.append(*frames(0, 3))
    with torch.no_grad():
        buffer.append(*frames(3, 1))
    assert seen(buffer) == [0, 1, 2, 3]
