"""MAST and LIIR as wholes: a step's losses against an independent slow loop, and what a step may touch."""

import copy

import pytest
import torch
from model_cases import (
    ALL_PARTS,
    build,
    draws_of_step,
    fill_bank,
    pairs,
    slow_affinity,
    slow_losses,
    slow_photometric,
    slow_reconstruction,
)

from mmliir.models.methods import MAST
from mmliir.models.methods.bottleneck import draw_dropped_channel, drop_channel
from mmliir.models.methods.inter_video import gather_in_global_order
from mmliir.registry import MODELS

STEP_SEED = 17
OFF = dict(inter=None, compactness=None)


def losses_of(model, inputs, video_ids, seed=STEP_SEED):
    model.seed_step(seed)
    return model(inputs, dict(video_id=torch.as_tensor(video_ids)), mode='loss')


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith('loss'))


def mast(*parts):
    torch.manual_seed(0)
    return MAST(**copy.deepcopy({name: ALL_PARTS[name] for name in parts})).double()


# --- the whole loss ---


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('border', ['zero_logit', 'mask'])
def test_liir_with_a_filled_bank_equals_the_slow_loop_in_values_and_gradients(border, training):
    model = build(reconstruction_head={**ALL_PARTS['reconstruction_head'], 'border': border}).train(training)
    if border == 'mask':
        model.compactness = None  # the loop's prior knows no mask; see test_losses
    fill_bank(model, video_ids=(7, 8, 9))
    inputs, video_ids = pairs(batch=2), [8, 3]
    slow_model = copy.deepcopy(model)
    losses = losses_of(model, inputs, video_ids)
    expected = slow_losses(slow_model, inputs, video_ids, STEP_SEED)
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            losses[name], value, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f'{n}: {m}'
        )
    total(losses).backward()
    total(expected).backward()
    for (name, ours), theirs in zip(
        model.encoder.named_parameters(), slow_model.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f'{n}: {m}'
        )


