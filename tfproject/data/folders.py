"""Image sets from a folder or a zip: a folder for each class, or lists of images with their classes.

Two layouts are known, each in a folder or in a zip, at the top or inside one enclosing folder:

    <class>/<image>                      or  train|val|test/<class>/<image>
    annotation.txt + images/<image>      or  train|val|test/annotation.txt + train|val|test/images/<image>

The folders of splits may also be called Training, valid and the like (`SPLIT_FOLDERS`, in any case).

`annotation.txt` has the columns ImageID and ClassID, separated by a tab, with a header; the IDs are file names without
extension.
"""

import functools
import os
import re
import stat
import warnings
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from tfproject.data.decoding import UnreadableImage, decode_images, sizes_in_headers
from tfproject.data.image_set import BadImage, ImageSet, Origin, Split
from tfproject.errors import UserError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
SPLIT_NAMES = ("train", "val", "test")
# What else folders of splits are called, in any case; several of one meaning are refused.
SPLIT_FOLDERS = {name: name for name in SPLIT_NAMES} | {
    "training": "train", "valid": "val", "validation": "val", "testing": "test",
}  # fmt: skip
ANNOTATION = "annotation.txt"
# A member of a zip is read into memory whole; more than this is not an image within decoding.MAX_PIXELS.
MAX_MEMBER_BYTES = 512 * 1024 * 1024
BESIDE = "lies beside the class folders, not in one of them"
HEADERS = 1000  # images, evenly from all of a set, whose sizes are compared before any is decoded
SIZES = 8  # of which an image is decoded, to be sure that they differ


def read_folder(root, name=None, image_size=None):
    """An image set from a folder or a zip, in either of this module's layouts.

    A zip is read where it is, nothing is unpacked. Hidden files and files without an image's extension are passed over;
    every other file that cannot be used is listed in `bad_images`. Of a set without a known name, a warning tells of
    files that are passed over, of folders without any image that can be used, and of an enclosing folder.

    Args:
        root: the folder's or the zip's path.
        name: the image set's name; the folder's if None.
        image_size: (height, width) to bring all images to; None if they have one size, which is then kept.

    Returns:
        An ImageSet with the classes sorted by name. Its splits are those that the layout has, in the order train, val,
        test, or one split "all". Images are sorted by name, a path relative to the set's folder.

    Raises:
        UserError: if there is no such folder or zip, it has neither layout, has no readable image, or its images differ
            in size and no `image_size` is given.
    """
    root = Path(root)
    files, bad, others = _list_files(root)
    files, bad, enclosing = _without_enclosing_folder(files, bad)
    labelled, class_names, bad = _labelled_images(root, files, bad)
    if enclosing and name is None and "all" in labelled:  # of folders of splits it is plain
        warnings.warn(
            f"All images of '{root}' lie in {enclosing}, which is taken for the folder that holds the classes "
            f"({_first(class_names)}); if {enclosing} is a class itself, put its images directly into it.", stacklevel=2
        )  # fmt: skip
    splits, unreadable = _decode_splits(root, files, labelled, class_names, image_size)
    if name is None:
        _warn_of_what_is_missing(root, others, [enclosing + path for part in splits.values() for path in part.names])
    own_name = root.resolve().stem if root.is_file() else root.resolve().name
    return ImageSet(
        name=name or own_name,
        class_names=class_names,
        splits=splits,
        origin=Origin(description=f"images from the {'zip' if root.is_file() else 'folder'} {root.resolve().name}"),
        bad_images=tuple(BadImage(*item) for item in sorted({**bad, **unreadable}.items())),
    )


def has_image_extension(path):
    """Whether a file's name ends as an image's does, in any case."""
    return PurePosixPath(path).suffix.lower() in IMAGE_EXTENSIONS


# Listing: both kinds of root become a dict from relative path to what `decode_images` takes, one of bad files, and a
# set of the other files and of the folders, whose paths end with a slash.


def _list_files(root):
    if root.is_dir():
        return _list_directory(root)
    if not root.exists():
        raise UserError(f"There is no folder or zip '{root}'; give the path of an existing one.")
    if not zipfile.is_zipfile(root):
        raise UserError(f"'{root}' is neither a folder nor a zip; give the path of a folder or zip of images.")
    return _list_zip(root)


