import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

import tfproject  # noqa: F401  before any test imports TensorFlow, whose kernels it chooses


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Which tests one of several processes runs together: a file's, as they share fixtures, unless they say another."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing of a test run goes into the user's cache."""
    os.environ["TFPROJECT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def toy_set():
    import toy

    return toy.image_set()
