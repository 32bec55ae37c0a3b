"""`python -m leadline`: the command line, for launchers that take a module."""

from leadline.cli import main

if __name__ == "__main__":
    main()
