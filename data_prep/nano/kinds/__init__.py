"""The kinds of questions that nano answers, and those that it declines."""
