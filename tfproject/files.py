"""Writing files so that nothing half written is ever read."""

import os
import pathlib
import stat
import tempfile

from tfproject.errors import UserError


def write_atomically(path, content):
    """Write bytes or text so that a reader sees the old file or the new one, never a part, even after a power cut.

    A link stays and what it leads to is replaced; a device such as /dev/stdout is written to. Text becomes UTF-8; what
    that cannot hold, as the bytes of a file name, is written as escapes.

    Raises:
        UserError: if the file cannot be written; what was there before is still there.
    """
    path = pathlib.Path(path)
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    temporary = None
    try:
        if is_device(path):
            # The screen's own place in its file, and not the file's beginning; a folder refuses.
            with open(os.dup(1) if str(path) == "/dev/stdout" else path, "wb") as file:
                file.write(content)
            return
        path = pathlib.Path(os.path.realpath(path))
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode_of(path))
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UserError(
                f"{path} cannot be written ({error.strerror}); give a path in a folder that exists, may be written to "
                "and has room."
            ) from error
        raise


def is_device(path):
    """Whether a path is written to and never replaced: a device, a pipe, /dev/stdout wherever it leads."""
    return path.exists() and (not path.is_file() or path.is_relative_to("/dev"))


def mode_of(path):
    """The permissions for a file that is written: those that it has, or what the process gives new files."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        mask = os.umask(0o077)  # there is no way to read it but to set it
        os.umask(mask)
        return 0o666 & ~mask
