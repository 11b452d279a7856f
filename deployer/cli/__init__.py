"""The command line. Only `start` is here: a Ctrl+C while the rest is being loaded shows no traceback either."""


def start() -> int:
    """The program's entry point."""
    try:
        from deployer.cli.main import main

        return main()
    except KeyboardInterrupt:
        return 130
