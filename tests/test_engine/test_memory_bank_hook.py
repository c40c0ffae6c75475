"""The memory-bank hook's look at the training data."""

from types import SimpleNamespace

import pytest
import torch

from mmliir.engine.hooks.memory_bank_hook import MemoryBankHook
from mmliir.models.memory import FeatureBank


def runner(lengths, bank):
    """What the hook reads of a Runner; warnings are collected."""
    model = torch.nn.Linear(1, 1)
    model.inter = None if bank is None else SimpleNamespace(bank=bank)
    said = []
    return SimpleNamespace(
        model=model,
        train_dataloader=SimpleNamespace(dataset=SimpleNamespace(num_frames=lengths)),
        logger=SimpleNamespace(warning=said.append),
        said=said,
    )


def test_one_video_has_no_negatives_and_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r'one video only: add videos, or .* model.inter=None'):
        MemoryBankHook().before_train(runner((40,), FeatureBank(num_frames=4)))
    MemoryBankHook().before_train(runner((40,), None))


def test_videos_of_one_frame_give_no_pairs_and_no_negatives():
    with pytest.raises(ValueError, match='pairs come from one video only'):
        MemoryBankHook().before_train(runner((40, 1), FeatureBank(num_frames=4)))
    MemoryBankHook().before_train(runner((40, 1, 2), FeatureBank(num_frames=4)))


@pytest.mark.parametrize('frames, warns', [(15, False), (16, False), (17, True)])
def test_a_bank_larger_than_the_data_is_reported(frames, warns):
    a_runner = runner((8, 8), FeatureBank(num_frames=frames))
    MemoryBankHook().before_train(a_runner)
    assert bool(a_runner.said) is warns
    assert not warns or 'holds 17 frames, the training data has 16' in a_runner.said[0]
