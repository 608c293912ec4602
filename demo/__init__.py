"""The edges: the command line, the terminal client, the voice-chat page, a Gradio app."""