def _list_directory(root):
    files, bad, others = {}, {}, set()
    inside = os.path.realpath(root)

    def refuse(error):
        bad[os.path.relpath(error.filename, root)] = f"cannot be opened: {error.strerror}"

    for directory, folders, names in os.walk(root, onerror=refuse):
        relative = "" if directory == str(root) else Path(directory).relative_to(root).as_posix() + "/"
        for folder in list(folders):
            if folder.startswith("."):
                folders.remove(folder)
            elif os.path.islink(os.path.join(directory, folder)):
                folders.remove(folder)
                bad[relative + folder] = "a link to a folder; links to folders are not followed"
        others.update(f"{relative}{folder}/" for folder in folders)
        for file in names:
            path = os.path.join(directory, file)
            if file.startswith("."):
                continue
            if not (has_image_extension(file) or file == ANNOTATION):
                others.add(relative + file)
            elif os.path.islink(path) and os.path.commonpath([inside, os.path.realpath(path)]) != inside:
                bad[relative + file] = "a link that leads out of the folder"
            else:
                files[relative + file] = path
    return files, bad, others


def _list_zip(root):
    files, bad, others = {}, {}, set()
    try:
        archive = zipfile.ZipFile(root)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"The zip '{root}' cannot be read ({error}); fetch or pack it anew.") from error
    for member in archive.infolist():
        path = member.filename
        *folders, file = path.replace("\\", "/").split("/")
        if any(part.startswith(".") and part != ".." for part in (*folders, file)) or "__MACOSX" in folders:
            continue
        if not _leads_out(path):
            others.update("/".join(folders[:depth]) + "/" for depth in range(1, len(folders) + 1))
        if not (has_image_extension(file) or file == ANNOTATION):
            others.add(path)
        elif _leads_out(path):
            bad[path] = "a path that leads out of the folder"
        elif stat.S_ISLNK(member.external_attr >> 16):
            bad[path] = "a link; links in a zip are not followed"
        elif member.file_size > MAX_MEMBER_BYTES:
            bad[path] = f"too large: {member.file_size:,} bytes unpacked"
        elif path in files or path in bad:
            files.pop(path, None)
            bad[path] = "more than once in the zip"
        else:
            files[path] = functools.partial(_read_member, archive, member)
    return files, bad, others


def _read_member(archive, member):
    try:
        return archive.read(member)
    except Exception as error:  # zipfile passes on what the decompressors raise, and RuntimeError for a password.
        raise UnreadableImage(f"cannot be unpacked: {error}") from error


def _leads_out(path):
    path = path.replace("\\", "/")
    return path.startswith("/") or ".." in path.split("/") or re.match(r"[A-Za-z]:", path) is not None


def _without_enclosing_folder(files, bad):
    """Goes down while everything lies in one folder that is no class, as in EuroSAT's zip in `2750/`.

    Returns:
        (files, bad, the folder's path with a slash at its end; empty if there is none).
    """
    enclosing = ""
    while True:
        inner = [path for path in files if "/" in path]
        tops = {path.split("/")[0] for path in inner}
        holds_folders = all(path.count("/") >= 2 or path.endswith("/" + ANNOTATION) for path in inner)
        if len(tops) != 1 or not holds_folders or _split_of(*tops) or ANNOTATION in files:
            return files, bad, enclosing
        start = len(top := tops.pop()) + 1
        enclosing += f"{top}/"
        bad = {(path[start:] if path.startswith(inner[0][:start]) else path): reason for path, reason in bad.items()}
        bad.update((path, BESIDE) for path in files if path not in inner)
        files = {path[start:]: files[path] for path in inner}


def _warn_of_what_is_missing(root, others, used):
    """A warning of files that are passed over for their extension, and of folders of which no image is used."""
    holding = {""}
    for folder in {path.rpartition("/")[0] for path in used}:
        parts = folder.split("/")
        holding.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    empty = sorted(
        path[:-1] for path in others
        if path.endswith("/") and path[:-1] not in holding and path[:-1].rpartition("/")[0] in holding
    )  # fmt: skip
    files = [path for path in others if "/" in path and not path.endswith("/")]  # beside the folders: notes, licences
    told = []
    if files:
        endings = sorted({PurePosixPath(path).suffix.lower() or "none" for path in files})
        told.append(f"files are passed over for what their names end with ({len(files):,}: {_first(endings)})")
    if empty:
        told.append(f"no image can be used of the folder{'s' * (len(empty) > 1)} {_first(empty)}")
    if told:
        warnings.warn(f"In '{root}' {', and '.join(told)}.", stacklevel=3)


