"""PCK of JHMDB and BADJA as slow loops, written from the definitions: what the fast ones are tested against.

Plain Python, one joint of one frame at a time; nothing here shares code with `mmliir.evaluation.functional`.
"""

import math
from collections.abc import Sequence

Points = Sequence[Sequence[Sequence[float]]]


def slow_jhmdb_pck(
    predictions: Sequence[Points],
    truths: Sequence[Points],
    sizes: Sequence[tuple[int, int]],
    evaluator: str,
    alpha: float,
) -> float:
    """Return PCK as a fraction.

    Args:
        predictions: Of each clip, T frames of J joints (x, y), finite.
        truths: Likewise.
        sizes: (H, W) of each clip.
        evaluator: 'crw', 'vfs' or 'tapnet'.
        alpha: Threshold, as a share of 0.6 of the diagonal of the box around the joints that count.
    """
    num_joints = len(truths[0][0])
    hits, counts = [0] * num_joints, [0] * num_joints
    for prediction, truth, (height, width) in zip(predictions, truths, sizes):
        for t in range(len(truth)):
            counted = []
            for joint in range(num_joints):
                x = prediction[t][joint][0]
                first_x, first_y = truth[0][joint]
                if evaluator == 'crw':
                    counts_here = not x < 0
                elif evaluator == 'vfs':
                    counts_here = x > 0
                else:
                    counts_here = 0 <= first_x + 1 < width and 0 <= first_y + 1 < height
                if counts_here:
                    counted.append(joint)
            if not counted or (t == 0 and evaluator == 'crw'):
                continue
            xs, ys = ([truth[t][joint][axis] for joint in counted] for axis in (0, 1))
            scale = 0.6 * math.hypot(max(xs) - min(xs), max(ys) - min(ys))
            for joint in counted:
                counts[joint] += 1
                if scale > 0 and math.dist(prediction[t][joint], truth[t][joint]) / scale <= alpha:
                    hits[joint] += 1
    shares = [hit / count for hit, count in zip(hits, counts) if count]
    return sum(shares) / len(shares)


def slow_badja_pck(
    predictions: Sequence[Points],
    truths: Sequence[Points],
    visible: Sequence[Sequence[Sequence[bool]]],
    masks: Sequence[Sequence[Sequence[Sequence[bool]]]],
    evaluator: str,
    alpha: float,
) -> float:
    """Return PCK as a fraction, of videos whose joints, tracks and masks have one resolution.

    Args:
        predictions: Of each video, A annotated frames of N joints (x, y) in pixels, centres at integers.
        truths: Likewise.
        visible: Of each video, A frames of N truth values.
        masks: Of each video, A frames of H rows of W truth values.
        evaluator: 'pips', 'fgvc' or 'dino_tracker'.
        alpha: Threshold, as a share of the square root of the area.
    """
    videos = []
    for prediction, truth, seen, mask in zip(predictions, truths, visible, masks):
        height, width = len(mask[0]), len(mask[0][0])
        new_height, new_width = (height, width) if evaluator == 'dino_tracker' else (320, 512)
        hits = []
        for t in range(0 if evaluator == 'fgvc' else 1, len(truth)):
            rows = [mask[t][i * height // new_height] for i in range(new_height)]
            area = sum(bool(row[j * width // new_width]) for row in rows for j in range(new_width))
            for (x, y), (true_x, true_y), counts_here in zip(prediction[t], truth[t], seen[t]):
                if not counts_here:
                    continue
                across, down = new_width / width, new_height / height
                if evaluator == 'fgvc':
                    dx = (x + 0.5) * across - 0.5 - int(true_x * across)
                    dy = (y + 0.5) * down - 0.5 - int(true_y * down)
                else:
                    dx, dy = (x - true_x) * across, (y - true_y) * down
                hits.append(math.sqrt(dx * dx + dy * dy) < alpha * math.sqrt(area))
        videos.append(hits)
    if evaluator == 'fgvc':
        pooled = [hit for hits in videos for hit in hits]
        return sum(pooled) / len(pooled)
    return sum(sum(hits) / len(hits) for hits in videos) / len(videos)
