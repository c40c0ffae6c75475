"""The feature bank and the momentum encoder."""

import copy
import io

import numpy as np
import pytest
import torch
from largest_tensor import LargestTensor
from torch import nn

from mmliir.models.memory import FeatureBank, MomentumEncoder
from mmliir.testing import reference


def frames(ids, channels=3, size=(2, 2)):
    """Maps whose every value names the frame: frame 7, channel c, cell k holds 7 + c / 10 + k / 100."""
    ids = torch.as_tensor(ids)
    cells = size[0] * size[1]
    names = ids[:, None, None] + torch.arange(channels)[:, None] / 10 + torch.arange(cells) / 100
    return names.reshape(len(ids), channels, *size)


def bank(num_frames=4, points=2, sample='step', dtype=torch.float32):
    return FeatureBank(num_frames, points, sample, dtype=dtype)


def stored_ids(a_bank):
    return sorted(set(a_bank.draw(torch.Generator()).video_ids.tolist()))


def enqueue(a_bank, ids, seed=0):
    a_bank.enqueue(frames(ids), torch.as_tensor(ids), torch.Generator().manual_seed(seed))


def test_an_empty_bank_draws_nothing():
    assert bank().draw(torch.Generator()) is None


def test_oldest_frames_leave_first_and_slots_wrap():
    a_bank = bank(num_frames=4)
    kept = []
    for ids in ([1, 2, 3], [4, 5, 6], [7], [8, 9, 10, 11]):
        enqueue(a_bank, ids)
        kept = (kept + ids)[-4:]
        assert stored_ids(a_bank) == sorted(kept)
        assert a_bank.filled == len(kept)


def test_a_batch_larger_than_the_capacity_leaves_its_last_frames():
    a_bank = bank(num_frames=3)
    enqueue(a_bank, list(range(1, 9)))
    assert stored_ids(a_bank) == [6, 7, 8]
    enqueue(a_bank, [20])
    assert stored_ids(a_bank) == [7, 8, 20]


@pytest.mark.parametrize('sample', ['step', 'enqueue'])
def test_each_entry_is_one_cell_of_the_video_it_names(sample):
    a_bank = bank(num_frames=5, points=3, sample=sample)
    enqueue(a_bank, [4, 9, 2])
    entries = a_bank.draw(torch.Generator().manual_seed(1))
    assert entries.features.shape == (9, 3)
    assert entries.video_ids.tolist() == [4, 4, 4, 9, 9, 9, 2, 2, 2]
    for feature, video in zip(entries.features, entries.video_ids, strict=True):
        candidates = frames([int(video)])[0].flatten(1).t()
        assert any(torch.equal(feature, candidate) for candidate in candidates)


def test_step_sampling_draws_anew_and_enqueue_sampling_does_not():
    for sample, same in (('step', False), ('enqueue', True)):
        a_bank = FeatureBank(8, 2, sample, dtype=torch.float32)
        generator = torch.Generator().manual_seed(0)
        a_bank.enqueue(torch.randn(8, 3, 6, 6), torch.arange(8), generator)
        first, second = (a_bank.draw(generator).features for _ in range(2))
        assert torch.equal(first, second) is same
        assert a_bank.features.shape == (8, 3, 36 if sample == 'step' else 2)


def test_step_sampling_reaches_every_cell():
    a_bank = bank(num_frames=1, points=2)
    enqueue(a_bank, [1])
    generator = torch.Generator().manual_seed(0)
    seen = {tuple(f.tolist()) for _ in range(30) for f in a_bank.draw(generator).features}
    assert len(seen) == 4


def test_frames_with_fewer_cells_than_points_give_all_of_them():
    a_bank = bank(num_frames=2, points=9)
    enqueue(a_bank, [1, 2])
    entries = a_bank.draw(torch.Generator())
    assert torch.equal(entries.features, frames([1, 2]).flatten(2).transpose(1, 2).reshape(8, 3))


def test_stored_features_carry_no_gradient_and_are_copies():
    a_bank = bank(num_frames=1)
    features = frames([1]).requires_grad_()
    a_bank.enqueue(features, torch.tensor([1]), torch.Generator())
    entries = a_bank.draw(torch.Generator())
    assert not entries.features.requires_grad
    with torch.no_grad():
        features.zero_()
    assert a_bank.draw(torch.Generator()).features.abs().min() > 0


