"""A crowd's model in one file: safetensors, which holds tensors and texts and runs nothing when it is read.

| tensor | what |
|---|---|
| `trunk/NAME` | a parameter of the trunk (agent/moe/build.py), float32 |
| `experts/UID/NAME` | a parameter of expert UID (agent/experts/modules.py), float32 |

The metadata hold `format`, the manifest's JSON (`manifest`) and its SHA-256 (`manifest_sha256`), the trunk's `step`, and as JSON
`versions` (expert → optimizer steps) and `missing` (names of experts that nobody gave).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from agent import manifest as manifests
from agent.errors import LocalError, ManifestRejected, StorageError
from agent.experts.fetching import Fetched
from agent.experts.modules import make_module
from agent.grid import ExpertId
from agent.manifest import Manifest
from agent.moe.build import build_model
from agent.moe.local import LocalExperts
from agent.scoring import Model, bound

FORMAT = "hive-model-1"


@dataclass(frozen=True, eq=False)
class SavedModel:
    """What a file holds. Experts of the manifest that are not among `experts` could not be fetched."""

    manifest: Manifest
    step: int
    trunk: Mapping[str, Tensor]
    experts: Mapping[ExpertId, Fetched]

    @property
    def missing(self) -> list[ExpertId]:
        return [uid for grid in self.manifest.model.grids() for uid in grid if uid not in self.experts]

    def model(self) -> Model:
        """The model, in this process; where an expert is missing the next best ones answer, as in the crowd. Blocks."""
        modules = {uid: make_module(self.manifest, uid) for uid in self.experts}
        for uid, module in modules.items():
            module.load_state_dict(dict(self.experts[uid].weights))
        return bound(build_model(self.manifest, LocalExperts(modules)), self.trunk)


def digest(manifest: Manifest) -> str:
    """SHA-256 of the manifest's JSON, hexadecimal."""
    return hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()


def refuse(path: Path, *, replace: bool) -> None:
    """Raises StorageError if `path` cannot be written, or is there and is not to be replaced."""
    if path.is_dir():
        raise StorageError(f"{path} is a directory; name a file in it")
    if path.exists() and not replace:
        raise StorageError(f"there is a file {path} already; --force replaces it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise StorageError(f"cannot write to the directory {path.parent}: it is missing, or not yours")


def save(saved: SavedModel, path: Path, *, replace: bool = False) -> int:
    """Write it, under another name until it is whole; returns the bytes. Raises StorageError."""
    refuse(path, replace=replace)
    tensors = {f"trunk/{name}": tensor.clone() for name, tensor in saved.trunk.items()}  # views of one vector
    for uid, expert in saved.experts.items():
        tensors |= {f"experts/{uid}/{name}": tensor.contiguous() for name, tensor in expert.weights.items()}
    metadata = {
        "format": FORMAT,
        "manifest": msgspec.json.encode(saved.manifest).decode(),
        "manifest_sha256": digest(saved.manifest),
        "step": str(saved.step),
        "versions": msgspec.json.encode({str(uid): expert.version for uid, expert in saved.experts.items()}).decode(),
        "missing": msgspec.json.encode([str(uid) for uid in saved.missing]).decode(),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, temporary, metadata)
        size = temporary.stat().st_size
        refuse(path, replace=replace)
        temporary.replace(path)
    except (OSError, SafetensorError) as e:
        raise StorageError(f"cannot write {path}: {getattr(e, 'strerror', None) or e}") from e
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return size


def load(path: Path) -> SavedModel:
    """Read what `save` wrote. Raises LocalError if it is anything else, or does not hold together."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise LocalError(f"{path} is not a model that hive-agent export wrote")
            manifest = manifests.decode(metadata["manifest"].encode())
            versions = msgspec.json.decode(metadata["versions"], type=dict[str, int])
            step = int(metadata["step"])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, ManifestRejected) as e:  # msgspec's errors are ValueErrors
        raise LocalError(f"cannot read the model in {path}: {getattr(e, 'strerror', None) or e}") from e
    if digest(manifest) != metadata.get("manifest_sha256"):
        raise LocalError(f"the model in {path} does not belong to the manifest in it")
    trunk = {name.removeprefix("trunk/"): t for name, t in tensors.items() if name.startswith("trunk/")}
    weights: dict[str, dict[str, Tensor]] = {uid: {} for uid in versions}
    for name, tensor in tensors.items():
        if not name.startswith("trunk/"):
            _, uid, parameter = [*name.split("/", 2), "", ""][:3]
            weights.setdefault(uid, {})[parameter] = tensor
    try:
        experts = {ExpertId.parse(uid): Fetched(versions.get(uid, 0), named) for uid, named in weights.items()}
        saved = SavedModel(manifest, step, trunk, experts)
        _check(saved)
    except ValueError as e:
        raise LocalError(f"the model in {path} does not hold together: {e}") from None
    return saved


def _check(saved: SavedModel) -> None:
    """Raises ValueError unless names and shapes are those of the manifest's model."""
    parts: list[tuple[str, nn.Module, Mapping[str, Tensor]]] = [
        ("the trunk", build_model(saved.manifest, LocalExperts({})), saved.trunk),
        *((str(uid), make_module(saved.manifest, uid), expert.weights) for uid, expert in saved.experts.items()),
    ]
    for what, module, given in parts:
        expected = {name: (p.shape, p.dtype) for name, p in module.named_parameters()}
        if {name: (t.shape, t.dtype) for name, t in given.items()} != expected:
            raise ValueError(f"{what} has other parameters than its manifest says")
