"""Archives from the network: from the first source that has the right file, by its SHA-256, or a quick refusal."""

import contextlib
import glob
import hashlib
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from tfproject.errors import UserError

CHUNK = 1 << 20
TRIES = 3  # of a source that was there and then failed
PASSING = ("no connection", "no data", "broke off", "answered 5")  # how reasons begin that may be gone the next time


class Archive(NamedTuple):
    """What a file must be: its SHA-256 in hex, and its size in bytes."""

    sha256: str
    size: int


class DownloadFailed(Exception):
    """No source delivered the file.

    Attributes:
        attempts: a dict from URL to what went wrong there, in words.
    """

    def __init__(self, attempts):
        super().__init__("; ".join(f"{url}: {reason}" for url, reason in attempts.items()))
        self.attempts = attempts


def data_home():
    """The folder of the user's image sets: $TFPROJECT_DATA, or ~/tfproject-data."""
    return Path(os.environ.get("TFPROJECT_DATA") or Path.home() / "tfproject-data")


def sha256_of(path):
    """A file's SHA-256, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(path, accepted):
    """Checks a file that the user has.

    Args:
        path: the file.
        accepted: the `Archive`s of which it must be one.

    Raises:
        UserError: if it cannot be read, or its checksum is none of theirs.
    """
    try:
        found = sha256_of(path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}).") from error
    expected = list(dict.fromkeys(archive.sha256 for archive in accepted))
    if found not in expected:
        raise UserError(
            f"'{path}' is damaged or another archive: its SHA-256 is {found}, expected is {' or '.join(expected)}; "
            "fetch it anew, or, if you trust it as it is, unpack it and give the folder."
        )


def download(sources, goal, answer_seconds=5, stall_seconds=6):
    """Downloads one archive from the first source that has it.

    All sources are asked at once whether they are there, so that this fails within `answer_seconds` without a network.
    One that was there and then broke off or fell silent is tried again after the others, `TRIES` times in all.
    The file is written beside its goal and moved there after its checksum has been verified.

    Args:
        sources: a dict from URL to the `Archive` it must deliver, in order of preference.
        goal: the path to write.
        answer_seconds: after so long a source that has not begun to answer is given up.
        stall_seconds: after so long without any data a download is given up.

    Returns:
        `goal` as a Path.

    Raises:
        DownloadFailed: if no source delivers the right file.
        UserError: if `goal` cannot be written.
    """
    goal = Path(goal)
    attempts = probe(sources, answer_seconds)
    hopeful = [url for url, reason in attempts.items() if not reason]
    for _ in range(TRIES):
        for url in hopeful:
            attempts[url] = _fetch(url, sources[url], goal, stall_seconds)
            if not attempts[url]:
                return goal
        hopeful = [url for url in hopeful if attempts[url].startswith(PASSING)]
    raise DownloadFailed(attempts)


def probe(sources, seconds=5):
    """Asks every source at once whether it delivers.

    Args:
        sources: as in `download`.
        seconds: how long to wait, in all.

    Returns:
        A dict from URL to what is wrong there, "" where nothing is.
    """
    answers = {}

    def ask(url):
        with _response(url, sources[url], seconds) as (_, reason):
            answers[url] = reason

    # Threads, and not only timeouts: looking up a host's name has no timeout. Daemons: it may outlast the program.
    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in sources]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return {url: answers.get(url, f"no answer within {seconds:g} s") for url in sources}


@contextlib.contextmanager
def _response(url, archive, seconds):
    """Begins a download: (response, "") or (None, what is wrong)."""
    import requests

    try:
        # identity: the checksum is of the file as it lies there, which a server must not compress on the way.
        headers = {"User-Agent": "tfproject", "Accept-Encoding": "identity"}
        response = requests.get(url, stream=True, timeout=(min(3, seconds), seconds), headers=headers)
    except requests.RequestException as error:
        yield None, _in_words(error, seconds)
        return
    with response:
        size = response.headers.get("Content-Length", "")
        if response.status_code != 200:
            yield None, f"answered {response.status_code} {response.reason}"
        elif response.headers.get("Content-Type", "").startswith("text/html"):
            yield None, "delivers a web page instead of the file"
        elif size.isdigit() and int(size) != archive.size:
            yield None, f"offers a file of {int(size):,} bytes, expected are {archive.size:,}"
        else:
            yield response, ""


def _fetch(url, archive, goal, stall_seconds):
    """One download, verified and moved to its goal; returns what went wrong, or ""."""
    import fcntl

    import requests
    from tqdm import tqdm

    part = None
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(goal)
        with (
            _response(url, archive, stall_seconds) as (response, reason),
            tempfile.NamedTemporaryFile(dir=goal.parent, prefix=goal.name, suffix=".part", delete=False) as stream,
            tqdm(total=archive.size, desc=goal.name, unit="B", unit_scale=True, disable=None) as progress,
        ):
            part = Path(stream.name)
            fcntl.flock(stream, fcntl.LOCK_EX)  # held until the process ends, however it ends
            if reason:
                return reason
            digest, received = hashlib.sha256(), 0
            for chunk in response.iter_content(CHUNK):
                received += len(chunk)
                if received > archive.size:
                    return f"delivers more than the expected {archive.size:,} bytes"
                stream.write(chunk)
                digest.update(chunk)
                progress.update(len(chunk))
        if digest.hexdigest() != archive.sha256:
            return f"delivers a file whose SHA-256 is {digest.hexdigest()}, expected is {archive.sha256}"
        os.chmod(part, 0o644)  # Temporary files are made for their owner alone.
        os.replace(part, goal)
        return ""
    except requests.RequestException as error:
        return _in_words(error, stall_seconds)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"'{goal}' cannot be written ({reason}); make room or choose another folder.") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _remove_left_over(goal):
    """Parts of downloads that were interrupted: no process holds them."""
    import fcntl

    for part in goal.parent.glob(f"{glob.escape(goal.name)}*.part"):
        with contextlib.suppress(OSError), open(part, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _in_words(error, seconds):
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate cannot be verified"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection"
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in str(error):
        return f"no data for {seconds:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "IncompleteRead" in str(error):
        return "broke off in the middle"
    return "no connection"
