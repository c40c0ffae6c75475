"""What the tests of `window_topk_attend` and its back ends draw from."""

from mmliir.ops import MixturePrior

#: Three of ten are none: a prior excludes other settings.
PRIORS = (
    None,
    None,
    None,
    MixturePrior(2, 'fixed', 0.1),
    MixturePrior(2, 'moments'),
    MixturePrior(1, 'fixed'),
    MixturePrior(3, 'moments', 0.05),
    MixturePrior(2, 'moments', keep_mass=True),
    MixturePrior(2, 'fixed', width=1.7),
    MixturePrior(2, 'moments', variance_floor=0.05),
)
