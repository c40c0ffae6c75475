"""Holds the import table of docs/design.md, and the few rules on source text that a machine can check.

Every import of `mmliir/**/*.py` is read from the syntax tree; nothing is executed. A module belongs to the
part with the longest matching name in `PARTS`; a part may import itself and what its row names.
"""

import ast
import shutil
import subprocess
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmliir'

LEAVES = {'mmliir.utils', 'mmliir.version', 'mmliir.components', 'mmliir.registry'}
MODEL_PARTS = {
    f'mmliir.models.{name}'
    for name in (
        'backbones',
        'heads',
        'position_encoders',
        'memory',
        'losses',
        'data_preprocessor',
    )
}
BELOW_EVALUATION = {
    'mmliir.evaluation.functional',
    'mmliir.structures',
    'mmliir.propagation',
    'mmliir.datasets',
    'mmliir.datasets.metainfo',
    'mmliir.visualization',
}
BELOW_ENGINE = (
    MODEL_PARTS
    | BELOW_EVALUATION
    | {'mmliir.models', 'mmliir.models.layers', 'mmliir.evaluation', 'mmliir.ops', 'mmliir.ops.native'}
)
EVERYTHING_BELOW_APIS = BELOW_ENGINE | {'mmliir.engine', 'mmliir.utils.checkpoint', 'mmliir.testing'}

# part -> (level, the other parts it may import): the table of docs/design.md. `registry`, `utils` and
# `version` are open from level 1 on, and to `propagation` all but `registry`, which imports mmengine.
PARTS: dict[str, tuple[int, set[str]]] = {
    'mmliir': (0, LEAVES),
    'mmliir.ops': (0, {'mmliir.ops.native'}),
    'mmliir.ops.native': (0, {'mmliir.utils'}),  # writes the libraries that it builds
    'mmliir.structures': (0, set()),
    'mmliir.evaluation.functional': (0, set()),
    'mmliir.datasets.metainfo': (0, set()),
    'mmliir.utils': (0, {'mmliir.version'}),
    'mmliir.version': (0, set()),
    'mmliir.components': (0, set()),
    'mmliir.registry': (0, {'mmliir.components'}),
    'mmliir.propagation': (1, {'mmliir.ops', 'mmliir.structures', 'mmliir.utils', 'mmliir.version'}),
    'mmliir.datasets': (1, {'mmliir.structures', 'mmliir.datasets.metainfo'} | LEAVES),
    'mmliir.visualization': (1, {'mmliir.structures'} | LEAVES),
    'mmliir.models.layers': (0, set()),  # building blocks of torch alone
    **{part: (1, {'mmliir.ops', 'mmliir.models.layers'} | LEAVES) for part in MODEL_PARTS},
    'mmliir.models': (2, MODEL_PARTS | {'mmliir.models.layers', 'mmliir.ops', 'mmliir.propagation'} | LEAVES),
    'mmliir.evaluation': (2, BELOW_EVALUATION | LEAVES),
    'mmliir.engine': (3, BELOW_ENGINE | {'mmliir.utils.checkpoint'} | LEAVES),
    'mmliir.utils.checkpoint': (3, MODEL_PARTS | {'mmliir.models'} | LEAVES),
    'mmliir.apis': (4, EVERYTHING_BELOW_APIS | LEAVES),
    # oracles and generated data for the tests; only the top of the package may lean on them
    'mmliir.testing': (3, BELOW_ENGINE | LEAVES),
    'mmliir.cli': (5, EVERYTHING_BELOW_APIS | {'mmliir.apis'} | LEAVES),
    'mmliir.__main__': (5, {'mmliir.cli'}),
}

