"""How a run ended, as a number: the exit code of the commands, which `run.json` holds too."""

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_BAD_INPUT = 2
EXIT_SOME_FAILED = 3
EXIT_OUTPUT = 74
EXIT_STOPPED = 75
