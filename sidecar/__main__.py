"""`python -m sidecar`: the same as the command `jwt-sidecar`."""

import sys

from sidecar.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
