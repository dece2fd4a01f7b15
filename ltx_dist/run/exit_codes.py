"""Exit codes: how a run ended, for the commands and `run.json`."""

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_BAD_INPUT = 2
EXIT_SOME_FAILED = 3
EXIT_OUTPUT = 74
EXIT_STOPPED = 75
