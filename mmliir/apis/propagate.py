"""Propagate given masks through one video: frames in, label maps out, as a stream of bounded memory."""

import contextlib
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from mmliir.apis.affinity import settle_affinity
from mmliir.apis.configs import load_config
from mmliir.apis.encoders import make_encoder, settle_compile
from mmliir.apis.evaluate import build_method, describe_input, describe_model
from mmliir.datasets import FrameArray, check_mask_size, number_colors, open_frames, read_label_map
from mmliir.datasets.masks import are_palette_colors, label_map_png
from mmliir.evaluation.protocol import (
    RUN_CARD_NAME,
    ProtocolCard,
    check_run_card,
    fingerprint_data,
    write_run_card,
)
from mmliir.propagation import (
    Absence,
    Protocol,
    VideoLabels,
    find_absences,
    present_ids,
    propagate_video,
    resolve_protocol,
)
from mmliir.structures import FrameSequence
from mmliir.utils.compute import choose_precision, limit_threads
from mmliir.utils.env import code_version
from mmliir.utils.files import is_system_file, write_bytes_atomic
from mmliir.utils.pipeline import NO_OVERLAP, Overlap, map_ahead, overlap_for
from mmliir.utils.words import number_of
from mmliir.visualization import overlay_labels, require_video_writer, write_video

OVERLAY_NAME = 'overlay'
_DEFAULT_FPS = 24.0

Mask = str | Path | np.ndarray


@dataclass(frozen=True)
class Propagation:
    """A video and its label maps, which are computed while they are taken. Iterate once.

    Attributes:
        name: Of the video.
        frames: T frames, `frames[n]` is (H, W, 3) uint8 RGB.
        frame_names: T names, without suffix; the mask of frame n is written as `<name>.png`.
        label_maps: Iterator of T label maps, (H, W) uint8, 0 = background, ids as in the given masks.
        notes: What was assumed about the mask files, one sentence each.
        card: Everything that the label maps depend on.
        inputs: Files and folders that are read: the video and the masks.
        given: Frame number -> ids that its mask gives.
        device: Where it is computed.
        overlap: What of reading and writing runs beside the propagation.
    """

    name: str
    frames: FrameSequence
    frame_names: tuple[str, ...]
    label_maps: VideoLabels
    notes: tuple[str, ...]
    card: ProtocolCard
    inputs: tuple[Path, ...]
    given: Mapping[int, frozenset[int]]
    device: torch.device
    overlap: Overlap = NO_OVERLAP

    def __len__(self) -> int:
        return len(self.frame_names)

    def __iter__(self) -> VideoLabels:
        return self.label_maps


@dataclass(frozen=True)
class WrittenMasks:
    """What `write_propagation` left on disk.

    Attributes:
        out_dir: Folder of the masks and of `run.json`.
        num_masks: Masks in it, one a frame.
        overlay: The video of the masks over the frames, or None.
        was_complete: An earlier run had finished the same thing, nothing was computed.
        empty_from: Name of the frame from which on no mask shows an object; None where the last one shows one, or where
            nothing was computed.
        absences: Where objects that had been given are in no mask, in order of frames; empty where nothing was
            computed.
        num_before: Frames before the first given mask; their masks are empty.
    """

    out_dir: Path
    num_masks: int
    overlay: Path | None
    was_complete: bool
    empty_from: str | None = None
    absences: tuple[Absence, ...] = ()
    num_before: int = 0

    @property
    def lost(self) -> tuple[Absence, ...]:
        """The absences that last to the end of the video, one an object."""
        return tuple(absence for absence in self.absences if absence.to_the_end)


class _FirstFrames:
    """The first frames of a video."""

    def __init__(self, frames: FrameSequence, count: int) -> None:
        self.name, self._frames, self._count = frames.name, frames, min(count, len(frames))
        self.frame_rate: float | None = getattr(frames, 'frame_rate', None)
        self.concurrent: bool = getattr(frames, 'concurrent', False)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < self._count:
            raise IndexError(f'frame {index} of the first {self._count} of {self.name}')
        return self._frames[index]


