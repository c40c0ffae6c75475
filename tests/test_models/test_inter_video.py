"""The inter-video branch of the compat recipe, and what the bank is fed with, against independent loops."""

import copy

import pytest
import torch
from model_cases import ALL_PARTS, build, pairs, slow_affinity, slow_photometric, slow_reconstruction

from mmliir.models.methods.bottleneck import draw_dropped_channel, drop_channel

STEP_SEED = 17
BRANCH = dict(
    type='InterVideoBranch',
    projection=dict(type='ConvProjection', in_channels=16, out_channels=5, stride=2),
    reconstruction_head=dict(
        type='ReconstructionHead',
        radius=1,
        temperature=1.0,
        border='zero_logit',
        loss=dict(type='ReconstructionLoss', weight=0.5),
    ),
    bank=dict(num_frames=3, sample='window', window_radius=1, dtype=torch.float64),
    momentum=0.9,
)


def branch(**changes):
    """The tiny LIIR with a branch whose projection and its copy differ."""
    model = build(inter={**copy.deepcopy(BRANCH), **changes}, compactness=None)
    with torch.no_grad():
        for parameter in model.inter.momentum_encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def losses_of(model, inputs, video_ids):
    model.seed_step(STEP_SEED)
    return model(inputs, dict(video_id=torch.as_tensor(video_ids)), mode='loss')


def fill(model, video_ids, cells=2):
    """Keys of these videos on the grid of the branch."""
    generator = torch.Generator().manual_seed(5)
    keys = torch.randn(len(video_ids), 5, cells, cells, generator=generator, dtype=torch.float64)
    model.inter.bank.enqueue(keys, torch.tensor(video_ids), generator)
    return keys


def slow_branch_losses(model, inputs, video_ids, bank_keys, bank_ids):
    """Both reconstructions of LIIR_pytorch (liir.md sections 2.5 and 2.8), by loops."""
    channel = draw_dropped_channel(torch.Generator().manual_seed(STEP_SEED))
    seen = drop_channel(inputs, channel)
    backbone = model.encoder.backbone(
        torch.cat([seen[:, 0], seen[:, 1]]), model.encoder.position_map(seen[:, 0])
    )
    key, query = model.encoder.projection(backbone).chunk(2)
    head, colors = model.reconstruction_head, inputs[:, :, channel : channel + 1]
    plain = slow_affinity(query, key, head.radius, query.shape[1] ** 0.5, head.border)
    fine = slow_reconstruction(plain, colors[:, 0], head.radius, 4)
    inter = model.inter
    keys = inter.momentum_encoder.encoder(backbone[: len(inputs)]).detach()
    queries = inter.projection(backbone[len(inputs) :])
    batch, _, height, width = queries.shape
    rows = []
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]

                def term(own, place, b=b, y=y, x=x):
                    if 0 <= place[0] < height and 0 <= place[1] < width:
                        return torch.exp((queries[b, :, y, x] * own[:, place[0], place[1]]).sum())
                    return queries.new_ones(())

                row = torch.stack([term(keys[b], place) for place in around])
                others = [n for n, video in enumerate(bank_ids) if video != video_ids[b]]
                negative = sum(term(bank_keys[n], place) for n in others for place in around)
                rows.append(row / (row.sum() + negative))
    mixed = torch.stack(rows).reshape(batch, height, width, 9).permute(0, 3, 1, 2)
    coarse = slow_reconstruction(mixed, colors[:, 0], 1, 8)
    return {
        'loss_reconstruction': slow_photometric(fine, colors[:, 1]),
        'loss_reconstruction_inter': 0.5 * slow_photometric(coarse, colors[:, 1]),
        'negative_mass': (1.0 - mixed.sum(dim=1)).mean(),
    }


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('bank_ids', [(7, 8, 9), ()])
def test_the_branch_equals_the_slow_loop_in_values_and_gradients(bank_ids, training):
    model = branch().train(training)
    keys = fill(model, bank_ids) if bank_ids else []
    inputs, video_ids = pairs(batch=2), [8, 3]
    slow = copy.deepcopy(model)
    losses = losses_of(model, inputs, video_ids)
    expected = slow_branch_losses(slow, inputs, video_ids, keys, bank_ids)
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f'{n}: {m}')
    for values in (losses, expected):
        sum(value for name, value in values.items() if name.startswith('loss')).backward()
    compared = 0
    for (name, ours), (_, theirs) in zip(model.named_parameters(), slow.named_parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f'{n}: {m}')
            compared += 1
    assert compared > 20


def test_without_a_bank_the_branch_is_a_plain_coarse_reconstruction():
    inputs = pairs()
    off, empty = branch(bank=None), branch()
    empty.load_state_dict(off.state_dict())
    ours, theirs = losses_of(off, inputs, [0, 1]), losses_of(empty, inputs, [0, 1])
    assert ours['negative_mass'] == 0
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    off.update_memory()  # nothing to enqueue


