"""Score any feature on any benchmark under any protocol: `mmliir eval`, for those who look in tools/.

  python tools/evaluate.py --model raw:lab --on davis2016,badja --protocol crw --data-root data
"""

import sys

from mmliir.cli import main

if __name__ == '__main__':
    sys.exit(main(['eval', *sys.argv[1:]]))