def propagate(
    video: str | Path | np.ndarray | FrameSequence,
    mask: Mask | Mapping[int, Mask],
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    protocol: str | Protocol | None = None,
    short_side: int | None = None,
    max_frames: int | None = None,
    precision: str = 'float32',
    seed: int = 0,
    device: str | torch.device | None = None,
    options: dict | None = None,
    max_memory: int | None = None,
    compiled: bool = False,
    bit_depth: int | None = None,
) -> Propagation:
    """Propagate masks through a video.

    What can be wrong with the masks, the config and the weights is found by the call; frames are read, and
    label maps computed, while the result is iterated.

    Args:
        video: Video file, folder of frames, (T, H, W, 3) uint8 RGB, or any `FrameSequence`.
        mask: Image file or (H, W) array of ids, 0 = background: the mask of frame 0. Or frame number -> mask;
            later masks bring objects that enter late, and replace what was predicted where they are not 0.
        config: Config file, or a resolved config.
        checkpoint: Checkpoint file, 'untrained', or None for features without weights.
        protocol: Name of a preset or a `Protocol`; None takes the config's.
        short_side: Frames are resized to this shorter side for the encoder; label maps keep their size.
        max_frames: Stop after this many frames.
        precision: 'float32', 'bfloat16', or 'auto' to ask the machine, see `choose_precision`.
        seed: Of untrained weights.
        device: Where to compute; the GPU when there is one.
        options: Changes to the config by dotted name.
        max_memory: Bound in bytes on the memory of the propagation, see `PropagationSession`.
        compiled: Compile the encoder, see `CompiledEncoder`.
        bit_depth: Of frames with 16 bits a channel: how many are used; None to find it out, see `FrameFolder`.

    Returns:
        An iterable of T label maps, (H, W) uint8 at the frames' own size, with names, notes and a run card.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file, a mask, a setting or the weights do not fit; the text says which and what to do.
    """
    cfg = config if isinstance(config, Config) else load_config(config, options)
    chosen = protocol or cfg.get('protocol')
    if chosen is None:
        raise ValueError('give a protocol: the config names none (`protocol = ...`)')
    chosen = resolve_protocol(chosen)
    if short_side is not None:
        chosen = chosen.at_short_side(short_side)
    if max_frames is not None and max_frames < 1:
        raise ValueError(f'max_frames must be 1 or more, got {max_frames}')
    frames, frame_names = _open(video, bit_depth)
    if max_frames is not None:
        frames, frame_names = _FirstFrames(frames, max_frames), frame_names[:max_frames]
    masks = dict(mask) if isinstance(mask, Mapping) else {0: mask}
    labels, notes = _read_masks(masks, frames)
    model = build_method(cfg, checkpoint, seed, device)
    limit_threads()
    compiled = settle_compile(compiled, model.device)
    precision = choose_precision(precision, model.device)
    encode = make_encoder(model, precision, compiled)
    label_maps = propagate_video(frames, encode, labels, chosen, model.stride, model.device, max_memory)
    identity = describe_model(cfg, Path(cfg.filename or 'config').stem, checkpoint, seed)
    card = ProtocolCard(
        protocol=chosen.name,
        settings=dataclasses.asdict(chosen.settings),
        input=describe_input(chosen, identity, precision, compiled, model.device) | _describe_video(frames, labels),
        colour_space=identity.colour_space,
        model=identity.name,
        checkpoint_sha256=identity.checkpoint_sha256,
        data=fingerprint_data([(frames.name, len(frames), next(iter(labels.values())).shape)]),
        metric_version='none',
        n_of_N=(1, 1),
        code_version=code_version(),
        seed=identity.seed,
    )
    inputs = tuple(Path(item) for item in (video, *masks.values()) if isinstance(item, str | Path))
    given = {number: present_ids(ids) for number, ids in labels.items()}
    overlap = overlap_for(model.device)
    return Propagation(frames.name, frames, frame_names, label_maps, notes, card, inputs, given, model.device, overlap)


