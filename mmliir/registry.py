"""Registries: children of MMEngine's, each told where its components live, so that a name is found without imports."""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import Registry

from mmliir import components

MODELS = Registry('model', parent=MMENGINE_MODELS, locations=['mmliir.models'], scope='mmliir')
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, locations=['mmliir.datasets', 'mmliir.datasets.video_pairs'], scope='mmliir'
)
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=MMENGINE_DATA_SAMPLERS,
    locations=['mmliir.datasets.samplers', 'mmliir.engine'],
    scope='mmliir',
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, locations=['mmliir.datasets.transforms'], scope='mmliir'
)
METRICS = Registry('metric', parent=MMENGINE_METRICS, locations=['mmliir.evaluation.metrics'], scope='mmliir')
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, locations=['mmliir.engine.hooks'], scope='mmliir')
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, locations=['mmliir.engine'], scope='mmliir'
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=MMENGINE_PARAM_SCHEDULERS, locations=['mmliir.engine'], scope='mmliir'
)
# Without children of their own, MMEngine warns at every use of these in our scope.
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, locations=['mmliir.engine'], scope='mmliir')
LOG_PROCESSORS = Registry('log_processor', parent=MMENGINE_LOG_PROCESSORS, locations=['mmliir.engine'], scope='mmliir')
VISUALIZERS = Registry('visualizer', parent=MMENGINE_VISUALIZERS, locations=['mmliir.engine'], scope='mmliir')
OPTIMIZERS = Registry('optimizer', parent=MMENGINE_OPTIMIZERS, locations=['mmliir.engine'], scope='mmliir')
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    locations=['mmliir.engine'],
    scope='mmliir',
)
VISBACKENDS = Registry('vis_backend', parent=MMENGINE_VISBACKENDS, locations=['mmliir.engine'], scope='mmliir')

components.DATASETS.hand_to(DATASETS)
components.METRICS.hand_to(METRICS)