# part -> distributions it must not import, directly
FOREIGN = {
    'mmliir.ops': {'mmengine', 'mmcv'},
    'mmliir.propagation': {'mmengine', 'mmcv'},
    'mmliir.evaluation.functional': {'torch', 'torchvision', 'mmengine', 'mmcv'},
}
OUTSIDE_THE_PACKAGE = {'configs', 'tools', 'tests', 'demo', 'projects'}
OPTIONAL = {
    'av', 'davis2017', 'huggingface_hub', 'isal', 'matplotlib', 'safetensors', 'timm', 'torchvision', 'transformers',
    'triton',
}  # fmt: skip
ONLY_INSIDE_FUNCTIONS = {'torchvision', 'davis2017', 'timm', 'transformers', 'huggingface_hub'}
# module -> distributions that this module alone may import inside a function
OPTIONAL_BY_MODULE = {
    'mmliir.datasets.sources': {'mmengine'},  # its log: `mmliir score` and `mmliir data` do not wait for it
    'mmliir.cli.common': {'mmengine'},  # to read --cfg-options
    'mmliir.datasets.jhmdb': {'scipy'},  # its joints are MATLAB files
    'mmliir.testing.synthetic_jhmdb': {'scipy'},
    'mmliir.ops.triton_attend': {'mmliir'},  # its kernels cannot be imported without Triton
    'mmliir.evaluation.metrics.davis_official': {'skimage'},  # comes with davis2017
    # what brings PyTorch: `mmliir --help` does not wait for it
    **{
        f'mmliir.cli.{name}': {'mmliir'}
        for name in ('compare', 'convert', 'data', 'eval', 'propagate', 'score', 'submit')
    },
}


@dataclass(frozen=True)
class Import:
    """One imported name: `from target import name` or `import target`."""

    module: str
    path: str
    line: int
    target: str
    name: str | None
    in_function: bool

    def __str__(self) -> str:
        statement = f'from {self.target} import {self.name}' if self.name else f'import {self.target}'
        return f'{self.path}:{self.line}: {statement}'


class _ImportReader(ast.NodeVisitor):
    """Collects the imports of one module, those under `if TYPE_CHECKING:` included: they are a dependence."""

    def __init__(self, module: str, path: str, is_package: bool, modules: set[str]):
        self.module, self.path, self.is_package, self.modules = module, path, is_package, modules
        self.depth = 0
        self.found: list[Import] = []

    def visit_FunctionDef(self, node):
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_Lambda = visit_FunctionDef

    def visit_Import(self, node):
        for alias in node.names:
            self._add(node, alias.name, None)

    def visit_ImportFrom(self, node):
        target = node.module or ''
        if node.level:
            base = self.module.split('.')
            base = base[: len(base) - node.level + (1 if self.is_package else 0)]
            target = '.'.join(base + ([node.module] if node.module else []))
        for alias in node.names:
            submodule = f'{target}.{alias.name}'
            if (
                submodule in self.modules
            ):  # `from mmliir.utils import checkpoint` is an import of the submodule
                self._add(node, submodule, None)
            else:
                self._add(node, target, alias.name)

    def _add(self, node, target, name):
        self.found.append(Import(self.module, self.path, node.lineno, target, name, self.depth > 0))


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def read_imports(sources: dict[str, tuple[str, str, bool]]) -> list[Import]:
    """sources: module name -> (path, text, whether it is a package's __init__)."""
    found = []
    for module, (path, text, is_package) in sorted(sources.items()):
        reader = _ImportReader(module, path, is_package, set(sources))
        reader.visit(ast.parse(text, filename=path))
        found += reader.found
    return found


def part_of(module: str) -> str | None:
    """The part with the longest name that is `module` or holds it; the root holds only itself."""
    name = module
    while name:
        if name in PARTS and (name != 'mmliir' or module == 'mmliir'):
            return name
        name = name.rpartition('.')[0]
    return None


def import_table_violations(imports: list[Import]) -> list[str]:
    problems = []
    for item in imports:
        if item.target.split('.')[0] != 'mmliir':
            continue
        ours, theirs = part_of(item.module), part_of(item.target)
        if ours is None or theirs is None:
            unknown = item.module if ours is None else item.target
            problems.append(f'{item}: {unknown} has no row in PARTS; give it one, in docs/design.md first')
            continue
        aggregates = (  # a package's __init__ exports its own parts, unless they lie above it
            item.path.endswith('__init__.py')
            and theirs.startswith(f'{ours}.')
            and PARTS[theirs][0] <= PARTS[ours][0]
        )
        if ours == theirs or aggregates or theirs in PARTS[ours][1]:
            continue
        allowed = ', '.join(sorted(PARTS[ours][1])) or 'nothing of ours'
        problems.append(
            f'{item}: {ours} (level {PARTS[ours][0]}) may not import {theirs} (level {PARTS[theirs][0]}); '
            f'it may import {allowed}'
        )
    return problems


def foreign_violations(imports: list[Import]) -> list[str]:
    problems = []
    for item in imports:
        top = item.target.split('.')[0]
        forbidden = FOREIGN.get(part_of(item.module), set())
        if top in forbidden:
            problems.append(f'{item}: {part_of(item.module)} may not import {top}')
        if top in OUTSIDE_THE_PACKAGE:
            problems.append(f'{item}: the package may not import {top}/, which is not installed with it')
        if item.name == '*':
            problems.append(f'{item}: name what is imported')
    return problems


