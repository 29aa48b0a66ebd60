"""``python -m srds``: the command line without an installed script."""

from srds.cli import main

if __name__ == "__main__":
    main()
