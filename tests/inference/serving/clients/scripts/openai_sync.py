"""openai-python, synchronous: the microphone in a thread of its own."""

from __future__ import annotations

import base64
import threading

from dialogue import Dialogue
from openai import OpenAI
from raw_events import GREETING, SESSION, note


def main() -> None:
    dialogue = Dialogue()
    client = OpenAI(api_key="none", base_url=dialogue.url)
    with client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(session=SESSION[dialogue.task])

        def speak() -> None:
            for block in dialogue.blocks_here():
                connection.input_audio_buffer.append(audio=base64.b64encode(block).decode())
            connection.close()

        microphone = threading.Thread(target=speak, daemon=True)
        microphone.start()
        if dialogue.task == "functions":
            connection.response.create(response=GREETING)
        for event in connection:
            for answer in note(event.model_dump(), dialogue):
                connection.send(answer)
        microphone.join()
    dialogue.report()


main()
