"""`python -m inlay`: the same command line as the installed `inlay`."""

from inlay.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
