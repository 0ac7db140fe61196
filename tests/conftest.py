import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

import tfproject  # noqa: F401  before any test imports TensorFlow, whose kernels it chooses


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing of a test run goes into the user's cache."""
    os.environ["TFPROJECT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def toy_set():
    import toy

    return toy.image_set()
