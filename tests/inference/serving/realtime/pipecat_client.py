"""Somebody else's client: a pipeline of pipecat's with its OpenAI Realtime service, only the address changed.

    python pipecat_client.py ws://127.0.0.1:8000/v1/realtime question.wav ANSWERS    in an environment of its own
    (pip install "pipecat-ai[openai]==1.14.*")

The recording (16-bit mono at 24 kHz) is the microphone, in real time and silent behind its end, until so many answers
have come. Prints what was heard and said as one JSON object. It imports nothing of Duologue's.
"""
# pyright: reportMissingImports=false

import asyncio
import json
import sys
import time
import wave

from pipecat.frames.frames import (
    ErrorFrame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

RATE, BLOCK = 24_000, 960  # 40 ms
url, recording, answers = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen: dict = {"heard": [], "said": [""], "audio_s": [0.0], "errors": []}


class Watch(FrameProcessor):
    """Notes what passes, in either direction."""

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            seen["heard"].append(frame.text)
        elif isinstance(frame, TTSTextFrame):
            seen["said"][-1] += frame.text
        elif isinstance(frame, TTSAudioRawFrame):
            seen["audio_s"][-1] += len(frame.audio) / 2 / frame.sample_rate
        elif isinstance(frame, LLMFullResponseEndFrame):
            seen["said"].append("")
            seen["audio_s"].append(0.0)
        elif isinstance(frame, ErrorFrame):
            seen["errors"].append(str(frame.error))
        await self.push_frame(frame, direction)


async def main():
    audio = events.AudioConfiguration(
        input=events.AudioInput(
            transcription=events.InputAudioTranscription(model="gpt-4o-transcribe"),
            turn_detection=events.SemanticTurnDetection(),
        )
    )
    service = OpenAIRealtimeLLMService(
        api_key="none",
        base_url=url,
        settings=OpenAIRealtimeLLMService.Settings(
            model="gpt-realtime", session_properties=events.SessionProperties(audio=audio)
        ),
    )
    worker = PipelineWorker(Pipeline([Watch(), service, Watch()]), idle_timeout_secs=None)

    async def microphone():
        with wave.open(recording, "rb") as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (RATE, 2, 1)
            sound = file.readframes(file.getnframes())
        began, i = time.monotonic(), 0
        while len(seen["said"]) <= answers and not seen["errors"] and i < 25 * 600:
            block = sound[2 * BLOCK * i : 2 * BLOCK * (i + 1)].ljust(2 * BLOCK, b"\0")
            await worker.queue_frame(InputAudioRawFrame(audio=block, sample_rate=RATE, num_channels=1))
            i += 1
            await asyncio.sleep(max(0.0, began + i * BLOCK / RATE - time.monotonic()))
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    speaking = asyncio.create_task(microphone())
    await runner.run(worker)
    await speaking
    print(json.dumps(seen))


asyncio.run(main())
