#!/usr/bin/env python
"""The command `mmliir convert`: another project's checkpoint becomes ours.

example:
  python tools/model_converters/convert.py crw pretrained.pth --out crw.pth
"""

import sys

from mmliir.cli import main

if __name__ == '__main__':
    sys.exit(main(['convert', *sys.argv[1:]]))
