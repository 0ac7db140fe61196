"""An audit of an image set: counts, bad files, duplicates exact and near, conflicting labels.

Near duplicates (the same picture re-encoded, a little brighter, resized or cropped by a pixel) are found in two steps:

1. A 64-bit perceptual hash of each image: grey, averaged down to 32x32, the 8x8 lowest frequencies of its cosine
   transform, each compared with their median (after Zauner 2010, "Implementation and Benchmarking of Perceptual Image
   Hash Functions"). Pairs whose hashes differ in at most `MAX_HASH_DISTANCE` bits are candidates.
2. The candidates' own pixels. A hash holds signs only, and photos of one subject or tiles of one land cover share many
   of them, so most candidates in a large set are false. A pair is kept when its 16x16 grey thumbnails, finer than the
   hash and coarse enough for grain and a pixel's shift, correlate by at least `MIN_CORRELATION`, and their mean grey
   differs by at most `MAX_MEAN_DIFFERENCE`. The thresholds were set by looking at the pairs: of EuroSAT's 719
   candidates the three above 0.96 show one place twice, while below it a few such pairs, shifted more, lie among many
   that only resemble each other; in Terrassa Buildings the pairs above it are one building from nearly one place.

Both steps look at an image's deviations from its mean. In an almost even image (open sea) these are grain and encoding
artefacts, in which every such image resembles every other or none, by chance. Images with a thumbnail contrast below
`MIN_CONTRAST` are therefore compared exactly only; the report counts them.
"""

import collections
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfproject.data.decoding import FORMATS
from tfproject.data.folders import has_image_extension
from tfproject.errors import UserError

MAX_HASH_DISTANCE = 10
MIN_CORRELATION = 0.96
MAX_MEAN_DIFFERENCE = 24  # of 255
MIN_CONTRAST = 2  # standard deviation, of 255
LIST_LIMIT = 1000  # a report's lists end here; its counts do not
TEXT_LIMIT = 10
PAIRS_AT_ONCE = 10_000  # whose pixels are compared; it bounds the memory
PAIR_LIMIT = 100_000  # the search for near duplicates ends here: a set of film frames has a pair for any two of them

_THUMBNAIL = 32
_CHUNK = 512
_CHUNK_PIXELS = _CHUNK * 64 * 64  # of images that are made smaller at a time


def audit(image_set, all_duplicates=False):
    """What is in an image set, and what is wrong with it.

    Args:
        image_set: an ImageSet, before or after splitting.
        all_duplicates: whether the lists of duplicates are whole.

    Returns:
        A dict that goes to JSON as it is:
            name, description, licence, synthetic, split_method, fingerprint;
            images: how many; image_size: [height, width];
            counts: {split: {class: images}}; totals: {class: images}; imbalance_ratio: the largest class by the
            smallest, None where a class is empty;
            bad_images: [{name, reason}] and bad_image_count;
            exact_duplicates: groups (sets of identical images), images (how many could go: all but one of each group),
            across_splits (groups that lie in more than one split), list of [{name, split, class}, ...];
            near_duplicates: pairs, complete (false where there are more than `PAIR_LIMIT`), across_splits,
            too_even_to_compare (images), thresholds, list of {images: [{name, split, class}, {...}], hash_distance,
            correlation}; of identical images only the first is compared;
            conflicting_labels: groups (identical images in different classes), near_pairs, list as above.
        Other lists, and these if not asked to be whole, hold the first `LIST_LIMIT` entries; the closest near pairs
        come first.
    """
    class_names = image_set.class_names
    splits = image_set.splits
    images = [
        {"name": name, "split": split_name, "class": class_names[label]}
        for split_name, split in splits.items()
        for name, label in zip(split.names, split.labels.tolist())
    ]
    counts = {
        split_name: dict(zip(class_names, np.bincount(split.labels, minlength=len(class_names)).tolist()))
        for split_name, split in splits.items()
    }
    totals = {name: sum(of_split[name] for of_split in counts.values()) for name in class_names}
    groups = _exact_groups([digest for split in splits.values() for digest in split.digests])
    exact = [[images[i] for i in group] for group in groups]
    repeated = {i for group in groups for i in group[1:]}
    pairs, too_even = _near_pairs([split.images for split in splits.values()], repeated)
    near = [
        {"images": [images[first], images[second]], "hash_distance": distance, "correlation": round(correlation, 4)}
        for first, second, distance, correlation in pairs
    ]
    exact_conflicts = [group for group in exact if _differ(group, "class")]
    near_conflicts = [pair for pair in near if _differ(pair["images"], "class")]
    smallest = min(totals.values(), default=0)
    limit = None if all_duplicates else LIST_LIMIT
    return {
        "name": image_set.name,
        "description": image_set.origin.description,
        "licence": image_set.origin.licence,
        "synthetic": image_set.origin.synthetic,
        "split_method": image_set.split_method,
        "fingerprint": image_set.fingerprint,
        "images": len(images),
        "image_size": list(image_set.image_shape[:2]),
        "counts": counts,
        "totals": totals,
        "imbalance_ratio": round(max(totals.values()) / smallest, 3) if smallest else None,
        "bad_image_count": len(image_set.bad_images),
        "bad_images": [{"name": bad.name, "reason": bad.reason} for bad in image_set.bad_images[:LIST_LIMIT]],
        "exact_duplicates": {
            "groups": len(exact),
            "images": sum(len(group) - 1 for group in exact),
            "across_splits": sum(_differ(group, "split") for group in exact),
            "list": exact[:limit],
        },
        "near_duplicates": {
            "pairs": len(near),
            "complete": len(near) < PAIR_LIMIT,
            "across_splits": sum(_differ(pair["images"], "split") for pair in near),
            "too_even_to_compare": too_even,
            "thresholds": {
                "max_hash_distance": MAX_HASH_DISTANCE,
                "min_correlation": MIN_CORRELATION,
                "max_mean_difference": MAX_MEAN_DIFFERENCE,
                "min_contrast": MIN_CONTRAST,
            },
            "list": near[:limit],
        },
        "conflicting_labels": {
            "groups": len(exact_conflicts),
            "near_pairs": len(near_conflicts),
            "list": (exact_conflicts + [pair["images"] for pair in near_conflicts])[:LIST_LIMIT],
        },
    }