def test_the_branch_enqueues_the_keys_of_the_step_and_moves_its_copy():
    model = branch().eval()
    inputs = pairs(batch=2)
    before = copy.deepcopy(model.inter.momentum_encoder.encoder)
    losses_of(model, inputs, [5, 6])
    channel = draw_dropped_channel(torch.Generator().manual_seed(STEP_SEED))
    with torch.no_grad():
        expected = before(model.encoder.backbone_features(drop_channel(inputs, channel)[:, 0]))
    model.update_memory()
    model.update_memory()  # no new keys: nothing happens
    bank = model.inter.bank
    assert bank.filled == 2 and bank.video_ids[:2].tolist() == [5, 6]
    torch.testing.assert_close(bank.features[:2], expected.flatten(2), rtol=0, atol=1e-12)
    for old, online, new in zip(
        before.parameters(),
        model.inter.projection.parameters(),
        model.inter.momentum_encoder.encoder.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * online)


def test_a_stage_starts_with_the_copy_equal_to_the_projection():
    model = branch()
    model.start_stage()
    for online, own in zip(
        model.inter.projection.parameters(), model.inter.momentum_encoder.parameters(), strict=True
    ):
        assert torch.equal(online, own)


@pytest.mark.parametrize('source', ['reference', 'query', 'both'])
def test_the_chosen_frames_enter_the_bank(source):
    inter = {**ALL_PARTS['inter'], 'modulation': None, 'source': source, 'momentum': 1.0}
    inter['bank'] = {**inter['bank'], 'num_frames': 8}
    model = build(inter=inter).eval()
    model.inter.momentum_encoder.eval()
    losses_of(model, pairs(), [5, 6])
    channel = draw_dropped_channel(torch.Generator().manual_seed(STEP_SEED))
    model.update_memory()
    seen = drop_channel(pairs(), channel)
    images = {'reference': seen[:, 0], 'query': seen[:, 1], 'both': torch.cat([seen[:, 0], seen[:, 1]])}[source]
    with torch.no_grad():
        expected = model.inter.momentum_encoder.encoder(images).flatten(2)
    bank = model.inter.bank
    assert bank.video_ids[: bank.filled].tolist() == [5, 6] * (len(images) // 2)
    torch.testing.assert_close(bank.features[: bank.filled], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('source', ['reference', 'query', 'both'])
def test_the_chosen_frames_keys_enter_the_bank_of_the_branch(source):
    model = branch(source=source, bank={**BRANCH['bank'], 'num_frames': 8}).eval()
    inputs = pairs(batch=2)
    losses_of(model, inputs, [5, 6])
    seen = drop_channel(inputs, draw_dropped_channel(torch.Generator().manual_seed(STEP_SEED)))
    images = {'reference': seen[:, 0], 'query': seen[:, 1], 'both': torch.cat([seen[:, 0], seen[:, 1]])}[source]
    with torch.no_grad():
        expected = model.inter.momentum_encoder.encoder(model.encoder.backbone_features(images)).flatten(2)
    model.update_memory()
    bank = model.inter.bank
    assert bank.video_ids[: bank.filled].tolist() == [5, 6] * (len(images) // 2)
    torch.testing.assert_close(bank.features[: bank.filled], expected, rtol=0, atol=1e-12)


def test_the_projection_alone_can_be_averaged():
    model = build(inter={**ALL_PARTS['inter'], 'momentum_scope': 'projection'})
    before = copy.deepcopy(model.inter.momentum_encoder.encoder)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    losses_of(model, pairs(), [0, 1])
    model.update_memory()
    for (name, old), new in zip(
        before.named_parameters(), model.inter.momentum_encoder.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(new, old + (0.1 if name.startswith('projection.') else 1.0))


def test_a_scope_without_a_projection_is_refused():
    with pytest.raises(ValueError, match="scope 'projection' needs an encoder with a projection"):
        build(projection=None, inter={**ALL_PARTS['inter'], 'momentum_scope': 'projection'})
    with pytest.raises(ValueError, match="scope must be 'encoder' or 'projection', got 'head'"):
        build(inter={**ALL_PARTS['inter'], 'momentum_scope': 'head'})


def test_an_unknown_source_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="source must be one of reference, query, both, got 'target'"):
        build(inter={**ALL_PARTS['inter'], 'source': 'target'})


@pytest.mark.parametrize('inter', ['term', 'branch'])
def test_no_gradient_reaches_the_bank_path(inter):
    model = branch() if inter == 'branch' else build()
    for _ in range(2):  # the second step meets what the first enqueued
        losses = losses_of(model, pairs(), [5, 6])
        sum(value for name, value in losses.items() if name.startswith('loss')).backward()
        model.update_memory()
    assert losses['negative_mass'] > 0
    assert all(p.grad is None for p in model.inter.momentum_encoder.parameters())
    assert not model.inter.bank.features.requires_grad
