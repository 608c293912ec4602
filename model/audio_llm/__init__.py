"""Audio language models that transformers runs: one file each, found by the model type of their config.json.

Each file has ``load(folder, device, dtype)``, which gives an :class:`.audio_llm.AudioLLM`. Not here: what Duologue
builds of parts itself (``speech_lm.py``).
"""
