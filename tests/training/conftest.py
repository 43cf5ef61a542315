"""What the tests of training share."""

import pytest

from tests.toy import registered, toy_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared toy log."""
    folder = tmp_path_factory.mktemp("toy") / "data"
    with registered():
        toy_data(folder)
    return folder
