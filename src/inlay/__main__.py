"""`python -m inlay`: the same command line as the installed `inlay`."""

import sys

from inlay.python_process import leave_folder

if __name__ == "__main__":
    leave_folder()

    from inlay.cli.main import main  # behind it: nothing that it imports may be a file of the current folder

    sys.exit(main())