def test_the_default_bank_is_that_of_the_paper_in_bfloat16():
    a_bank = FeatureBank()
    assert (a_bank.num_frames, a_bank.points_per_frame, a_bank.dtype) == (1440, 4, torch.bfloat16)


@pytest.mark.parametrize('sample', ['step', 'enqueue'])
@pytest.mark.parametrize('history', [[], [[1, 2]], [[1, 2, 3, 4]], [[1, 2, 3], [4, 5, 6]]])
def test_state_survives_a_file_and_goes_on_alike(history, sample):
    original = bank(num_frames=4, sample=sample, dtype=torch.bfloat16)
    for ids in history:
        enqueue(original, ids)
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    restored = bank(num_frames=4, sample=sample, dtype=torch.bfloat16)
    enqueue(restored, [50, 51, 52])  # what was there before goes
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert restored.filled == original.filled
    for ids in ([], [30], [31, 32, 33]):
        if ids:
            enqueue(original, ids), enqueue(restored, ids)
        generators = [torch.Generator().manual_seed(2) for _ in range(2)]
        theirs, ours = original.draw(generators[0]), restored.draw(generators[1])
        if theirs is None:
            assert ours is None
            continue
        assert torch.equal(theirs.features, ours.features)
        assert torch.equal(theirs.video_ids, ours.video_ids)


def test_saved_state_is_not_changed_by_later_frames():
    a_bank = bank(num_frames=2)
    enqueue(a_bank, [1, 2])
    state = a_bank.state_dict()
    before = copy.deepcopy(state)
    enqueue(a_bank, [3])
    assert torch.equal(state['features'], before['features'])


def test_a_larger_bank_takes_a_full_smaller_one_and_fills_up_in_order():
    small = bank(num_frames=3)
    enqueue(small, [1, 2, 3])
    enqueue(small, [4, 5])  # 3, 4, 5 are left, and the next slot is in the middle
    large = bank(num_frames=5)
    large.load_state_dict(small.state_dict())
    kept = [3, 4, 5]
    for ids in ([6], [7], [8], [9, 10]):
        enqueue(large, ids)
        kept = (kept + ids)[-5:]
        assert stored_ids(large) == sorted(kept)


def test_a_smaller_bank_refuses_a_larger_one_with_both_sizes():
    large = bank(num_frames=4)
    enqueue(large, [1, 2, 3])
    with pytest.raises(ValueError, match=r'3 frames.*allows 2'):
        bank(num_frames=2).load_state_dict(large.state_dict())


def test_another_map_size_is_refused_with_both_sizes():
    a_bank = bank()
    enqueue(a_bank, [1])
    with pytest.raises(ValueError, match=r'\(3, 4\).*\(3, 6\).*one image size'):
        a_bank.enqueue(frames([2], size=(2, 3)), torch.tensor([2]), torch.Generator())


@pytest.mark.parametrize('shape, ids', [((2, 3, 2, 2), 3), ((3, 2, 2), 3)])
def test_wrong_shapes_are_refused(shape, ids):
    with pytest.raises(ValueError, match='video_ids'):
        bank().enqueue(torch.zeros(shape), torch.zeros(ids, dtype=torch.long), torch.Generator())


@pytest.mark.parametrize('changes', [{'num_frames': 0}, {'points': 0}, {'sample': 'points'}])
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError):
        bank(**changes)


