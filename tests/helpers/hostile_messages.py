"""Messages that nobody ought to send to a Realtime session, to be drawn by hypothesis."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from running_server import pcm16, sound

from duologue.inference.serving.protocol.events import CLIENT

LOUD = pcm16(sound((0.3, True)))

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20), st.sampled_from(
        ["", "root", "item_1", "first", "message", "user", "assistant", "audio/pcm", "audio/pcmu", "server_vad", "none",
         "semantic_vad", "input_text", "input_audio", "inf", "realtime", "conversation", LOUD, "\x00", "\ud800",
         "A" * 5000]
    )
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = sorted(
    {name for model in CLIENT.values() for name in model.model_fields} | {"content", "role", "text", "id", "audio"}
)
events = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from([*CLIENT, "error", "response.done", "session.created"]),
    st.dictionaries(st.sampled_from(KEYS), anything, max_size=5),
)
part = st.fixed_dictionaries({"type": scalars}, optional={"text": scalars, "audio": scalars, "transcript": scalars})
item = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["message", "message", "function_call", ""]),
        "role": st.sampled_from(["user", "assistant", "system", "x"]),
    },
    optional={"content": st.lists(part, max_size=3) | scalars, "id": scalars, "status": scalars},
)
detection = st.none() | st.fixed_dictionaries(
    {"type": st.sampled_from(["server_vad", "semantic_vad", "x"])},
    optional={
        name: scalars
        for name in (
            "threshold",
            "silence_duration_ms",
            "prefix_padding_ms",
            "idle_timeout_ms",
            "eagerness",
            "create_response",
        )
    },
)
likely = st.one_of(
    st.builds(lambda audio: {"type": "input_audio_buffer.append", "audio": audio}, st.just(LOUD) | st.text()),
    st.just({"type": "input_audio_buffer.commit"}),
    st.just({"type": "input_audio_buffer.clear"}),
    st.just({"type": "response.create"}),
    st.just({"type": "response.cancel"}),
    st.builds(lambda value: {"type": "response.create", "response": value}, anything),
    st.builds(lambda value: {"type": "conversation.item.create", "item": value}, item),
    st.builds(
        lambda id_, at, index: {
            "type": "conversation.item.truncate", "item_id": id_, "audio_end_ms": at, "content_index": index
        },
        scalars, scalars, scalars,
    ),
    st.builds(
        lambda kind, id_: {"type": f"conversation.item.{kind}", "item_id": id_},
        st.sampled_from(["delete", "retrieve"]), scalars,
    ),
    st.builds(
        lambda value: {"type": "session.update", "session": {"audio": {"input": {"turn_detection": value}}}}, detection
    ),
    st.builds(lambda value: {"type": "session.update", "session": value}, anything),
    st.builds(
        lambda side, value: {"type": "session.update", "session": {"audio": {side: value}}},
        st.sampled_from(["input", "output"]), anything,
    ),
)  # fmt: skip


whole = st.one_of(likely, events, likely).map(json.dumps)
messages = st.one_of(
    whole,
    whole,
    st.builds(lambda text, cut: text[: cut % (len(text) + 1)], whole, st.integers(0, 10**6)),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "ignore").decode()),
    st.just("[" * 2_000),
    st.just('{"type":' * 500),
    st.binary(max_size=60),
)