def audit_files(folder):
    """The files of a folder set as they lie on disk; only their headers are read.

    Args:
        folder: looked through with all its folders, for files whose name ends as an image's does.

    Returns:
        A dict that goes to JSON as it is: files (how many), sizes {"640x480": files}, modes {"RGB": files} and formats
        {"JPEG": files}, each with the most frequent first, and unreadable [{name, reason}].

    Raises:
        UserError: if the folder is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder; give the folder that holds the images.")
    sizes, modes, formats = collections.Counter(), collections.Counter(), collections.Counter()
    unreadable = []
    paths = sorted(path for path in folder.rglob("*") if has_image_extension(path) and not path.is_dir())
    for path in paths:
        try:
            if not path.is_file():  # Opening a named pipe would wait for ever.
                raise OSError("not a regular file")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path, formats=FORMATS) as image:
                    sizes[f"{image.width}x{image.height}"] += 1
                    modes[image.mode] += 1
                    formats[image.format] += 1
        except Exception as error:  # Pillow's readers raise nearly anything on a damaged header.
            unreadable.append({"name": path.relative_to(folder).as_posix(), "reason": _reason(error)})
    return {
        "files": len(paths),
        "sizes": dict(sizes.most_common()),
        "modes": dict(modes.most_common()),
        "formats": dict(formats.most_common()),
        "unreadable": unreadable,
    }


def _reason(error):
    if isinstance(error, UnidentifiedImageError):
        return "not an image (no readable header)"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    return str(error) or type(error).__name__


def to_text(report, most_bad=TEXT_LIMIT):
    """The report as a table and short lists, for a terminal.

    Args:
        report: what `audit` gave; the key "files", if it is there, holds what `audit_files` gave.
        most_bad: bad images to name, `LIST_LIMIT` at most.
    """
    height, width = report["image_size"]
    ratio = report["imbalance_ratio"]
    lines = [
        f"{report['name']}: {report['images']} images of {width}x{height} pixels in {len(report['totals'])} classes",
        f"{report['description']} (licence: {report['licence']})",
        f"splits: {report['split_method']}",
        "",
        *_table(report["counts"], report["totals"]),
        "",
        "largest class / smallest: " + (f"{ratio:.2f}" if ratio else "a class is empty"),
    ]
    if "files" in report:
        lines += files_to_text(report["files"])
    lines.append(f"unreadable or unusable: {report['bad_image_count']}")
    lines += [f"  {bad['name']}: {bad['reason']}" for bad in report["bad_images"][:most_bad]]
    lines += _rest_line(report["bad_image_count"], most_bad)
    exact = report["exact_duplicates"]
    lines.append(
        f"exact duplicates: {exact['images']} images in {exact['groups']} groups,"
        f" {exact['across_splits']} groups across splits"
    )
    lines += [f"  {_places(group)}" for group in exact["list"][:TEXT_LIMIT]] + _rest_line(exact["groups"])
    near = report["near_duplicates"]
    lines.append(
        f"near duplicates: {'' if near['complete'] else 'at least '}{near['pairs']} pairs,"
        f" {near['across_splits']} across splits ({near['too_even_to_compare']} images too even to compare)"
    )
    lines += [
        f"  {_places(pair['images'])}, {pair['hash_distance']} bits apart, correlation {pair['correlation']:.3f}"
        for pair in near["list"][:TEXT_LIMIT]
    ] + _rest_line(near["pairs"])
    conflicts = report["conflicting_labels"]
    lines.append(
        f"conflicting labels: {conflicts['groups']} groups of identical images, {conflicts['near_pairs']} near pairs"
    )
    lines += [f"  {_places(group)}" for group in conflicts["list"][:TEXT_LIMIT]]
    lines += _rest_line(conflicts["groups"] + conflicts["near_pairs"])
    return "\n".join(lines) + "\n"


def files_to_text(files):
    """What `audit_files` gave, as lines of text."""
    lines = [f"files: {files['files']}"]
    for kind in ("sizes", "modes", "formats"):
        shown = [f"{value} ({count})" for value, count in files[kind].items()]
        lines.append(f"  {kind}: " + ", ".join(shown[:TEXT_LIMIT]) + _rest(len(shown)))
    return lines


def _table(counts, totals):
    header = ["class", *counts, "total"]
    columns = [*counts.values(), totals]
    rows = [[name, *(str(column[name]) for column in columns)] for name in totals]
    rows.append(["total", *(str(sum(column.values())) for column in columns)])
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in [header, *rows]
    ]


def _places(images):
    return " = ".join(f"{image['name']} ({image['split']}, {image['class']})" for image in images)


def _rest(count, shown=TEXT_LIMIT):
    return f" and {count - shown} more" if count > shown else ""


def _rest_line(count, shown=TEXT_LIMIT):
    return [f" {_rest(count, shown)}"] if count > shown else []


def _differ(images, key):
    return len({image[key] for image in images}) > 1


def _exact_groups(digests):
    """Lists of the indices of equal digests, where there are two or more."""
    places = collections.defaultdict(list)
    for i, digest in enumerate(digests):
        places[digest].append(i)
    return [group for group in places.values() if len(group) > 1]


def _area_weights(size, target):
    """The matrix that averages `size` pixels into `target` ones by the area that they share, (target, size)."""
    edges = np.arange(target + 1) * size / target
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(shared, 0, None) * target / size).astype(np.float32)


def thumbnails(images):
    """Grey, area-averaged thumbnails.

    Args:
        images: uint8 (n, height, width, 3).

    Returns:
        float32 (n, 32, 32), 0..255.
    """
    rows, columns = (_area_weights(size, _THUMBNAIL) for size in images.shape[1:3])
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    small = np.empty((len(images), _THUMBNAIL, _THUMBNAIL), np.float32)
    count = max(1, _CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), count):
        small[start : start + count] = rows @ (images[start : start + count].astype(np.float32) @ luma) @ columns.T
    return small


def perceptual_hashes(small):
    """The 64-bit perceptual hash of each thumbnail.

    Args:
        small: float32 (n, 32, 32), from `thumbnails`.

    Returns:
        uint64 (n,).
    """
    from scipy.fft import dctn

    lowest = dctn(small, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(small), 64)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _near_pairs(image_arrays, left_out):
    """Pairs of images that show the same, though their pixels differ.

    Args:
        image_arrays: uint8 arrays (n, height, width, 3), numbered through.
        left_out: indices not to compare.

    Returns:
        A list of (first index, second index, bits of hash distance, correlation), the closest first, and the number of
        images that are too even to compare.
    """
    small = np.concatenate([thumbnails(images) for images in image_arrays])
    means, contrasts = small.mean(axis=(1, 2)), small.std(axis=(1, 2))
    too_even = contrasts < MIN_CONTRAST
    compared = np.flatnonzero(~too_even & ~np.isin(np.arange(len(small)), list(left_out)))
    if len(compared) < 2:
        return [], int(np.count_nonzero(too_even))
    hashes = perceptual_hashes(small[compared])
    half = _THUMBNAIL // 2
    coarse = small.reshape(-1, half, 2, half, 2).mean(axis=(2, 4)).reshape(-1, half**2)
    coarse -= means[:, None]
    coarse /= np.maximum(np.linalg.norm(coarse, axis=1, keepdims=True), 1e-6)
    found = []
    for start in range(0, len(compared), _CHUNK):
        if len(found) >= PAIR_LIMIT:
            break
        # Each image is compared with itself and those after it; the chunk bounds the memory at 27,000 images to 125 MB.
        block = np.bitwise_count(hashes[start : start + _CHUNK, None] ^ hashes[None, start:])
        first, second = np.nonzero(np.triu(block <= MAX_HASH_DISTANCE, k=1))
        distances = block[first, second]
        first, second = compared[first + start], compared[second + start]
        for part in range(0, len(first), PAIRS_AT_ONCE):
            if len(found) >= PAIR_LIMIT:
                break
            chosen = slice(part, part + PAIRS_AT_ONCE)
            a, b = first[chosen], second[chosen]
            correlation = np.einsum("ij,ij->i", coarse[a], coarse[b])
            same = (correlation >= MIN_CORRELATION) & (np.abs(means[a] - means[b]) <= MAX_MEAN_DIFFERENCE)
            columns = (a, b, distances[chosen], correlation)
            found += zip(*(column[same].tolist() for column in columns))
    return sorted(found, key=lambda pair: (-pair[3], pair[:2])), int(np.count_nonzero(too_even))