def placement_violations(imports: list[Import]) -> list[str]:
    problems = []
    for item in imports:
        top = item.target.split('.')[0]
        if item.in_function and top not in OPTIONAL | OPTIONAL_BY_MODULE.get(item.module, set()):
            problems.append(
                f'{item}: only optional extras are imported inside a function; move it to the top'
            )
        if not item.in_function and top in ONLY_INSIDE_FUNCTIONS:
            problems.append(f'{item}: {top} is optional; import it in the function that needs it')
    return problems


def text_violations(sources: dict[str, tuple[str, str, bool]]) -> list[str]:
    """`**kwargs` in constructors, and handlers that catch everything and go on."""
    problems = []
    for path, text, _ in sources.values():
        for node in ast.walk(ast.parse(text, filename=path)):
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if (
                        isinstance(method, ast.FunctionDef)
                        and method.name == '__init__'
                        and method.args.kwarg
                    ):
                        problems.append(
                            f'{path}:{method.lineno}: {node.name}.__init__ takes **{method.args.kwarg.arg}: '
                            'a mistyped config key would be swallowed; name the arguments'
                        )
            if isinstance(node, ast.ExceptHandler):
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                names = {getattr(kind, 'id', getattr(kind, 'attr', None)) for kind in caught if kind}
                goes_on = not isinstance(node.body[-1], ast.Raise)
                if goes_on and (node.type is None or names & {'Exception', 'BaseException'}):
                    problems.append(
                        f'{path}:{node.lineno}: catches everything and goes on; name the exceptions you expect'
                    )
    return problems


def say(problems: list[str]) -> str:
    return '\n' + '\n'.join(problems)


@pytest.fixture(scope='module')
def sources() -> dict[str, tuple[str, str, bool]]:
    files = sorted(path for path in PACKAGE.rglob('*.py') if '__pycache__' not in path.parts)
    assert files, f'no Python files under {PACKAGE.name}/'
    return {
        module_name(path, ROOT): (
            path.relative_to(ROOT).as_posix(),
            path.read_text(encoding='utf-8'),
            path.name == '__init__.py',
        )
        for path in files
    }


@pytest.fixture(scope='module')
def imports(sources) -> list[Import]:
    return read_imports(sources)


def test_every_module_belongs_to_a_part(sources):
    lost = [module for module in sources if part_of(module) is None]
    assert not lost, f'no row in PARTS for {", ".join(lost)}; give each a place in docs/design.md first'


def test_imports_follow_the_table(imports):
    problems = import_table_violations(imports)
    assert not problems, say(problems)


def test_no_part_imports_what_is_forbidden_to_it(imports):
    problems = foreign_violations(imports)
    assert not problems, say(problems)


def test_imports_stand_at_the_top_except_for_optional_extras(imports):
    problems = placement_violations(imports)
    assert not problems, say(problems)


def test_constructors_name_their_arguments_and_handlers_their_exceptions(sources):
    problems = text_violations(sources)
    assert not problems, say(problems)


def test_the_table_itself_has_no_circle_and_never_points_upwards():
    for part, (level, allowed) in PARTS.items():
        assert allowed <= set(PARTS), f'{part} names unknown parts: {sorted(allowed - set(PARTS))}'
        for other in allowed:
            above = PARTS[other][0]
            assert above <= level, f'{part} (level {level}) points up at {other} (level {above})'
    TopologicalSorter({part: allowed - {part} for part, (_, allowed) in PARTS.items()}).prepare()


