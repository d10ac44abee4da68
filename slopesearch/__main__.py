"""`python -m slopesearch`: the command line as a process."""

import sys


def main() -> None:
    """Run the command line; nothing is printed of a Ctrl-C, and nobody has to read what is printed."""
    try:
        from slopesearch.interrupts import exits_at_once

        with exits_at_once():
            from slopesearch.cli.main import main as run
            from slopesearch.cli.streams import outlive_the_audience

            outlive_the_audience()
        run()
    except KeyboardInterrupt:  # outside typer, which takes it elsewhere
        sys.exit(130)


if __name__ == "__main__":
    main()
