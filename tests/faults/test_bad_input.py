"""Images and sets that strangers made: never a traceback, a hang, a wrong answer in silence, or all the memory."""

import dataclasses
import io
import json
import os
import random
import resource
import signal
import tarfile
import time
import warnings
import zipfile
import zlib

import keras
import numpy as np
import pytest
import toy
import victims
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tfproject import data, evaluation, training
from tfproject.data import audit, folders, splits
from tfproject.data.decoding import UnreadableImage, decode_image
from tfproject.errors import UserError
from tfproject.models import saved_models
from tfproject.training import Recipe, Run

SIZE = (16, 16)
KINDS = {"png": "PNG", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "jpg": "JPEG"}
SECONDS = 20  # for any one input
FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture(autouse=True)
def never_a_hang():
    def hangs(*_):
        raise AssertionError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS * 10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def encoded(kind, seed=0, size=(24, 20)):
    """A picture (bytes of a file) and its pixels as a whole file gives them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, KINDS[kind], **({"lossless": True} if kind == "webp" else {}))
    return buffer.getvalue(), np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))


def one_sentence(text):
    return bool(text) and "\n" not in text and "Traceback" not in text


def refusal_or(function, *arguments, **options):
    """(what a function gives, "") or (None, the sentence with which it refuses)."""
    try:
        return function(*arguments, **options), ""
    except UserError as error:
        return None, str(error)


# Images


def damaged_images(count, seed):
    """(kind, what was done, content, the pixels it must have if it is taken for whole, or None where any may be)."""
    chosen = random.Random(seed)
    for number in range(count):
        kind = chosen.choice(list(KINDS))
        content, pixels = encoded(kind, number)
        done = chosen.choice(("truncated", "flipped", "overwritten", "middle cut out", "filled up"))
        at = chosen.randrange(len(content))
        if done == "truncated":
            yield kind, done, content[:at], pixels
        elif done == "flipped":
            flipped = bytearray(content)
            flipped[at] ^= 1 << chosen.randrange(8)
            # Only PNG has checksums: a JPEG or BMP with another byte is simply another picture.
            yield kind, done, bytes(flipped), pixels if kind == "png" else None
        elif done == "overwritten":
            spoilt = content[:at] + chosen.randbytes(8) + content[at + 8 :]
            yield kind, done, spoilt, pixels if kind == "png" else None
        elif done == "middle cut out":
            yield kind, done, content[: at // 2] + content[at:], pixels if kind == "png" else None
        else:
            yield kind, done, content + chosen.randbytes(40), pixels


def assert_images_right(tally, count, seed):
    for kind, done, content, expected in damaged_images(count, seed):
        start = time.monotonic()
        try:
            image, reason = decode_image(content), ""
        except UnreadableImage as error:
            image, reason = None, error.reason
        right = bool(reason) if image is None else image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        if image is not None and expected is not None:
            right = right and image.shape == expected.shape and bool((image == expected).all())
        in_time = time.monotonic() - start < SECONDS
        tally.assert_right(right and in_time, f"{kind} {done}: {len(content)} bytes: {reason}")


def test_damaged_images_are_refused_or_read_right(tally):
    assert_images_right(tally, 400, seed=1)


@pytest.mark.long
def test_many_damaged_images_are_refused_or_read_right(tally):
    assert_images_right(tally, 20_000, seed=2)


# Sets


def hostile_names():
    return [
        "new\nline", "tab\tin", "quote\"'", "ŝaŭmo", "衛星画像", "صورة", "🛰️", "a" * 200, " spaces ", "-dash", "%s%n",
        "back\\slash", "<b>html", "\u202eright to left", os.fsdecode(b"invalid-\xff"), "..hidden", "e\u0301",
    ]  # fmt: skip


def write_set(root, seed):
    """A folder with all kinds of damage, and what can be right: {path: (class, pixels)}."""
    chosen, right = random.Random(seed), {}
    names = chosen.sample(hostile_names(), chosen.randint(1, 5))
    for class_name in names:
        folder = root / class_name
        folder.mkdir()
        for number in range(chosen.randint(0, 6)):
            name = chosen.choice(["", chosen.choice(hostile_names())[:40].replace("\\", "")]).lstrip(".") + f"{number}"
            content, pixels = encoded("png", seed * 100 + number)
            kind = chosen.choice("whole whole whole cut empty text folder link out pipe bomb".split())
            path = folder / f"{name}.png"
            relative = f"{class_name}/{name}.png"
            if kind == "whole":
                path.write_bytes(content)
                if not class_name.startswith("."):  # what is hidden is passed over
                    right[relative] = class_name, pixels
            elif kind == "cut":
                path.write_bytes(content[: chosen.randrange(len(content) - 20)])
            elif kind == "empty":
                path.touch()
            elif kind == "text":
                path.write_text("not a picture")
            elif kind == "folder":
                path.mkdir()
            elif kind == "link":
                path.symlink_to(path.name)
            elif kind == "out":
                path.symlink_to("/etc/hostname")
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                header = bytearray(content[:33])
                header[16:24] = b"\x00\x01\x00\x00" * 2  # 65,536 x 65,536
                path.write_bytes(bytes(header) + content[33:])
    return right


def judge_set(tally, path, right, told):
    """Load, and audit what was loaded: what came is refused in a sentence, or exactly the right images and classes."""
    found, sentence = refusal_or(read, str(path))
    if found is None:
        several = len({pixels.shape for _, pixels in right.values()}) > 1
        tally.assert_right(one_sentence(_shown(sentence)) and (not right or several), f"{told}: {sentence}")
        return None
    split = found.splits["all"]
    exact = set(split.names) <= set(right)
    for image, label, name in zip(split.images, split.labels, split.names):
        exact = exact and name in right and right[name][0] == found.class_names[label]
        exact = exact and bool((image == right[name][1]).all())
    missing = set(right) - set(split.names) - {bad.name for bad in found.bad_images}
    report = audit.audit(found)
    json.dumps(report)
    audit.to_text(report)
    tally.assert_right(exact and not missing and report["images"] == len(split), f"{told}: {sorted(missing)[:3]}")
    return found


def read(path):
    from tfproject.data import catalog

    return catalog.read(path)


def _shown(sentence):
    return sentence.replace("new\nline", "").replace("\n", "\\n") if "new\nline" in sentence else sentence


def assert_sets_right(tally, tmp_path, seeds):
    for seed in seeds:
        root = tmp_path / f"set-{seed}"
        root.mkdir()
        judge_set(tally, root, write_set(root, seed), f"set {seed}")


def test_sets_with_damage_and_names_of_all_kinds(tally, tmp_path):
    assert_sets_right(tally, tmp_path, range(15))


@pytest.mark.long
def test_many_sets_with_damage_and_names_of_all_kinds(tally, tmp_path):
    assert_sets_right(tally, tmp_path, range(15, 220))


def zip_of(path, members):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # names that come twice
        for name, content in members:
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "member", ["../out.png", "/etc/out.png", "a/../../out.png", "..\\out.png", "C:\\out.png", "a/\0out.png", "a//b.png"]
)
def test_members_that_lead_out_write_nothing_and_are_listed(tally, tmp_path, member):
    (tmp_path / "in").mkdir()
    content, pixels = encoded("png")
    zip_of(tmp_path / "in" / "set.zip", [("a/1.png", content), ("b/2.png", content), (member, content)])
    before = sorted(tmp_path.rglob("*"))
    found, _ = refusal_or(read, str(tmp_path / "in" / "set.zip"))
    names = found.splits["all"].names
    outside = any(".." in name or name.startswith("/") for name in names)
    tally.assert_right({"a/1.png", "b/2.png"} <= set(names) and not outside, names)
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_zips_are_refused_or_read_right(tally, tmp_path):
    chosen = random.Random(5)
    pictures = {f"{c}/{i}.png": (c, *encoded("png", i)) for i, c in enumerate("aabbcc")}
    path, whole = tmp_path / "set.zip", tmp_path / "whole.zip"
    zip_of(whole, [(name, content) for name, (_, content, _) in pictures.items()])
    right = {name: (class_name, pixels) for name, (class_name, _, pixels) in pictures.items()}
    for number in range(120):
        content = bytearray(whole.read_bytes())
        at = chosen.randrange(len(content))
        if number % 2:
            content = content[:at]
        else:
            content[at] ^= 1 << chosen.randrange(8)
        path.write_bytes(content)
        found, sentence = refusal_or(read, str(path))
        if found is None:
            tally.assert_right(one_sentence(sentence), sentence)
            continue
        split = found.splits["all"]
        # A name in the zip's list has no checksum: an image may be called otherwise, but it is that image.
        known = [pixels for _, pixels in right.values()]
        same = all(any((image == pixels).all() for pixels in known) for image in split.images)
        tally.assert_right(same and all(n not in right or right[n][0] == found.class_names[c]
                                  for n, c in zip(split.names, split.labels)), f"zip {number}")  # fmt: skip


def test_a_tar_with_links_is_no_set_and_nothing_is_unpacked(tally, tmp_path):
    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, link in (("a/1.png", "/etc/passwd"), ("../../out.png", "")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
            archive.addfile(member)
    for name in (str(path), "cifar10"):
        options = {"data_dir": path} if name == "cifar10" else {}
        found, sentence = refusal_or(data.load, name, **options)
        tally.assert_right(found is None and one_sentence(sentence), sentence)
    assert [each.name for each in tmp_path.iterdir()] == ["set.tar.gz"]


def write_classes(root, counts):
    for class_name, count in counts.items():
        (root / class_name).mkdir(parents=True)
        for number in range(count):
            content, _ = encoded("png", zlib.crc32(f"{class_name}{number}".encode()), SIZE)
            (root / class_name / f"{number}.png").write_bytes(content)


@pytest.mark.parametrize(
    "counts", [{}, {"one": 1}, {"one": 12}, {"a": 0, "b": 0}, {"a": 12, "b": 0}, {"a": 12, "b": 1}, {"a": 12, "b": 12}]
)
def test_few_images_and_classes_go_through_training_or_are_refused(tally, tmp_path, counts):
    (tmp_path / "set").mkdir()
    write_classes(tmp_path / "set", counts)

    def train():
        images = data.load(str(tmp_path / "set"))
        recipe = dataclasses.replace(victims.RECIPE, epochs=1, batch_size=4, augment=())
        run = training.fit(toy.network, images, recipe, tmp_path / "run", progress=False)
        return evaluation.evaluate(run.model, images.test, images.class_names)

    scores, sentence = refusal_or(train)
    tally.assert_right(0 <= scores.accuracy <= 1 if scores else one_sentence(sentence), sentence)
    assert (scores is not None) == (counts in ({"one": 12}, {"a": 12, "b": 0}, {"a": 12, "b": 12}))


@pytest.mark.long
def test_a_hundred_thousand_classes(tally, tmp_path):
    content, _ = encoded("png", size=(2, 2))
    members = [(f"{split}/class-{i:06d}/{split}.png", content) for i in range(100_000) for split in ("train", "test")]
    zip_of(tmp_path / "set.zip", members)
    start = time.monotonic()
    found, sentence = refusal_or(read, str(tmp_path / "set.zip"))
    assert time.monotonic() - start < 120
    tally.assert_right(len(found.class_names) == 100_000 and found.splits["train"].labels[-1] == 99_999, sentence)
    found, sentence = refusal_or(data.load, str(tmp_path / "set.zip"))
    tally.assert_right(found is None and one_sentence(sentence) and "too few" in sentence, sentence)


# Prediction


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    return saved_models.load(saved_models.save(toy.network((*SIZE, 3), 3), path, ("red", "green", "blue")))


def test_predict_answers_for_what_is_whole_and_lists_the_rest(tally, tmp_path, model):
    (tmp_path / "set").mkdir()
    right = {str(tmp_path / "set" / name): pixels for name, (_, pixels) in write_set(tmp_path / "set", 77).items()}
    chosen = [path for path in (tmp_path / "set").rglob("*.png")]
    got = evaluation.predict_files(model, chosen, batch_size=4)
    for name, probabilities in zip(got.names, got.probabilities):
        image = np.asarray(Image.fromarray(right[name]).resize(SIZE, Image.Resampling.BILINEAR))
        expected = model.model(image[None].astype("float32"), training=False).numpy()[0]
        tally.assert_right(bool(np.allclose(probabilities, expected, atol=1e-5)), name)
    assert set(right) <= set(got.names) and set(map(str, chosen)) == {*got.names, *(bad.name for bad in got.bad)}
    assert all(one_sentence(bad.reason) for bad in got.bad)
    assert got.to_text().count("\n") == len(chosen) + bool(got.names) + 2 * bool(got.bad) - 1 - (not got.names)
    got.to_csv(tmp_path / "table.csv")
    got.to_json(tmp_path / "table.json")
    assert len(json.loads((tmp_path / "table.json").read_text())["predictions"]) == len(got)


def decode_bombs(directory):
    """A process that may take little memory reads images that would fill it."""
    content, _ = encoded("png")
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 3 * 2**29, taken + 3 * 2**29))
    for width, height in ((2**31 - 1, 2**31 - 1), (65_536, 65_536), (100_001, 1000), (1, 2**31 - 1), (0, 0)):
        header = content[:16] + width.to_bytes(4) + height.to_bytes(4) + content[24:]
        for spoilt in (header, header[:29] + zlib.crc32(header[12:29]).to_bytes(4) + header[33:]):
            try:
                decode_image(spoilt)
            except UnreadableImage:
                continue
            return 1


def test_huge_dimensions_are_refused_in_little_memory(child, tally, tmp_path):
    process = child(decode_bombs, tmp_path / "bombs")
    tally.assert_right(process.end() == 0, process.said)


# Parsers: whatever text they are given

words = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["1", "a", "../x", "/x", "", " "])
lines = st.lists(st.lists(words, max_size=4).map("\t".join), max_size=12).map("\n".join)
contents = st.one_of(
    lines.map(lambda text: ("ImageID\tClassID\n" + text).encode()), lines.map(str.encode), st.binary(max_size=80)
)


@FUZZ
@given(contents)
def test_any_annotation_file_is_read_right_or_refused(tally, tmp_path_factory, content):
    root = tmp_path_factory.mktemp("set")
    (root / "images").mkdir()
    picture, _ = encoded("png")
    for name in ("1", "a"):
        (root / "images" / f"{name}.png").write_bytes(picture)
    (root / "annotation.txt").write_bytes(content)
    found, sentence = refusal_or(folders.read_folder, root)
    if found is None:
        tally.assert_right(bool(sentence) and "Traceback" not in sentence, sentence)
        return
    rows = [line.split("\t") for line in content.decode("utf-8-sig").split("\n")[1:]]
    said = {}
    for row in rows:
        if len(row) == 2:
            said.setdefault(row[0].strip(), set()).add(row[1].strip())
    split = found.splits["all"]
    tally.assert_right(
        all(said[name[7:-4]] == {found.class_names[label]} for name, label in zip(split.names, split.labels)), content
    )


@FUZZ
@given(st.tuples(*[st.lists(st.sampled_from([f"{s}_{i}.png" for s in ("train", "val") for i in range(4)]) | words,
                            max_size=8).map("\n".join).map(str.encode) | st.binary(max_size=40)] * 3))  # fmt: skip
def test_any_split_list_is_followed_or_refused(tally, toy_set, tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("lists")
    for name, content in zip(splits.NAMES, contents):
        (folder / f"x-{name}.txt").write_bytes(content)
    found, sentence = refusal_or(splits.from_files, toy_set, folder)
    if found is None:
        tally.assert_right(bool(sentence) and "Traceback" not in sentence, sentence)
        return
    for name, content in zip(splits.NAMES, contents):
        expected = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        tally.assert_right(list(found.splits[name].names) == expected, content)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6,
)  # fmt: skip
fields = st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Recipe)]) | words, values, max_size=5)


@FUZZ
@given(fields | values)
def test_any_recipe_is_taken_whole_or_refused(tally, content):
    recipe, sentence = refusal_or(Recipe.from_json, content)
    if recipe is None:
        tally.assert_right(one_sentence(sentence.replace("\n", " ")), sentence)
    else:  # what is taken is what was said, and goes to JSON and back
        again = json.loads(json.dumps(recipe.to_json()))
        same = Recipe.from_json(again) == recipe
        said = {name: value for name, value in content.items() if name in again and name != "layer_rates"}
        tally.assert_right(same and all(again[name] == value for name, value in said.items()), content)


@FUZZ
@given(st.binary(max_size=60) | values.map(lambda v: json.dumps(v).encode()), st.sampled_from(["recipe", "metrics"]))
def test_any_run_directory_goes_on_or_is_refused(tally, toy_set, tmp_path_factory, content, name):
    directory = tmp_path_factory.mktemp("run")
    (directory / f"{name}.json").write_bytes(content)
    run = Run(directory)

    def look():
        return dict(run.metrics)

    def question():
        return run.answers(Recipe(), "another set")

    if name == "recipe":
        for read in (question, lambda: run.recipe):
            found, sentence = refusal_or(read)
            tally.assert_right(
                found is False or isinstance(found, Recipe) or one_sentence(sentence.replace("\n", " ")), content
            )
        return
    found, sentence = refusal_or(look)
    tally.assert_right(isinstance(found, dict) or one_sentence(sentence.replace("\n", " ")), content)


def test_a_run_directory_with_spoilt_files_goes_on_or_is_refused(tally, toy_set, tmp_path):
    chosen = random.Random(9)
    recipe = dataclasses.replace(victims.RECIPE, epochs=1, augment=())
    whole = training.fit(toy.network, toy_set, recipe, tmp_path / "whole", progress=False)
    expected = victims.result(whole.directory)
    expected_numbers = whole.model.count_params(), whole.metrics["training"], whole.history["loss"]
    import shutil

    spoilt = ["recipe.json", "metrics.json", "model.keras", "history.csv", "checkpoints/epoch-0001.npz"]
    for number, name in enumerate(spoilt * 2):
        directory = tmp_path / f"{number}"
        shutil.copytree(whole.directory, directory)
        path = directory / name
        content = bytearray(path.read_bytes())
        content = content[: chosen.randrange(1, len(content) - 2)] if number % 2 else b"\0" + chosen.randbytes(30)
        path.write_bytes(content)

        def go_on():
            run = training.fit(toy.network, toy_set, recipe, directory, progress=False)
            return run.model.count_params(), run.metrics["training"], run.history["loss"]

        found, sentence = refusal_or(go_on)
        said = found == expected_numbers or (found is None and one_sentence(sentence))
        tally.assert_right(said, f"{name}: {found} {sentence}")
        if found and name.startswith("checkpoints"):
            tally.result(victims.result(directory), expected)


