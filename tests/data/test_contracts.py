"""Every registered source and candidate recipe keeps its contract, because it is registered."""

import pytest

from gensr.data.config import CANDIDATES
from gensr.data.sources.config import SOURCES
from gensr.testing.candidates import CandidatesContract
from gensr.testing.source import SourceContract
from tests.parts import required_options

OURS = {
    kind: [name for name in registry.names() if registry.get(name).__module__.startswith("gensr.")]
    for kind, registry in (("source", SOURCES), ("candidates", CANDIDATES))
}


class TestEverySource(SourceContract):
    @pytest.fixture(autouse=True, params=OURS["source"])
    def _config(self, request, tmp_path):
        options = required_options("source", request.param, None, tmp_path)
        self.chosen = SOURCES.parse({"type": request.param, **options})

    def config(self):
        return self.chosen


class TestEveryCandidateRecipe(CandidatesContract):
    @pytest.fixture(autouse=True, params=OURS["candidates"])
    def _config(self, request):
        self.chosen = CANDIDATES.parse({"type": request.param, "count": 9})

    def config(self):
        return self.chosen
