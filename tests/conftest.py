"""What every test may ask for (shared data, pipelines as modules), and the rules they all run under."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

#: Fixtures that several folders of tests share.
pytest_plugins = ["commands", "networks"]

# Before torch is imported: its threads that spin while they wait take the cores from the others, and two
# processes with two threads each only wait for each other on two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))

# The model where a test names none: most tests look at what is around the network, and lite is the quickest
# that paints. `tests/api/test_default_model.py` looks at what users get.
os.environ["URST_TILES_MODEL"] = "lite"

# No deadline: on a busy machine a slow example is no failure. Always the same examples: a failure stays.
settings.register_profile(
    "quick", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("quick"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def package_folder() -> Path:
    """Where ``import urst_tiles`` leads, without importing it."""
    spec = importlib.util.find_spec("urst_tiles")
    if spec is None or spec.origin is None:
        pytest.exit("urst_tiles is not installed here; run the tests with `make test`", returncode=2)
    return Path(spec.origin).parent


def pytest_configure() -> None:
    in_our_venv = Path(sys.prefix) == ROOT / ".venv"
    if in_our_venv and package_folder() == ROOT / "urst_tiles":
        pytest.exit("the source tree is on sys.path; `make test` tests the installed wheel", returncode=2)


def pytest_collection_finish() -> None:
    """What is imported and collected by now stays: no collection of garbage need look at it again."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    return f"urst_tiles: {package_folder()}"


def _needed(path: Path) -> Path:
    if not path.exists():
        reason = f"{os.path.relpath(path, ROOT)} is not there"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module", autouse=True)
def disks(request: pytest.FixtureRequest) -> Iterator[None]:
    """In a quick run nobody waits until a file lies on the disk.

    That takes a third of a small job's time, and no test can see it, since the power is not cut. Tests in
    which ``fsync`` fails put a function of their own there; child processes, ``tests/storage`` and ``make
    test-slow`` have the real one.
    """
    if request.config.option.markexpr != "not slow":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: os.fstat(handle) and None)  # a closed file stays an error
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Test data and weights beside the repository; without them tests are skipped, or fail in CI."""
    return _needed(ROOT.parent / "shared")


@pytest.fixture(scope="session")
def inputs(shared: Path) -> Path:
    """Real images: subfolders geotiff, photo, scan, slide."""
    return _needed(shared / "data" / "inputs")


@pytest.fixture(scope="session")
def weights_dir(shared: Path) -> Path:
    """Real weights: one subfolder per model."""
    return _needed(shared / "weights")


@pytest.fixture(scope="session")
def pipeline() -> Callable[[str], ModuleType]:
    """Load one of the programs in ``pipelines/`` as a module: ``pipeline("make_scene")``."""
    sys.path.append(str(ROOT / "pipelines"))  # where the programs find their own helpers

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "pipelines" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look themselves up there
        spec.loader.exec_module(module)
        return module

    return load
