"""How large an artifact may be: what the mesh lets one be, and what this node keeps."""

from meshnode.errors import ArtifactTooLarge
from protocol.limits import ARTIFACT_SIZE_MAX


def check_size(size: int, *, kept_bytes_max: int) -> None:
    """Refuse an artifact of ``size`` bytes that no room could be made for.

    Args:
        size: Of all of it.
        kept_bytes_max: Of all artifacts together, as the node's owner says.

    Raises:
        ArtifactTooLarge: It is larger; the hint says what can be done.
    """
    if size > ARTIFACT_SIZE_MAX:
        raise ArtifactTooLarge(size, ARTIFACT_SIZE_MAX, hint="hand it over in parts")
    if size > kept_bytes_max:
        raise ArtifactTooLarge(size, kept_bytes_max, hint="raise artifact_bytes_max in [host]")
