"""Writing files so that nothing half written is ever read."""

import os
import pathlib
import tempfile


def write_atomically(path, content):
    """Write bytes or text so that a reader sees the old file or the new one, never a part, even after a power cut."""
    path = pathlib.Path(path)
    if isinstance(content, str):
        content = content.encode()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
