"""What can go wrong while a model is fetched; each is an error of onnxopt with its own name."""

from onnxopt.errors import OnnxoptError


class FetchError(OnnxoptError):
    """A package cannot be downloaded: a missing tool, no network, or a version that is gone."""


class IntegrityError(OnnxoptError):
    """Something fetched is not what the manifest says it is."""


class ArchiveError(OnnxoptError):
    """An archive is damaged, or has a member that would leave its folder."""
