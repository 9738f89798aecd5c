"""Imports point one way: core knows torch alone, adapters know the core, pictures read Traces, the command all."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import regard

ROOT = Path(regard.__file__).parent
STANDARD = frozenset(sys.stdlib_module_names) | {"__future__"}

# What each package may import of regard at module level, itself aside. A name covers what lies below it.
MECHANISM = {
    "regard.mechanism",
    "regard.protocol",
    "regard.inputs",
    "regard.evaluate",
    "regard.lower",
    "regard.core",
    "regard.errors",
}
PARTS = MECHANISM | {"regard.parts"}
ATTENTIONS = PARTS | {"regard.composite", "regard.recurrent"}
RUN = ATTENTIONS | {"regard.run"}
SEEING = MECHANISM | {"regard.growing", "regard.once", "regard.statistic", "regard.run", "regard.seeing"}
ARROWS = {
    "regard.errors": set(),
    "regard.core": {"regard.errors"},
    "regard.inputs": {"regard.core", "regard.errors"},
    "regard.protocol": {"regard.inputs", "regard.errors"},
    "regard.mechanism": {"regard.protocol", "regard.inputs", "regard.core", "regard.errors"},
    "regard.evaluate": {"regard.mechanism", "regard.inputs", "regard.errors"},
    "regard.lower": {"regard.mechanism", "regard.inputs", "regard.core", "regard.errors"},
    "regard.growing": set(),
    "regard.once": set(),
    "regard.statistic": {"regard.core", "regard.growing", "regard.mechanism", "regard.once"},
    "regard.parts": PARTS,
    "regard.recurrent": PARTS,
    "regard.composite": PARTS,
    "regard.zoo": ATTENTIONS | {"regard.zoo"},
    "regard.text": ATTENTIONS | {"regard.zoo"},
    "regard.run.output": {"regard.core"},
    "regard.run.backend": MECHANISM | {"regard.run.output", "regard.run.gradients"},
    "regard.run.gradients": {"regard.core", "regard.errors", "regard.run.output"},
    "regard.run.documents": {"regard.core", "regard.inputs"},
    "regard.run.limits": MECHANISM | {"regard.run.backend"},
    "regard.run.reference": MECHANISM | {"regard.run.backend", "regard.run.documents", "regard.run.output"},
    "regard.run.recompute": MECHANISM | {"regard.run.gradients"},
    "regard.run.strips": MECHANISM
    | {"regard.run.recompute", "regard.run.backend", "regard.run.documents", "regard.run.output"},
    "regard.run.native": MECHANISM | {"regard.run"},
    "regard.run.triton": MECHANISM | {"regard.run"},
    "regard.run": RUN,
    "regard.seeing": SEEING,
    "regard.nn": RUN | {"regard.zoo", "regard.nn"},
    "regard.hf": RUN | SEEING | {"regard.hf"},
    "regard.resident": set(),
    "regard.swap": RUN | SEEING | {"regard.text", "regard.zoo", "regard.hf", "regard.resident", "regard.swap"},
    "regard.view": MECHANISM | {"regard.statistic", "regard.seeing", "regard.view"},
    "regard.seq2seq": RUN | SEEING | {"regard.nn", "regard.hf", "regard.seq2seq"},
    "regard.tasks": RUN | SEEING | {"regard.hf", "regard.seq2seq", "regard.tasks"},
    "regard.serve": {"regard.errors", "regard.serve"},
    "regard.serve.pages": RUN | {"regard.serve.pool", "regard.serve.scheduler"},
    "regard.serve.linear": RUN,
    "regard.serve.fused": RUN | {"regard.serve.linear", "regard.serve.look", "regard.serve.pages"},
    "regard.serve.look": {"regard.run.native", "regard.serve.pages", "regard.serve.request"},
    "regard.serve.look_native": {"regard.run.native", "regard.serve.look", "regard.serve.pages"},
    "regard.serve.sampler": {"regard.run.native", "regard.serve.request"},
    "regard.serve.shown": {"regard.run.native", "regard.serve.look", "regard.serve.request"},
    "regard.serve.runner": RUN | {"regard.hf", "regard.serve"},
    "regard.serve.evicting": {"regard.hf", "regard.serve", "regard.swap", "regard.errors"},
    "regard.explain": RUN | {"regard.zoo", "regard.text", "regard.view", "regard.explain"},
    "regard.lesson": RUN | {"regard.zoo", "regard.view", "regard.explain", "regard.lesson"},
    "regard.bench": {"regard"},
    "regard.cli": {"regard.errors"},
    "regard.__main__": {"regard.cli"},
    "regard": set(),
}

# Who may import what from outside, at module level or inside a function; everyone else has the standard library.
OUTSIDE = {
    "torch": {"regard"},
    "transformers": {
        "regard.hf",
        "regard.seq2seq",
        "regard.tasks",
        "regard.swap",
        "regard.serve.runner",
        "regard.serve.evicting",
        "regard.bench",
        "regard.cli",
    },
    "huggingface_hub": {"regard.hf", "regard.cli"},
    "safetensors": {"regard.seeing.files", "regard.hf", "regard.seq2seq", "regard.swap"},
    "numpy": {"regard.hf", "regard.view", "regard.explain", "regard.lesson", "regard.bench", "regard.cli"},
    "jiwer": {"regard.tasks"},
    "PIL": {"regard.hf", "regard.tasks", "regard.view", "regard.explain", "regard.bench", "regard.cli"},
    "matplotlib": {"regard.view", "regard.explain", "regard.bench", "regard.swap"},
    "rich": {"regard.view", "regard.explain", "regard.bench", "regard.cli", "regard.seq2seq"},
    "typer": {"regard.cli"},
    "starlette": {"regard.serve.app", "regard.serve.embeddings", "regard.serve.transport", "regard.view.app"},
    "uvicorn": {"regard.serve.command", "regard.view.opened"},
    "prometheus_client": {"regard.serve.metrics"},
    "llguidance": {"regard.serve.grammar"},
    "pandas": {"regard.view"},
    "anywidget": {"regard.view.widget"},
    "traitlets": {"regard.view.widget"},
    "tokenizers": {"regard.bench.serving", "regard.seq2seq", "regard.tasks"},
    "accelerate": {"regard.seq2seq"},
    "sacrebleu": {"regard.seq2seq"},
    "peft": {"regard.swap"},
    "psutil": {"regard.bench"},
    "ctranslate2": {"regard.bench.translate_speed"},
    # scripts for other environments, which hold one file beside them
    "openvino": {"regard.bench.serving.elsewhere.with_openvino"},
    "openvino_genai": {"regard.bench.serving.elsewhere.with_openvino"},
    "openvino_tokenizers": {"regard.bench.serving.elsewhere.with_openvino"},
    "optimum": {"regard.bench.serving.elsewhere.with_openvino"},
    "vllm": {"regard.bench.serving.elsewhere.with_vllm"},
    "replay": {"regard.bench.serving.elsewhere"},
    "triton": {"regard.run.triton"},
}
# never at module level
LAZY = {
    "matplotlib",
    "rich",
    "pandas",
    "PIL",
    "triton",
    "psutil",
    "uvicorn",
    "prometheus_client",
    "llguidance",
    "jiwer",
}
KERNELS = (
    "regard.run.triton.kernels"  # but here: kernels are compiled where they are defined, so nobody loads these early
)


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("regard", *path.relative_to(ROOT).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def imported(tree: ast.Module, everywhere: bool) -> list[str]:
    """Dotted names that a module imports when it is loaded, or anywhere; what only type checkers see left out."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not everywhere:
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow points"
            of = [f"{node.module}.{alias.name}" for alias in node.names]
            found.extend(name if name in MODULES else str(node.module) for name in of)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def most_special(name: str, table: dict[str, set[str]]) -> str:
    return max((package for package in table if under(name, package)), key=len)


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_one_way(name: str) -> None:
    package = most_special(name, ARROWS)
    if package == "regard" and name != "regard":
        pytest.fail(f"{name} has no row in ARROWS; say what it may import")
    allowed = ARROWS[package] | ({package} if package != "regard" else set())
    for target in imported(MODULES[name], everywhere=False):
        if under(target, "regard"):
            assert any(under(target, a) for a in allowed), f"{name} may not import {target}"


