"""`python -m mmliir`: the command line without an installed script."""

import sys

from mmliir.cli import main

if __name__ == '__main__':
    sys.exit(main())
