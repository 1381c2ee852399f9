"""The whole suite of a store."""

from __future__ import annotations

import pytest

from asya_proxy.testing.conditions import ConditionCases
from asya_proxy.testing.contents import ContentCases
from asya_proxy.testing.fixtures import StoreFactory
from asya_proxy.testing.listings import ListingCases
from asya_proxy.testing.machine import run_machine
from asya_proxy.testing.optional import AppendCases, AttributeCases, CopyCases, RenameCases, TreeCases
from asya_proxy.testing.repeats import RepeatCases


class StoreSuite(
    ContentCases,
    ListingCases,
    ConditionCases,
    RepeatCases,
    TreeCases,
    AppendCases,
    RenameCases,
    CopyCases,
    AttributeCases,
):
    """Derive from it and supply the fixture `store_factory`; see `asya_proxy.testing`."""

    EXAMPLES = 12
    STEPS = 25

    def test_against_a_dict(self, store_factory: StoreFactory) -> None:
        """Random walks of operations, compared with a dict after each."""
        run_machine(store_factory, examples=self.EXAMPLES, steps=self.STEPS)

    @pytest.mark.soak
    @pytest.mark.timeout(1800)
    def test_against_a_dict_for_long(self, store_factory: StoreFactory) -> None:
        run_machine(store_factory, examples=150, steps=60)
