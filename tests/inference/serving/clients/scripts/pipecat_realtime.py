"""pipecat: a pipeline with its OpenAI Realtime service, its context aggregators, a function, noise reduction, and a
greeting as its examples make one."""
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json

from dialogue import TOOL, Dialogue
from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner


class Watch(FrameProcessor):
    """Notes what passes, in either direction."""

    def __init__(self, dialogue: Dialogue) -> None:
        super().__init__()
        self._dialogue = dialogue

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            self._dialogue.hear(frame.text)
        elif isinstance(frame, TTSTextFrame):
            self._dialogue.say(frame.text)
        elif isinstance(frame, TTSAudioRawFrame):
            self._dialogue.sound(len(frame.audio) / 2 / frame.sample_rate)
        elif isinstance(frame, LLMFullResponseEndFrame):
            self._dialogue.end()
        elif isinstance(frame, ErrorFrame):
            self._dialogue.fail(frame.error)
        await self.push_frame(frame, direction)


async def main() -> None:
    dialogue = Dialogue()
    functions = dialogue.task == "functions"
    audio = events.AudioConfiguration(
        input=events.AudioInput(
            transcription=events.InputAudioTranscription(model="gpt-4o-transcribe"),
            turn_detection=events.SemanticTurnDetection(),
            noise_reduction=events.InputAudioNoiseReduction(type="far_field"),
        )
    )
    service = OpenAIRealtimeLLMService(
        api_key="none",
        base_url=f"{dialogue.url.replace('http', 'ws')}/realtime",
        settings=OpenAIRealtimeLLMService.Settings(
            model="gpt-realtime", session_properties=events.SessionProperties(audio=audio)
        ),
    )

    async def weather(call: FunctionCallParams) -> None:
        await call.result_callback(dialogue.call(call.function_name, json.dumps(dict(call.arguments))))

    service.register_function(TOOL["name"], weather)
    parameters = TOOL["parameters"]
    function = FunctionSchema(
        name=TOOL["name"], description=TOOL["description"],
        properties=parameters["properties"], required=parameters["required"],
    )  # fmt: skip
    context = LLMContext([], ToolsSchema(standard_tools=[function])) if functions else LLMContext([])
    user, assistant = LLMContextAggregatorPair(context)
    pipeline = Pipeline([user, Watch(dialogue), service, Watch(dialogue), assistant])
    worker = PipelineWorker(pipeline, idle_timeout_secs=None)

    async def speak() -> None:
        if functions:
            await worker.queue_frame(LLMRunFrame())
        async for block in dialogue.blocks():
            await worker.queue_frame(InputAudioRawFrame(audio=block, sample_rate=dialogue.rate, num_channels=1))
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    speaking = asyncio.create_task(speak())
    await runner.run(worker)
    await speaking
    dialogue.report()


asyncio.run(main())
