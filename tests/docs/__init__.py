"""The documentation, executed: its commands are run, its examples are used, its facts are compared with the program."""
