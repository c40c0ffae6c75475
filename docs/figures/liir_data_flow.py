"""Draw the data flow of one LIIR training step: `python docs/figures/liir_data_flow.py` writes the picture beside it.

Blue: tensors of the pair. Orange: the inter-video part. Green: losses. Dashed: no gradient.
"""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (the back end is chosen first)
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch  # noqa: E402

OUT = Path(__file__).parents[1] / 'assets' / 'liir_data_flow.png'
COLORS = {'pair': '#dce9fb', 'inter': '#fde8d3', 'loss': '#d8f0e2', 'part': '#f1f1f4'}
#: name -> (x, y of the centre, width, kind, text)
BOXES = {
    'pair': (1.1, 5.0, 1.9, 'pair', 'reference, query\nB x 2 x 3 x 256 x 256\none channel hidden'),
    'encoder': (3.9, 5.0, 2.1, 'part', 'encoder (Eq. 6)\nResNet-18, stride 4\n+ position map'),
    'features': (6.6, 5.0, 1.8, 'pair', 'features\nB x 64 x 64 x 64\nof both frames'),
    'logits': (9.2, 5.0, 1.8, 'pair', 'window logits\nB x 169 x 64 x 64\nradius 6'),
    'intra': (11.9, 6.3, 2.0, 'pair', 'affinity A (Eq. 1)\nrows sum to 1'),
    'mixed': (11.9, 3.7, 2.0, 'pair', 'affinity A~ (Eq. 4)\nrows sum below 1'),
    'compact': (14.8, 6.3, 2.2, 'loss', 'loss_compact (Eqs. 7, 8)\nA against its mixture\nof 2 Gaussians'),
    'reconstruction': (14.8, 3.7, 2.2, 'loss', 'loss_reconstruction\n(Eqs. 2, 3, 5): hidden\ncolour through A~'),
    'momentum': (3.9, 1.6, 2.1, 'inter', 'momentum encoder\nposition map shifted'),
    'bank': (6.6, 1.6, 1.9, 'inter', 'feature bank\n1,440 frames\nof other videos'),
    'logsumexp': (9.2, 1.6, 2.0, 'inter', 'log-sum-exp over\n4 points a frame\n(own video masked)'),
}
#: from, to, dashed
ARROWS = [
    ('pair', 'encoder', False),
    ('encoder', 'features', False),
    ('features', 'logits', False),
    ('logits', 'intra', False),
    ('logits', 'mixed', False),
    ('intra', 'compact', False),
    ('mixed', 'reconstruction', False),
    ('pair', 'momentum', True),
    ('momentum', 'bank', True),
    ('bank', 'logsumexp', True),
    ('features', 'logsumexp', False),
    ('logsumexp', 'mixed', False),
]
HEIGHT = 1.15


def edge(box: str, towards: str) -> tuple[float, float]:
    """Where the line between two centres leaves a box."""
    x, y, width = BOXES[box][:3]
    dx, dy = BOXES[towards][0] - x, BOXES[towards][1] - y
    scale = min(width / 2 / abs(dx) if dx else 9e9, HEIGHT / 2 / abs(dy) if dy else 9e9)
    return x + scale * dx, y + scale * dy


def main() -> None:
    figure, axes = plt.subplots(figsize=(16, 6.6))
    for x, y, width, kind, text in BOXES.values():
        corner = (x - width / 2, y - HEIGHT / 2)
        patch = FancyBboxPatch(corner, width, HEIGHT, 'round,pad=0,rounding_size=0.12', fc=COLORS[kind], ec='#667')
        axes.add_patch(patch)
        axes.text(x, y, text, ha='center', va='center', fontsize=8.5)
    for start, stop, dashed in ARROWS:
        style = dict(arrowstyle='-|>', mutation_scale=11, color='#445', lw=1.1, linestyle='--' if dashed else '-')
        axes.add_patch(FancyArrowPatch(edge(start, stop), edge(stop, start), shrinkA=1, shrinkB=1, **style))
    axes.text(5.25, 0.55, 'after the step: momentum update, the reference frames enter', ha='center', fontsize=8.5)
    axes.text(0.15, 7.15, 'solid: gradients flow    dashed: no gradient', fontsize=8.5, color='#445')
    axes.set(xlim=(0, 16.1), ylim=(0.2, 7.4))
    axes.axis('off')
    figure.savefig(OUT, dpi=90, bbox_inches='tight', metadata={'Software': None})


if __name__ == '__main__':
    main()
