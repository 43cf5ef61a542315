"""Every registered source, split and candidate recipe keeps its contract, because it is registered."""

import pytest

from gensr.data.config import CANDIDATES, SPLITS
from gensr.data.sources.config import SOURCES
from gensr.testing.candidates import CandidatesContract
from gensr.testing.source import SourceContract
from gensr.testing.split import SplitContract
from tests.parts import required_options

OURS = {
    kind: [name for name in registry.names() if registry.get(name).__module__.startswith("gensr.")]
    for kind, registry in (("source", SOURCES), ("split", SPLITS), ("candidates", CANDIDATES))
}


class TestEverySource(SourceContract):
    @pytest.fixture(autouse=True, params=OURS["source"])
    def _config(self, request, tmp_path):
        options = required_options("source", request.param, None, tmp_path)
        self.chosen = SOURCES.parse({"type": request.param, **options})

    def config(self):
        return self.chosen


class TestEverySplit(SplitContract):
    @pytest.fixture(autouse=True, params=OURS["split"])
    def _config(self, request):
        self.chosen = SPLITS.parse(request.param)

    def config(self):
        return self.chosen


class TestEveryCandidateRecipe(CandidatesContract):
    @pytest.fixture(autouse=True, params=OURS["candidates"])
    def _config(self, request):
        count = {"count": 9} if "count" in CANDIDATES.get(request.param).model_fields else {}
        self.chosen = CANDIDATES.parse({"type": request.param, **count})

    def config(self):
        return self.chosen
