"""`python -m slopesearch`."""

import sys

if __name__ == "__main__":
    try:
        from slopesearch.cli.main import main

        main()
    except KeyboardInterrupt:  # while modules are loaded; later, typer takes it
        sys.exit(130)