def test_mast_equals_the_slow_loop():
    model = mast('backbone', 'reconstruction_head').eval()
    inputs = pairs(batch=2)
    losses = losses_of(model, inputs, [1, 2])
    expected = slow_losses(model, inputs, [1, 2], STEP_SEED)
    assert set(losses) == {'loss_reconstruction'}
    torch.testing.assert_close(
        losses['loss_reconstruction'], expected['loss_reconstruction'], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize('target, channels', [('chroma', (1, 2)), ('lab', (0, 1, 2)), ('dropped', None)])
def test_each_colour_target_equals_the_slow_loop_over_its_channels_in_values_and_gradients(target, channels):
    """Channels have equal numbers of pixels, so the loss is the mean of the losses of each."""
    model = build(target=target, **OFF).train()
    inputs, head = pairs(batch=2), model.reconstruction_head
    hidden, _ = draws_of_step(model, STEP_SEED)
    slow_model = copy.deepcopy(model)
    ours = losses_of(model, inputs, [0, 1])['loss_reconstruction']
    seen = drop_channel(inputs, hidden)
    features = slow_model.encoder(torch.cat([seen[:, 0], seen[:, 1]]))
    affinity = slow_affinity(features[2:], features[:2], head.radius, features.shape[1] ** 0.5, head.border)
    parts = []
    for channel in channels or (hidden,):
        reference, query = inputs[:, :, channel : channel + 1].unbind(1)
        prediction = slow_reconstruction(affinity, reference, head.radius, model.stride)
        parts.append(slow_photometric(prediction, query))
    expected = sum(parts) / len(parts)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    ours.backward()
    expected.backward()
    for mine, theirs in zip(model.encoder.parameters(), slow_model.encoder.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('target, channels', [('dropped', 1), ('chroma', 2), ('lab', 3)])
def test_the_target_is_the_colours_as_they_were_whatever_is_hidden(target, channels):
    inputs, hidden = pairs(batch=3), set()
    model = build(target=target, **OFF)
    for seed in range(8):
        model.seed_step(seed)
        pair = model.encode_pair(inputs)
        hidden.add(pair.channel)
        expected = {'dropped': [pair.channel], 'chroma': [1, 2], 'lab': [0, 1, 2]}[target]
        assert pair.reference_color.shape == pair.query_color.shape == (3, channels, 16, 16)
        assert torch.equal(pair.reference_color, inputs[:, 0, expected])
        assert torch.equal(pair.query_color, inputs[:, 1, expected])
        assert not pair.reference_images[:, pair.channel].any()
    assert hidden == {1, 2}


def test_an_unknown_colour_target_is_named():
    with pytest.raises(ValueError, match="'dropped', 'chroma' or 'lab', got 'rgb'"):
        build(target='rgb')


def test_an_empty_bank_gives_the_intra_video_loss():
    with_bank, without = build(), build(inter=None)
    without.load_state_dict(with_bank.state_dict(), strict=False)
    inputs = pairs()
    ours, intra = losses_of(with_bank, inputs, [0, 1]), losses_of(without, inputs, [0, 1])
    assert ours['negative_mass'] == 0
    for name in ('loss_reconstruction', 'loss_compact'):
        assert torch.equal(ours[name], intra[name])


def test_own_video_entries_get_no_mass():
    model = build().eval()
    fill_bank(model, video_ids=(4, 4, 4))
    inputs = pairs(batch=1)
    assert losses_of(model, inputs, [4])['negative_mass'].abs() < 1e-12
    assert losses_of(model, inputs, [5])['negative_mass'] > 0.05
    mixed = losses_of(model, inputs.repeat(2, 1, 1, 1, 1), [4, 5])['negative_mass']
    torch.testing.assert_close(mixed, losses_of(model, inputs, [5])['negative_mass'] / 2)


def test_rows_sum_to_less_than_one_by_the_negatives_mass_and_compactness_sees_the_plain_rows():
    model = build().eval()
    seen = {}
    model.compactness.register_forward_pre_hook(lambda m, args: seen.update(compact=args[0]))
    head = model.reconstruction_head
    original = head.reconstruction_loss
    head.reconstruction_loss = lambda affinity, *rest: (seen.update(mixed=affinity), original(affinity, *rest))[1]
    fill_bank(model)
    losses = losses_of(model, pairs(), [0, 1])
    torch.testing.assert_close(seen['compact'].sum(dim=1), torch.ones(2, 4, 4).double())
    sums = seen['mixed'].sum(dim=1)
    assert (sums < 1).all() and (sums > 0).all()
    torch.testing.assert_close(losses['negative_mass'], 1 - sums.mean())
    assert not losses['negative_mass'].requires_grad


def test_bank_entries_are_constants():
    model = build().eval()
    fill_bank(model)
    model.inter.bank.features.requires_grad_()
    total(losses_of(model, pairs(), [0, 1])).backward()
    assert model.inter.bank.features.grad is None


def test_a_batch_of_two_is_the_mean_of_two_batches_of_one():
    model = build().eval()
    fill_bank(model)
    inputs, video_ids = pairs(batch=2), [8, 3]
    both = losses_of(model, inputs, video_ids)
    singles = [losses_of(model, inputs[b : b + 1], video_ids[b : b + 1]) for b in range(2)]
    for name, value in both.items():
        torch.testing.assert_close(value, (singles[0][name] + singles[1][name]) / 2, rtol=0, atol=1e-12)


def test_parts_that_are_off_are_none_and_leave_the_mast_loss():
    plain = build(**OFF)
    assert plain.inter is None and plain.compactness is None
    baseline = mast('backbone', 'position_encoder', 'projection', 'reconstruction_head')
    baseline.load_state_dict(plain.state_dict())
    inputs = pairs()
    ours, theirs = losses_of(plain, inputs, [0, 1]), losses_of(baseline, inputs, [0, 1])
    assert set(ours) == {'loss_reconstruction'}
    assert torch.equal(ours['loss_reconstruction'], theirs['loss_reconstruction'])
    plain.update_memory()  # nothing to do


def test_weights_of_the_losses_multiply_them():
    inputs = pairs()
    plain, weighted = (
        build(inter=None),
        build(
            inter=None,
            compactness=dict(type='CompactnessPriorLoss', weight=0.25),
            reconstruction_head={
                **ALL_PARTS['reconstruction_head'],
                'loss': dict(type='ReconstructionLoss', weight=3.0),
            },
        ),
    )
    ours, theirs = losses_of(weighted, inputs, [0, 1]), losses_of(plain, inputs, [0, 1])
    torch.testing.assert_close(ours['loss_compact'], 0.25 * theirs['loss_compact'])
    torch.testing.assert_close(ours['loss_reconstruction'], 3.0 * theirs['loss_reconstruction'])


@pytest.mark.parametrize(
    'position_encoder',
    [
        ALL_PARTS['position_encoder'],
        dict(type='LearnedPositionEncoder2d', channels=4, size=(8, 8)),
        dict(type='LearnedPositionEncoder2d', channels=4, size=(5, 11)),
        dict(type='SinePositionEncoder2d', channels=4, scale=0.5),
        None,
    ],
)
def test_every_trainable_parameter_gets_a_gradient_with_all_parts_on(position_encoder):
    model = build(position_encoder=position_encoder)
    fill_bank(model)
    total(losses_of(model, pairs(), [0, 1])).backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(trainable) == {f'encoder.{name}' for name, _ in model.encoder.named_parameters()}
    without = [name for name, p in trainable.items() if p.grad is None or not p.grad.any()]
    assert without == []


def test_momentum_encoder_and_bank_are_frozen():
    model = build()
    assert not any(p.requires_grad for p in model.inter.parameters())
    assert not any(name.startswith('inter.bank') for name in model.state_dict())


@pytest.mark.parametrize('shape', [(2, 3, 16, 16), (2, 1, 3, 16, 16), (2, 2, 1, 16, 16)])
def test_inputs_that_are_no_pairs_are_refused(shape):
    with pytest.raises(ValueError, match='pairs of frames'):
        losses_of(build(), torch.zeros(shape).double(), [0, 1])


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'predict'"):
        build()(pairs()[:, 0], mode='predict')


# --- the bottleneck ---


def test_channel_dropout_hides_the_same_chroma_channel_of_both_frames_and_scales_the_rest():
    model = build().eval()
    seen = []
    model.encoder.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    inputs = pairs(batch=3)
    hidden = set()
    for seed in range(12):
        model.seed_step(seed)
        pair = model.encode_pair(inputs)
        hidden.add(pair.channel)
        for b in range(3):
            for frame, image in enumerate((seen[-1][b], seen[-1][3 + b])):
                for channel in range(3):
                    expected = 0.0 if channel == pair.channel else 1.5 * inputs[b, frame, channel]
                    assert torch.equal(image[channel], expected + torch.zeros_like(image[channel]))
        # the target is the channel as it was: neither hidden nor scaled
        assert torch.equal(pair.reference_color, inputs[:, 0, pair.channel, None])
        assert torch.equal(pair.query_color, inputs[:, 1, pair.channel, None])
    assert hidden == {1, 2}


def test_a_and_b_are_hidden_equally_often_and_lightness_never():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_dropped_channel(generator) for _ in range(2000)]
    assert set(drawn) == {1, 2}
    assert abs(drawn.count(1) - 1000) < 100


def test_drop_channel_leaves_its_input_alone():
    images = pairs()
    before = images.clone()
    drop_channel(images, 2)
    assert torch.equal(images, before)


def test_a_steps_draws_depend_on_its_seed_alone():
    model = build().eval()
    fill_bank(model)
    inputs = pairs()
    first = losses_of(model, inputs, [0, 1], seed=3)
    losses_of(model, inputs, [0, 1], seed=4)
    again = losses_of(model, inputs, [0, 1], seed=3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert draws_of_step(model, 3)[0] == 1 + int(
        torch.randint(0, 2, (1,), generator=model.generator.manual_seed(3))
    )


# --- what the memory sees ---


def test_update_enqueues_the_hidden_reference_frames_with_shifted_positions():
    model = build().eval()
    inputs = pairs(batch=3)
    model.inter.momentum_encoder.eval()
    losses_of(model, inputs, [5, 6, 5])
    channel, _ = draws_of_step(model, STEP_SEED)
    generator = copy.deepcopy(model.generator)
    generator.set_state(model.generator.get_state())
    with torch.no_grad():
        encoder = copy.deepcopy(model.inter.momentum_encoder.encoder)
        for average, current in zip(encoder.parameters(), model.encoder.parameters(), strict=True):
            average.copy_(0.9 * average + 0.1 * current)
        position_map = encoder.position_encoder.position_map
        dy, dx = (torch.randint(0, 8, (3,), generator=generator).tolist() for _ in range(2))
        shifted = torch.stack(
            [torch.roll(position_map[0], (y, x), (1, 2)) for y, x in zip(dy, dx, strict=True)]
        )
        expected = encoder(drop_channel(inputs, channel)[:, 0], shifted)
        plain = encoder(drop_channel(inputs, channel)[:, 0])
    model.update_memory()
    bank = model.inter.bank
    assert bank.filled == 3 and bank.video_ids.tolist() == [5, 6, 5]
    torch.testing.assert_close(bank.features, expected.flatten(2), rtol=0, atol=1e-12)
    assert (bank.features - plain.flatten(2)).abs().max() > 1e-3


def test_without_modulation_bank_frames_keep_the_plain_map():
    model = build(inter={**ALL_PARTS['inter'], 'modulation': None}).eval()
    losses_of(model, pairs(), [5, 6])
    channel, _ = draws_of_step(model, STEP_SEED)
    model.update_memory()
    expected = model.inter.momentum_encoder.encoder(drop_channel(pairs(), channel)[:, 0])
    torch.testing.assert_close(model.inter.bank.features[:2], expected.flatten(2), rtol=0, atol=1e-12)


@pytest.mark.parametrize('modulation', ['PositionShift', 'PositionShuffle'])
@pytest.mark.parametrize('per', ['sample', 'batch'])
@pytest.mark.parametrize(
    'position_encoder',
    [
        dict(type='LearnedPositionEncoder2d', channels=4, size=(8, 8)),
        dict(type='SinePositionEncoder2d', channels=4),
    ],
)
def test_update_encodes_bank_frames_with_any_map_and_modulation(position_encoder, per, modulation):
    modulation = dict(type=modulation, per=per)
    model = build(position_encoder=position_encoder, inter={**ALL_PARTS['inter'], 'modulation': modulation})
    with torch.no_grad():
        for parameter in model.encoder.position_encoder.parameters():
            parameter.normal_()
    model.inter.momentum_encoder.copy_from(model.encoder)
    model.eval()
    losses_of(model, pairs(batch=3), [5, 6, 7])
    channel, _ = draws_of_step(model, STEP_SEED)
    generator = torch.Generator()
    generator.set_state(model.generator.get_state())
    model.update_memory()
    encoder = model.inter.momentum_encoder.encoder
    position_map = encoder.position_map(pairs()[:, 0])
    modulated = MODELS.build(modulation)(position_map, 3, generator)
    expected = encoder(drop_channel(pairs(batch=3), channel)[:, 0], modulated)
    torch.testing.assert_close(model.inter.bank.features, expected.flatten(2), rtol=0, atol=1e-12)


def test_update_moves_the_momentum_encoder_once_a_step():
    model = build()
    before = copy.deepcopy(model.inter.momentum_encoder.encoder)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    losses_of(model, pairs(), [0, 1])
    model.update_memory()
    model.update_memory()  # no new frames: nothing happens
    for old, new in zip(before.parameters(), model.inter.momentum_encoder.encoder.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)
    assert model.inter.bank.filled == 2


def test_momentum_encoder_gathers_its_own_statistics_in_training_mode():
    model = build().train()
    before = model.inter.momentum_encoder.encoder.backbone.bn1.running_mean.clone()
    losses_of(model, pairs(), [0, 1])
    assert torch.equal(model.inter.momentum_encoder.encoder.backbone.bn1.running_mean, before)
    model.update_memory()
    assert not torch.equal(model.inter.momentum_encoder.encoder.backbone.bn1.running_mean, before)


def test_gathering_in_one_process_returns_the_tensor():
    tensor = torch.arange(3)
    assert gather_in_global_order(tensor) is tensor


# --- features ---


def test_extract_feature_leaves_training_mode_and_statistics_untouched():
    model = build().train()
    model.encoder.backbone.layer1.eval()  # a part that someone froze stays frozen
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    frames = torch.randint(0, 256, (2, 3, 15, 18), dtype=torch.uint8)
    features = model.float().extract_feature(frames)
    assert features.shape == (2, 6, 4, 5) and not features.requires_grad
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value.double(), state[name].double(), rtol=1e-6, atol=1e-6)


def test_extract_feature_is_the_encoder_in_evaluation_mode_on_all_three_channels():
    model = build().float().train()
    frames = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    features = model.extract_feature(frames)
    model.eval()
    torch.testing.assert_close(
        features, model.encoder(model.data_preprocessor.normalize(frames)), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(features[1:], model.extract_feature(frames[1:]), rtol=0, atol=1e-5)
    torch.testing.assert_close(features, model(model.data_preprocessor.normalize(frames), mode='tensor'))