def _first(names):
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)


# Layouts: from the files to {split: [(path, class name)]} and more bad files.


def _labelled_images(root, files, bad):
    """Finds the layout.

    Returns:
        ({split: sorted [(path, class name)]}, class names, bad).
    """
    images = sorted(path for path in files if has_image_extension(path))
    tops = sorted({path.split("/")[0] for path in files if "/" in path}, key=lambda top: (_order(top), top))
    annotated = [f"{top}/" for top in tops if _split_of(top) and f"{top}/{ANNOTATION}" in files]
    if ANNOTATION in files:
        annotated = [""]
    if annotated:
        labelled, bad = _by_annotation(root, files, images, bad, annotated)
    else:
        labelled, bad = _by_class_folder(root, images, bad, _split_folders(images, tops) or [""])
    if not any(labelled.values()):
        first = next((f" (of what cannot be used the first is {path}, {why})" for path, why in sorted(bad.items())), "")
        raise UserError(
            f"'{root}' holds no images in a known layout{first}: expected is a folder for each class with its images "
            f"in it, or {ANNOTATION} beside images/, either of them at the top or in train/, val/ and test/."
        )
    # Without train, as of images that are there to be tested on alone, the classes come from what there is.
    whence = [labelled["train"]] if "train" in labelled else labelled.values()
    class_names = tuple(sorted({class_name for rows in whence for _, class_name in rows}))
    known = set(class_names)
    for split, rows in labelled.items():
        unknown = {path: f"an unknown class: train has no '{name}'" for path, name in rows if name not in known}
        labelled[split] = sorted(row for row in rows if row[0] not in unknown)
        bad = {**bad, **unknown}
    return labelled, class_names, bad


def _split_of(folder):
    """The split that a folder's name means; None if it means none."""
    return SPLIT_FOLDERS.get(folder.lower())


def _order(folder):
    split = _split_of(folder)
    return SPLIT_NAMES.index(split) if split else len(SPLIT_NAMES)


def _split_folders(images, tops):
    """train/, val/ and test/ where most of their images are in folders; with most directly inside they are classes."""
    depths = {f"{top}/": [p.count("/") for p in images if p.startswith(f"{top}/")] for top in tops if _split_of(top)}
    return [prefix for prefix, found in depths.items() if 2 * sum(depth >= 2 for depth in found) > len(found)]


def _named_splits(root, prefixes):
    """{prefix: split}, "all" for that of the top."""
    named = {prefix: _split_of(prefix.rstrip("/")) or "all" for prefix in prefixes}
    for split in set(named.values()):
        same = [prefix for prefix, own in named.items() if own == split]
        if len(same) > 1:
            raise UserError(f"'{root}' has {' and '.join(same)}, which all mean {split}; keep one of them.")
    return named


def _by_class_folder(root, images, bad, prefixes):
    named = _named_splits(root, prefixes)
    labelled = {split: [] for split in named.values()}
    bad = dict(bad)
    for path in images:
        prefix = next((prefix for prefix in prefixes if path.startswith(prefix)), None)
        if prefix is None or "/" not in path[len(prefix) :]:
            bad[path] = BESIDE
        else:
            labelled[named[prefix]].append((path, path[len(prefix) :].split("/")[0]))
    return labelled, bad


def _by_annotation(root, files, images, bad, prefixes):
    labelled, bad = {}, dict(bad)
    for prefix, split in _named_splits(root, prefixes).items():
        labelled[split], found = _read_annotation(root, prefix, files, images, bad)
        bad.update(found)
    folders = tuple(f"{prefix}images/" for prefix in prefixes)
    bad.update((path, f"lies in none of {', '.join(folders)}") for path in images if not path.startswith(folders))
    return labelled, bad