@pytest.mark.parametrize("name", MODULES)
def test_other_packages_are_imported_only_where_they_belong(name: str) -> None:
    for everywhere in (False, True):
        for target in imported(MODULES[name], everywhere):
            outside = target.split(".")[0]
            if outside in STANDARD or outside == "regard":
                continue
            assert any(under(name, place) for place in OUTSIDE.get(outside, set())), f"{name} may not import {outside}"
            assert everywhere or outside not in LAZY or (outside == "triton" and under(name, KERNELS)), (
                f"{name} imports {outside} when it is loaded; do it where it is used"
            )


@pytest.mark.parametrize("name", [name for name in MODULES if not under(name, KERNELS)])
def test_kernels_are_imported_where_they_are_launched(name: str) -> None:
    early = [target for target in imported(MODULES[name], everywhere=False) if under(target, KERNELS)]
    assert not early, f"{name} imports {early[0]} when it is loaded, and triton with it; do it where it is used"


def fresh(program: str) -> str:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_using_attention_loads_torch_and_nothing_else() -> None:
    heavy = sorted(set(OUTSIDE) - {"torch"} | {"tokenizers", "PIL", "pytest", "hypothesis"})
    program = f"import regard, sys; regard.attention, regard.Trace; print([n for n in {heavy} if n in sys.modules])"
    loaded = fresh(program)
    # torch itself loads numpy where there is one
    assert set(ast.literal_eval(loaded)) <= {"numpy"}


