"""POST /v1/chat/completions: its messages, parameters and functions, and its answers, whole or as they are made."""