def randomised(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cells_of_each_query(generator, num_frames, points, locations):
    """The draws of 'query': slot n's come from a generator of its own, seeded with one number of the step's plus n."""
    seed = int(torch.randint(0, 2**62, (1,), generator=generator))
    own = [torch.Generator().manual_seed(seed + slot) for slot in range(num_frames)]
    return torch.stack([torch.randint(0, locations, (points, locations), generator=each) for each in own])


@pytest.mark.parametrize('sample', ['step', 'query', 'enqueue', 'window'])
@pytest.mark.parametrize('border', ['mask', 'zero_logit'])
def test_negatives_of_every_sampling_equal_the_loops(sample, border):
    a_bank = FeatureBank(5, 2, sample, window_radius=1, dtype=torch.float64)
    ids, query = [3, 1, 4], randomised(1, 2, 3, 2, 4)
    a_bank.enqueue(randomised(2, 3, 3, 2, 4), torch.tensor(ids), torch.Generator().manual_seed(3))
    ours = a_bank.logsumexp(query, torch.tensor([1, 9]), 0.7, torch.Generator().manual_seed(4), border)
    allowed = [[own != other for other in ids] for own in (1, 9)]
    maps = randomised(2, 3, 3, 2, 4)
    if sample == 'window':
        expected = reference.located_negatives_logsumexp(query, maps, allowed, 0.7, radius=1, border=border)
    else:  # the draws again, from a generator in the state that the bank's was in
        generator = torch.Generator().manual_seed(3 if sample == 'enqueue' else 4)
        if sample == 'query':
            cells = cells_of_each_query(generator, 3, 2, 8)
        else:
            cells = torch.randint(0, 8, (3, 2), generator=generator)[:, :, None].expand(3, 2, 8)
        expected = reference.located_negatives_logsumexp(query, maps, allowed, 0.7, cells=cells)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-10)


def bank_for_each_query(num_frames, points, channels=2, side=4):
    a_bank = FeatureBank(num_frames, points, 'query', dtype=torch.float64)
    maps = randomised(2, num_frames, channels, side, side)
    a_bank.enqueue(maps, torch.arange(num_frames), torch.Generator())
    return a_bank, maps


@pytest.mark.parametrize('elements', [1, 3 * 2 * 3 * 16, 10**6])  # chunks of one frame, of three, of all ten
def test_draws_for_each_query_do_not_depend_on_the_chunks(elements, monkeypatch):
    a_bank, maps = bank_for_each_query(10, points=3)
    query, ids = randomised(1, 2, 2, 4, 4).requires_grad_(), torch.tensor([4, 99])
    monkeypatch.setattr('mmliir.ops.affinity.CPU_ELEMENTS', elements)
    ours = a_bank.logsumexp(query, ids, 0.7, torch.Generator().manual_seed(4))
    cells = cells_of_each_query(torch.Generator().manual_seed(4), 10, 3, 16)
    allowed = torch.arange(10)[None] != ids[:, None]
    expected = reference.located_negatives_logsumexp(query.detach(), maps, allowed, 0.7, cells=cells)
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=0, atol=1e-10)
    # The backward pass sees the same draws: the gradient is that of a soft-max over all entries at once.
    entries = torch.stack([frame.flatten(1)[:, own] for frame, own in zip(maps, cells, strict=True)])
    logits = torch.einsum('bcl,ncpl->bnpl', query.flatten(2), entries) / 0.7
    logits = logits.masked_fill(~allowed[:, :, None, None], -torch.inf)
    expected = torch.autograd.grad(logits.logsumexp(dim=(1, 2)).square().sum(), query)[0]
    gradient = torch.autograd.grad(ours.square().sum(), query)[0]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)


def test_draws_for_each_query_are_those_of_every_rank():
    """Ranks hold other samples of the batch; their generators are in one state and stay so."""
    a_bank, _ = bank_for_each_query(6, points=3)
    query, ids = randomised(1, 3, 2, 4, 4), torch.tensor([1, 9, 2])
    generators = [torch.Generator().manual_seed(4) for _ in range(4)]
    whole = a_bank.logsumexp(query, ids, 0.7, generators[0])
    for n in range(3):
        alone = a_bank.logsumexp(query[n : n + 1], ids[n : n + 1], 0.7, generators[n + 1])
        torch.testing.assert_close(alone[0], whole[n], rtol=0, atol=1e-12)
        assert torch.equal(generators[n + 1].get_state(), generators[0].get_state())


def test_draws_for_each_query_are_new_at_every_step_and_reach_every_cell_evenly():
    """Constant cells, as many as locations: what a query sees of a frame tells which cells were drawn."""
    a_bank = FeatureBank(4, 1, 'query', dtype=torch.float64)
    a_bank.enqueue(frames([1, 2, 3, 4], channels=1).double(), torch.tensor([1, 2, 3, 4]), torch.Generator())
    generator, seen = torch.Generator().manual_seed(0), []
    for _ in range(500):
        only_first = torch.tensor([1])
        a_bank.video_ids[:] = torch.tensor([2, 1, 1, 1])  # the first frame alone takes part
        seen.append(a_bank.logsumexp(torch.ones(1, 1, 2, 2).double(), only_first, 1.0, generator))
    cells = ((torch.stack(seen).flatten() - 1) * 100).round()
    counts = torch.bincount(cells.long(), minlength=4)
    assert counts.sum() == 2000 and len(counts) == 4
    assert ((counts - 500).abs() < 5 * (2000 * 0.25 * 0.75) ** 0.5).all()