def test_importing_everything_leaves_transformers_as_it_was() -> None:
    program = (
        "import transformers\n"
        "from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as functions, AttentionInterface as a\n"
        "from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as masks, AttentionMaskInterface as m\n"
        "state = lambda: [dict(x) for x in (a._global_mapping, m._global_mapping, functions, masks)]\n"
        "before = state()\n"
        "import regard, regard.hf.see, regard.seeing.watching\n"
        "regard.attach, regard.see, regard.load\n"
        "assert state() == before and 'regard' not in functions\n"
    )
    fresh(program)


def test_without_transformers_attention_works_and_see_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('transformers', 'tokenizers', 'safetensors', 'matplotlib', 'rich'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import torch, regard\n"
        "q = torch.randn(1, 2, 5, 4)\n"
        "assert regard.attention(q, q, q, 'causal & window(2)').shape == (1, 2, 5, 4)\n"
        "assert regard.weights(q, q, 'causal').shape == (1, 2, 5, 5)\n"
        "for name in ('see', 'attach', 'load', 'Unsupported'):\n"
        "    try:\n"
        "        getattr(regard, name)\n"
        "    except ImportError as error:\n"
        "        assert str(error) == f\"regard.{name} needs transformers: pip install 'regard[hf]'\", error\n"
        "    else:\n"
        "        raise AssertionError(name)\n"
    )
    fresh(program)


def test_importing_the_command_loads_only_what_parses_it() -> None:
    heavy = sorted(set(OUTSIDE) - {"typer", "rich"})
    program = f"import regard.cli.command, sys; print([name for name in {heavy} if name in sys.modules])"
    assert fresh(program).strip() == "[]"


def test_a_name_that_regard_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nosuch'"):
        regard.nosuch  # noqa: B018


def test_every_public_name_and_room_is_there_and_dir_shows_the_public_names() -> None:
    program = (
        "import regard\n"
        "assert set(dir(regard)) == {*regard.__all__, '__version__'}, dir(regard)\n"
        "assert regard.nn.__name__ == 'regard.nn' and regard.zoo.card('causal').name == 'causal'\n"
        "for name in regard.__all__:\n"
        "    assert getattr(regard, name).__name__ == name\n"
    )
    fresh(program)
    assert set(regard._HOME) == set(regard.__all__)
