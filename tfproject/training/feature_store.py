"""A store of arrays on disk, each found by its name and known to be whole by its checksum."""

import contextlib
import hashlib
import json
import os
import pathlib

import numpy as np

from tfproject.errors import UserError
from tfproject.files import write_atomically

NAME_BYTES = 16
RECORD = np.dtype([("name", f"V{NAME_BYTES}"), ("checksum", f"V{NAME_BYTES}")])


class FeatureStore:
    """Arrays of one shape and type in a file, one after the other: places 0, 1, 2 ...

    description.json   what they are
    arrays             their numbers
    index              for each place a name and a checksum of name and numbers, written after the numbers are on disk

    Nothing is changed that was written once, only added. What is not whole (damaged, cut off, half written when the
    process was killed, or for a store of another description) is as if it were not there, and is added again.

    Args:
        directory: made if it is not there.
        shape: of each array.
        dtype: of each array, "float32" or "float16".
        description: JSON values that say what the numbers were computed from; a store of another one is emptied.

    Raises:
        UserError: if the directory cannot be written.
    """

    def __init__(self, directory, shape, dtype, description):
        self.directory, self.shape, self.dtype = pathlib.Path(directory), tuple(shape), np.dtype(dtype)
        self.size = int(np.prod(self.shape)) * self.dtype.itemsize  # bytes of an array
        text = json.dumps({**description, "shape": list(self.shape), "dtype": self.dtype.name}, indent=1) + "\n"
        with self._writing():
            self.directory.mkdir(parents=True, exist_ok=True)
            described = self.directory / "description.json"
            if not described.exists() or described.read_bytes() != text.encode():
                self._index.unlink(missing_ok=True)
                self._arrays.unlink(missing_ok=True)
                write_atomically(described, text)

    @property
    def _arrays(self):
        return self.directory / "arrays"

    @property
    def _index(self):
        return self.directory / "index"

    def find(self, names):
        """Where arrays are that are whole; each is read and checked.

        Args:
            names: bytes objects of NAME_BYTES bytes.

        Returns:
            A dict from name to place, without the names that are not there or whose array is not whole.
        """
        wanted, found = set(names), {}
        if not wanted or not self._index.exists() or not self._arrays.exists():
            return found
        with open(self._arrays, "rb") as file:
            for place, record in enumerate(self._records()):
                name = record["name"].tobytes()
                if name in wanted and name not in found:
                    file.seek(place * self.size)
                    if self._checksum(name, file.read(self.size)) == record["checksum"].tobytes():
                        found[name] = place
        return found

    def add(self, names, arrays):
        """Write arrays to disk, first their numbers and then their names.

        Args:
            names: a list of bytes objects.
            arrays: (len(names), *shape).

        Returns:
            A dict from name to place.

        Raises:
            UserError: if they cannot be written; what was there before is still there.
        """
        first = len(self._records())
        contents = [np.ascontiguousarray(array, self.dtype).tobytes() for array in arrays]
        records = b"".join(name + self._checksum(name, content) for name, content in zip(names, contents))
        with self._writing(len(names) * self.size):
            _write_at(self._arrays, first * self.size, b"".join(contents))
            _write_at(self._index, first * RECORD.itemsize, records)
        return {name: first + i for i, name in enumerate(names)}

    def read(self, places):
        """The arrays at these places, (len(places), *shape)."""
        # Mapped for each call only, so that pages once read do not count as this process's memory for ever.
        count = self._arrays.stat().st_size // self.size
        return np.memmap(self._arrays, self.dtype, "r", shape=(count, *self.shape))[places]

    def _records(self):
        """The index, a structured array of RECORD; a last record that was cut off is left out."""
        content = self._index.read_bytes() if self._index.exists() else b""
        return np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)

    def _checksum(self, name, content):
        digest = hashlib.blake2b(name, digest_size=NAME_BYTES)
        digest.update(content)
        return digest.digest()

    @contextlib.contextmanager
    def _writing(self, size=0):
        """Within, the system's refusal to write becomes a UserError."""
        try:
            yield
        except OSError as error:
            more = f", {size / 1e6:.0f} MB more are needed" if size else ""
            raise UserError(
                f"The features cannot be written to {self.directory} ({error.strerror}{more}); "
                "make room, or name another directory for them."
            ) from error


def _write_at(path, place, content):
    """Write bytes at a place of a file; they are on disk when this returns."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        file.seek(place)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