def test_draws_for_each_query_of_a_large_bank_never_exist_at_once(monkeypatch):
    monkeypatch.setattr('mmliir.ops.affinity.CPU_ELEMENTS', 2000)
    a_bank, maps = bank_for_each_query(300, points=8, channels=1, side=8)
    query = randomised(1, 1, 1, 8, 8).requires_grad_()
    with LargestTensor() as recorded:
        value = a_bank.logsumexp(query, torch.tensor([5]), 0.7, torch.Generator())
        torch.autograd.grad(value.sum(), query)
    assert 2000 < maps.numel() == recorded.elements < 300 * 8 * 64 // 4


@pytest.mark.parametrize('sample', ['step', 'window'])
def test_a_bank_that_waits_gives_nothing_until_it_is_full(sample):
    a_bank = FeatureBank(3, 2, sample, wait_until_full=True, dtype=torch.float32)
    query, ids = frames([0]), torch.tensor([0])
    for number in (1, 2, 3, 4):
        given = a_bank.logsumexp(query, ids, 1.0, torch.Generator())
        assert (given is None) == (number <= 3), number
        enqueue(a_bank, [number])


def test_a_new_frame_replaces_the_one_of_its_own_video_when_asked():
    a_bank = FeatureBank(3, 1, replace_own_video=True, dtype=torch.float32)
    enqueue(a_bank, [1, 2])
    a_bank.enqueue(frames([1]) + 50, torch.tensor([1]), torch.Generator())
    assert a_bank.filled == 2 and sorted(a_bank.video_ids[:2].tolist()) == [1, 2]
    assert (a_bank.features[0] > 50).all() and (a_bank.features[1] < 50).all()
    enqueue(a_bank, [3, 4])  # full: the oldest slot makes room
    assert sorted(a_bank.video_ids.tolist()) == [2, 3, 4]


def test_replacing_a_videos_own_frame_follows_the_rule_frame_by_frame():
    """Against a list of slots kept by hand, with batches in which a video comes twice."""
    a_bank = FeatureBank(4, 1, replace_own_video=True, dtype=torch.float32)
    slots, oldest, generator = [], 0, torch.Generator().manual_seed(0)
    for step in range(40):
        batch = torch.randint(0, 7, (3,), generator=generator)
        features = torch.full((3, 2, 2, 2), float(step)) + 0.1 * torch.arange(3)[:, None, None, None]
        a_bank.enqueue(features, batch, generator)
        for video, value in zip(batch.tolist(), features[:, 0, 0, 0].tolist(), strict=True):
            own = [place for place, (known, _) in enumerate(slots) if known == video]
            if own:
                slots[own[0]] = (video, value)
            elif len(slots) < 4:
                slots.append((video, value))
                oldest = len(slots) % 4
            else:
                slots[oldest] = (video, value)
                oldest = (oldest + 1) % 4
        assert a_bank.filled == len(slots) and a_bank.next_slot == oldest
        assert a_bank.video_ids[: len(slots)].tolist() == [video for video, _ in slots]
        assert a_bank.features[: len(slots), 0, 0].tolist() == [value for _, value in slots]


@pytest.mark.parametrize('sample', ['query', 'window'])
def test_a_query_of_another_size_than_the_banks_maps_is_refused(sample):
    a_bank = FeatureBank(3, 1, sample, dtype=torch.float32)
    enqueue(a_bank, [1])
    with pytest.raises(ValueError, match=r'\(3, 4\).*one image size'):
        a_bank.logsumexp(frames([2], size=(2, 3)), torch.tensor([2]), 1.0, torch.Generator())


def test_the_type_of_the_bank_may_be_named():
    assert FeatureBank(dtype='float32').dtype == torch.float32


# --- momentum encoder ---


def small_encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