def _read_annotation(root, prefix, files, images, bad):
    """The rows (path, class name) of one annotation.txt, and what of it cannot be used."""
    lines = _annotation_lines(root, prefix, files)
    folder = f"{prefix}images/"
    by_id = {}
    for path in dict.fromkeys([*images, *bad]):
        if path.startswith(folder):
            by_id.setdefault(path[len(folder) :].rsplit(".", 1)[0], []).append(path)
    if not by_id:
        raise UserError(f"'{root}' has {prefix}{ANNOTATION} but no images in {folder}; put the images it lists there.")

    classes, found_bad = {}, {}
    for number, line in enumerate(lines[1:], start=2):
        row = f"{prefix}{ANNOTATION}, line {number}"
        columns = [column.strip() for column in line.split("\t")]
        if not line.strip():
            found_bad[row] = "an empty line"
        elif len(columns) != 2 or not all(columns):
            found_bad[row] = f"not two columns separated by a tab: {line[:60]!r}"
        elif _leads_out(columns[0]):
            found_bad[row] = f"the ID '{columns[0][:60]}' is a path that leads out of the folder"
        elif columns[0] not in by_id:
            found_bad[row] = f"no file in {folder} for the ID '{columns[0][:60]}'"
        else:
            classes.setdefault(columns[0], []).append(columns[1])

    rows = []
    for image_id, named in classes.items():
        paths = by_id[image_id]
        if len(set(named)) > 1:
            found_bad[paths[0]] = f"conflicting classes in {ANNOTATION}: {', '.join(sorted(set(named)))}"
        elif len(paths) > 1:
            found_bad.update((path, f"several files for the ID '{image_id}'") for path in paths)
        elif paths[0] not in bad:
            rows.append((paths[0], named[0]))
    unnamed = [path for image_id, paths in by_id.items() if image_id not in classes for path in paths]
    reason = f"not named in {ANNOTATION}, so its class is not known"
    found_bad.update((path, reason) for path in unnamed if path not in bad)
    return rows, found_bad


def _annotation_lines(root, prefix, files):
    where = f"'{root}' has a {prefix}{ANNOTATION} that"
    expected = "expected is the header ImageID<TAB>ClassID and such rows below it"
    source = files[prefix + ANNOTATION]
    try:
        text = (source() if callable(source) else Path(source).read_bytes()).decode("utf-8-sig")
    except (OSError, UnreadableImage) as error:
        raise UserError(f"{where} cannot be read ({error}); {expected}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text; {expected}.") from error
    lines = text.removesuffix("\n").split("\n")
    if [column.strip().lower() for column in lines[0].split("\t")] != ["imageid", "classid"]:
        raise UserError(f"{where} begins with {lines[0][:60]!r}; {expected}.")
    return lines


def _decode_splits(root, files, labelled, class_names, image_size):
    splits, unreadable, shapes = {}, {}, set()
    label_of = {name: label for label, name in enumerate(class_names)}
    if image_size is None:
        _check_sizes(root, [files[path] for rows in labelled.values() for path, _ in rows])
    for split, rows in labelled.items():
        images, bad = decode_images([files[path] for path, _ in rows], image_size)
        unreadable.update((rows[i][0], reason) for i, reason in bad.items())
        good = [row for i, row in enumerate(rows) if i not in bad]
        if not good:
            first = f"; the first of {len(bad)} is {rows[0][0]}, {bad[0]}" if bad else ""
            raise UserError(f"'{root}' has no image in its split '{split}' that can be used{first}.")
        shapes.update(image.shape for image in images[: len(images) if image_size is None else 1])
        if len(shapes) > 1:
            raise _differ_in_size(root, shapes)
        labels = np.array([label_of[class_name] for _, class_name in good], dtype=np.int64)
        splits[split] = Split(np.asarray(images), labels, tuple(path for path, _ in good))
    return splits, unreadable


def _check_sizes(root, sources):
    """Refuse images of several sizes before all are decoded: a folder of photos would fill the memory.

    A header alone proves nothing, as the image may be damaged, so the first of each size is decoded.
    """
    sources = sources[:: -(-len(sources) // HEADERS) or 1]
    first = {}
    for source, size in zip(sources, sizes_in_headers(sources)):
        first.setdefault(size, source)
    if len(first) > 1:
        shapes = {image.shape for image in decode_images(list(first.values())[:SIZES])[0]}
        if len(shapes) > 1:
            raise _differ_in_size(root, shapes)


def _differ_in_size(root, shapes):
    some = " and ".join(f"{height}x{width}" for height, width, _ in sorted(shapes)[:2])
    return UserError(
        f"The images of '{root}' differ in size, such as {some} (height x width); "
        "give an image_size (`--image-size`) to bring them to."
    )