@pytest.mark.parametrize(
    'module,line,expected',
    [
        ('mmliir.ops.affinity', 'from mmengine.model import BaseModule', 'may not import mmengine'),
        ('mmliir.ops.affinity', 'from mmliir.utils import files', 'may not import mmliir.utils'),
        ('mmliir.propagation.session', 'import mmengine', 'may not import mmengine'),
        (
            'mmliir.propagation.session',
            'from mmliir.registry import MODELS',
            'may not import mmliir.registry',
        ),
        ('mmliir.evaluation.functional.region', 'import torch.nn', 'may not import torch'),
        (
            'mmliir.evaluation.functional.region',
            'from ..metrics import davis',
            'may not import mmliir.evaluation',
        ),
        ('mmliir.datasets.davis', 'from mmliir.models import LIIR', 'may not import mmliir.models'),
        (
            'mmliir.models.methods.liir',
            'from mmliir.datasets import FrameFolder',
            'may not import mmliir.datasets',
        ),
        (
            'mmliir.models.heads.head',
            'from mmliir.models.methods.liir import LIIR',
            'may not import mmliir.models',
        ),
        ('mmliir.models.methods.liir', 'from mmliir.engine.hooks import x', 'may not import mmliir.engine'),
        (
            'mmliir.structures.palette',
            'import mmliir.visualization.overlay',
            'may not import mmliir.visualization',
        ),
        ('mmliir.utils.files', 'from mmliir import models', 'may not import mmliir.models'),
        ('mmliir.evaluation.export', 'from mmliir.apis.train import train', 'may not import mmliir.apis'),
        ('mmliir.ops.color', 'from ..testing import reference', 'may not import mmliir.testing'),
        ('mmliir.apis.train', 'from configs import base', 'may not import configs'),
        ('mmliir.cli', 'import tools.train', 'may not import tools'),
        ('mmliir.cli', 'from mmliir.ops import *', 'name what is imported'),
        ('mmliir.extras.thing', 'from mmliir.ops import rgb_to_lab', 'has no row in PARTS'),
        ('mmliir.datasets.davis', 'def f():\n    import json', 'inside a function'),
        ('mmliir.datasets.davis', 'class A:\n    def f(self):\n        import mmengine', 'inside a function'),
        ('mmliir.models.backbones.x', 'import torchvision', 'torchvision is optional'),
        (
            'mmliir.models.backbones.x',
            'try:\n    import davis2017\nexcept ImportError:\n    pass',
            'is optional',
        ),
        (
            'mmliir.models.heads.x',
            'class A:\n    def __init__(self, *, a=1, **kwargs): ...',
            r'takes **kwargs',
        ),
        ('mmliir.apis.x', 'try:\n    f()\nexcept:\n    pass', 'catches everything and goes on'),
        ('mmliir.apis.x', 'try:\n    f()\nexcept (OSError, Exception):\n    pass', 'catches everything and goes on'),
    ],
)
def test_a_broken_rule_is_found(module, line, expected):
    known = (
        'models',
        'models.methods.liir',
        'utils.files',
        'utils',
        'testing.reference',
        'evaluation.metrics.davis',
    )
    sources = {f'mmliir.{name}': (f'mmliir/{name.replace(".", "/")}.py', '', False) for name in known}
    sources[module] = (f'{module.replace(".", "/")}.py', line, False)
    found = read_imports(sources)
    problems = import_table_violations(found) + foreign_violations(found)
    problems += placement_violations(found) + text_violations(sources)
    assert any(expected in problem for problem in problems), problems
    assert len(problems) == 1, problems


@pytest.mark.skipif(
    not (ROOT / '.git').exists() or shutil.which('git') is None, reason='not a git checkout'
)
def test_git_ignores_no_source_file():
    """A source that git ignores is in the author's tree and in no clone."""
    listed = subprocess.run(
        ['git', 'ls-files', '--others', '--ignored', '--exclude-standard', 'configs', 'mmliir', 'tests', 'tools'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert [name for name in listed if '__pycache__' not in name] == []


@pytest.mark.parametrize(
    'module,line',
    [
        ('mmliir.propagation.session', 'from mmliir.ops import window_topk_attend'),
        ('mmliir.models.methods.liir', 'from mmliir.models.memory import FeatureBank'),
        ('mmliir.models.methods.liir', 'from ..memory import FeatureBank'),
        ('mmliir.models.memory.bank', 'from mmengine.model import BaseModule'),
        ('mmliir.datasets.frames', 'def f():\n    import av'),
        ('mmliir.datasets.sources', 'def f():\n    import mmengine'),
        ('mmliir.apis.inference', 'from mmliir.evaluation.export import export_predictions'),
        ('mmliir.engine.hooks.x', 'class H:\n    def call(self, **kwargs): ...'),
        ('mmliir.apis.x', 'try:\n    f()\nexcept BaseException:\n    clean_up()\n    raise'),
    ],
)
def test_a_lawful_module_passes(module, line):
    sources = {module: (f'{module.replace(".", "/")}.py', line, False)}
    found = read_imports(sources)
    problems = import_table_violations(found) + foreign_violations(found)
    assert not problems + placement_violations(found) + text_violations(sources)