def write_propagation(
    propagation: Propagation,
    out_dir: str | Path,
    overlay: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenMasks:
    """Write each label map as an indexed PNG as soon as it is computed.

    Args:
        propagation: What `propagate` returned, not iterated yet.
        out_dir: Gets `<frame name>.png` for every frame and `run.json`. A folder that holds the masks of a run
            with other settings, or of another video, is refused. One that holds all masks of the same run is
            left as it is; one that holds a part of them is written anew, from the first frame on.
        overlay: Write the masks over the frames as a video too, `overlay.mp4`. Needs PyAV.
        overwrite: Delete the masks of another run first.
        progress: Called with (frames done, all).

    Raises:
        ValueError: `out_dir` belongs to another run or holds the input, or a frame cannot be read; masks that
            were written stay.
        ImportError: `overlay` without PyAV.
    """
    out_dir = Path(out_dir)
    paths = [out_dir / f'{name}.png' for name in propagation.frame_names]
    _refuse_input_as_output(propagation, out_dir, paths)
    if overlay:
        require_video_writer()
    if overwrite:
        _clear(out_dir, set(paths))
    affinity = settle_affinity(out_dir, propagation.device)
    card = affinity.on_card(propagation.card)
    resumed = check_run_card(out_dir, card)
    old_overlay = next(
        (p for p in (out_dir / f'{OVERLAY_NAME}{s}' for s in ('.mp4', '.webm')) if p.is_file()), None
    )
    if resumed and all(path.is_file() for path in paths) and (old_overlay is not None or not overlay):
        return WrittenMasks(out_dir, len(paths), old_overlay, True, num_before=min(propagation.given))
    missing = affinity.missing()
    if missing:
        raise ValueError(affinity.refusal(out_dir, missing))
    if not resumed:
        write_run_card(out_dir, card)
    shown: list[frozenset[int]] = []
    stream = _written(propagation, paths, progress or (lambda done, total: None), overlay, shown)
    video = None
    with affinity.computing():
        if overlay:
            drawn = (overlay_labels(frame, label_map) for frame, label_map in stream)
            fps = getattr(propagation.frames, 'frame_rate', None) or _DEFAULT_FPS
            video = write_video(out_dir / f'{OVERLAY_NAME}.mp4', drawn, fps)
        else:
            for _ in stream:
                pass
    last = max(number for number, ids in enumerate(shown) if ids)  # the given mask has one
    empty_from = None if last == len(shown) - 1 else propagation.frame_names[last + 1]
    absences = find_absences(shown, propagation.given, propagation.frame_names)
    return WrittenMasks(out_dir, len(paths), video, False, empty_from, absences, min(propagation.given))


def _written(
    propagation: Propagation, paths: list[Path], progress, with_frames: bool, shown: list[frozenset[int]]
) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    """(frame, label map), each after its file is written; the frame is None unless it is asked for.

    Which objects a map shows is noted in `shown`.
    """

    def encode(item: tuple[Path, np.ndarray | None, np.ndarray]) -> tuple[Path, bytes, np.ndarray | None, np.ndarray]:
        path, frame, label_map = item
        return path, label_map_png(label_map, path), frame, label_map

    propagated, overlap = _propagated(propagation, paths, with_frames), propagation.overlap
    encoded = map_ahead(encode, propagated, overlap.writers, overlap.ahead)
    with contextlib.closing(propagated), contextlib.closing(encoded):
        for done, (path, content, frame, label_map) in enumerate(encoded, start=1):
            write_bytes_atomic(path, content, durable=False)
            progress(done, len(paths))
            shown.append(present_ids(label_map))
            yield frame, label_map


def _propagated(
    propagation: Propagation, paths: list[Path], with_frames: bool
) -> Generator[tuple[Path, np.ndarray | None, np.ndarray], None, None]:
    """(path, frame, label map); what goes wrong here, and not while writing, is said with the number of masks."""
    maps = iter(propagation)
    for number, path in enumerate(paths):
        try:
            label_map, frame = next(maps), None
            if with_frames:  # frames before the first mask were not read, and nobody reads any before they are through
                frame = propagation.frames[number] if maps.frame is None else maps.frame
        except (ValueError, OSError) as error:
            raise ValueError(
                f'{error} ({number} of {len(paths)} masks were written to {path.parent}.)'
            ) from error
        yield path, frame, label_map


def _open(video, bit_depth: int | None) -> tuple[FrameSequence, tuple[str, ...]]:
    """Frames, and the name of each frame."""
    if isinstance(video, np.ndarray):
        video = FrameArray(video, 'video')
    frames = open_frames(video, bit_depth) if isinstance(video, str | Path) else video
    names = getattr(frames, 'frame_names', None) or tuple(f'{number:05d}' for number in range(len(frames)))
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(
            f'{frames.name} has two frames called {twice!r} (with other suffixes): their masks would have one '
            'name. Keep one kind of image in the folder.'
        )
    return frames, tuple(names)


def _read_masks(
    masks: Mapping[int, Mask], frames: FrameSequence
) -> tuple[dict[int, np.ndarray], tuple[str, ...]]:
    """Frame number -> (H, W) uint8, and what was assumed."""
    if not masks:
        raise ValueError(f'{frames.name} has no mask: give the mask of at least one frame')
    outside = [number for number in masks if not 0 <= number < len(frames)]
    if outside:
        raise ValueError(
            f'{frames.name} has {len(frames)} frames, 0 to {len(frames) - 1}, but a mask is given for frame '
            f'{outside[0]}'
        )
    size = np.asarray(frames[min(masks)]).shape[:2]
    files = [mask for _, mask in sorted(masks.items()) if not isinstance(mask, np.ndarray)]
    colors = number_colors(files) if files and len(masks) > 1 else None
    if colors is not None and len(files) < len(masks) and not are_palette_colors(colors):
        raise ValueError(
            f'{files[0]} holds colours that are not of the DAVIS palette, another mask is an array of ids: which of '
            'them are one object cannot be known. Give all masks of a video in one way.'
        )
    labels, notes = {}, []
    for number, mask in sorted(masks.items()):
        if isinstance(mask, np.ndarray):
            labels[number] = _checked_array(mask, number)
            check_mask_size(labels[number], size, f'the mask of frame {number}')
        else:
            label_map = read_label_map(mask, require_object=True, colors=colors)
            check_mask_size(label_map, size, mask)
            labels[number] = label_map.ids
            notes += [f'{mask}: {note}' for note in label_map.notes]
    return labels, (*notes, *_notes_on_ids(labels), *_notes_before(labels, frames))


def _notes_on_ids(labels: Mapping[int, np.ndarray]) -> Iterator[str]:
    """Which objects are given again: one that is meant to be another needs an id of its own."""
    seen: dict[int, int] = {}
    for number, ids in sorted(labels.items()):
        objects = [int(i) for i in np.unique(ids) if i]
        again = [i for i in objects if i in seen]
        if again:
            yield (
                f'the mask of frame {number} gives {_ids_text(again)} again, taken as the same as in frame '
                f'{seen[again[0]]}; another object needs another id'
            )
        seen |= {i: seen.get(i, number) for i in objects}


def _notes_before(labels: Mapping[int, np.ndarray], frames: FrameSequence) -> Iterator[str]:
    first = min(labels)
    if first:
        yield (
            f'{number_of(first, "frame")} before the first mask (frame {first}) will be written empty: objects are '
            f'followed forwards only. Give a mask of frame 0, or propagate the frames in reverse order for that part'
        )


def _ids_text(ids: Sequence[int]) -> str:
    return f'object{"" if len(ids) == 1 else "s"} {", ".join(map(str, ids))}'


def _checked_array(mask: np.ndarray, number: int) -> np.ndarray:
    if mask.ndim != 2 or not (mask.dtype == bool or np.issubdtype(mask.dtype, np.integer)):
        raise ValueError(
            f'the mask of frame {number} must be (H, W) whole numbers, got {mask.dtype} {mask.shape}'
        )
    if mask.size and (mask.min() < 0 or mask.max() > 255):
        raise ValueError(
            f'the mask of frame {number}: ids go from 0 to 255, got {mask.min()} to {mask.max()}'
        )
    if not mask.any():
        raise ValueError(f'the mask of frame {number} holds no object: every pixel is 0 (background)')
    return mask.astype(np.uint8)


def _describe_video(frames: FrameSequence, labels: Mapping[int, np.ndarray]) -> dict:
    """Tells two videos of one name and length apart, and two sets of masks."""
    first = np.ascontiguousarray(frames[min(labels)])
    return {
        'first_frame_sha256': hashlib.sha256(first.tobytes()).hexdigest(),
        'masks_sha256': {str(n): hashlib.sha256(ids.tobytes()).hexdigest() for n, ids in labels.items()},
    }


def _refuse_input_as_output(propagation: Propagation, out_dir: Path, paths: list[Path]) -> None:
    written = {path.resolve() for path in paths} | {out_dir.resolve()}
    written |= {(out_dir / f'{OVERLAY_NAME}{suffix}').resolve() for suffix in ('.mp4', '.webm')}
    for path in propagation.inputs:
        if path.resolve() in written:
            raise ValueError(
                f'the output in {out_dir} would replace the input {path}: give another output folder'
            )


def _clear(out_dir: Path, own: set[Path]) -> None:
    """Delete the card and the masks that this run will write; refuse where there are others."""
    if not out_dir.is_dir():
        return
    found = (path for path in out_dir.rglob('*.png') if not is_system_file(path.name))
    foreign = sorted(str(path.relative_to(out_dir)) for path in found if path not in own)
    if foreign:
        shown = ', '.join(foreign[:5]) + (', ...' if len(foreign) > 5 else '')
        raise ValueError(
            f'{out_dir} holds PNG files that this run would not overwrite ({shown}). Use another output folder, '
            'or delete them yourself.'
        )
    for path in (out_dir / RUN_CARD_NAME, *own, *(out_dir / f'{OVERLAY_NAME}{s}' for s in ('.mp4', '.webm'))):
        path.unlink(missing_ok=True)