@pytest.mark.parametrize('momentum', [0.0, 0.9, 1.0])
def test_average_has_the_closed_form_after_n_updates(momentum):
    online = small_encoder().double()
    average = MomentumEncoder(online, momentum)
    start = {name: p.detach().clone() for name, p in online.named_parameters()}
    history = []
    for _ in range(7):
        with torch.no_grad():
            for p in online.parameters():
                p.add_(torch.randn_like(p))
        history.append({name: p.detach().clone() for name, p in online.named_parameters()})
        average.update(online)
    for name, value in average.encoder.named_parameters():
        expected = momentum ** len(history) * start[name]
        for age, weights in enumerate(reversed(history)):
            expected = expected + (1 - momentum) * momentum**age * weights[name]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
        assert not value.requires_grad


def test_update_leaves_buffers_to_the_copys_own_statistics():
    online = small_encoder()
    average = MomentumEncoder(online, 0.5)
    online.train()(torch.randn(4, 2, 3, 3) + 5)
    before = average.encoder[1].running_mean.clone()
    average.update(online)
    assert torch.equal(average.encoder[1].running_mean, before)
    assert average.encoder[1].training
    average.encoder(torch.randn(4, 2, 3, 3) + 5)
    assert not torch.equal(average.encoder[1].running_mean, before)


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_copied_statistics_are_the_online_encoders_after_every_update_and_used_in_evaluation_mode(momentum):
    online = small_encoder().double().train()
    average = MomentumEncoder(online, momentum, norm_statistics='copy')
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        online(3 * torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64) + 5)
        with torch.no_grad():
            for p in online.parameters():
                p.add_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
        weights = [
            momentum * old + (1 - momentum) * new
            for old, new in zip(average.encoder.parameters(), online.parameters(), strict=True)
        ]
        average.update(online)
        assert int(average.encoder[1].num_batches_tracked) == step + 1
        before = copy.deepcopy(average.encoder.state_dict())
        images = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
        encoded = average.train().encoder(images)
        kernel, offset, gain, shift = weights
        plain = nn.functional.conv2d(images, kernel, offset)
        mean, variance = online[1].running_mean, online[1].running_var
        expected = (plain - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        expected = expected * gain[:, None, None] + shift[:, None, None]
        torch.testing.assert_close(encoded, expected, rtol=0, atol=1e-12)
        for name, value in average.encoder.state_dict().items():  # encoding gathers nothing
            assert torch.equal(value, before[name]), name


def test_copied_statistics_keep_the_copy_in_evaluation_mode_from_the_start_and_own_ones_do_not():
    for statistics, training in (('own', True), ('copy', False)):
        average = MomentumEncoder(small_encoder(), norm_statistics=statistics)
        assert average.encoder[1].training is training
        method = nn.ModuleList([average])
        for mode in (True, False, True):
            method.train(mode)
            assert average.training is mode and average.encoder[1].training is (mode and training)


def test_without_momentum_the_copy_is_the_online_encoder_to_the_bit():
    online = small_encoder()
    for statistics in ('own', 'copy'):
        average = MomentumEncoder(online, 0.0, statistics)
        with torch.no_grad():
            for p in online.parameters():
                p.mul_(1.37).add_(0.11)
        online.train()(torch.randn(4, 2, 3, 3) + 5)
        average.update(online)
        for mine, theirs in zip(average.encoder.parameters(), online.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    images = torch.randn(4, 2, 3, 3)
    assert torch.equal(average.encoder(images), online.eval()(images))


def test_unknown_norm_statistics_are_named():
    with pytest.raises(ValueError, match="'own' or 'copy', got 'frozen'"):
        MomentumEncoder(small_encoder(), norm_statistics='frozen')


def test_copy_from_takes_weights_and_buffers():
    online = small_encoder()
    average = MomentumEncoder(online)
    with torch.no_grad():
        online[0].weight.add_(1)
    online(torch.randn(4, 2, 3, 3))
    average.copy_from(online)
    for name, value in online.state_dict().items():
        assert torch.equal(average.encoder.state_dict()[name], value), name
    assert average.momentum == 0.999


def test_momentum_outside_zero_to_one_is_refused():
    with pytest.raises(ValueError, match='1.5'):
        MomentumEncoder(small_encoder(), 1.5)
