"""`python -m slopesearch`."""

from slopesearch.cli import main

if __name__ == "__main__":
    main()
