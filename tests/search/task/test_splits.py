"""The three splits: what a factory may return, how one data set is divided, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from paredown.errors import TaskError
from paredown.evaluators import Split
from paredown.search import Task
from paredown.search.task import DataSection, Splits, load_task_data, sizes
from paredown.search.task import _splits as _data

Load = Callable[..., Splits]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a task whose data factory returns just this."""

    def loaded(found: object, metric: str = "accuracy", **data: Any) -> Splits:
        monkeypatch.setattr(_data, "call", lambda *_, **__: found)
        sections = {"data": {"factory": "d.py:f"} | data, "quality": {"metric": metric}}
        return load_task_data(Task.from_dict(sections, tmp_path))

    return loaded


def rows(start: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` samples of which no two are alike, and targets."""
    return torch.arange(start, start + n).float().unsqueeze(1), torch.zeros(n, dtype=torch.long)


def three() -> dict[str, Any]:
    return {"calibration": rows(0, 4), "search": rows(10, 5), "report": rows(20, 6)}


def refused(load: Load, found: object, *parts: str, **data: Any) -> str:
    with pytest.raises(TaskError) as caught:
        load(found, **data)
    message = str(caught.value)
    assert all(part in message for part in ["data.factory = 'd.py:f'", *parts]), message
    assert "\n" not in message
    return message


class TestThreeSplits:
    def test_by_name_or_in_order(self, load: Load) -> None:
        for found in (three(), tuple(three().values()), list(three().values())):
            splits = load(found)
            assert [len(s) for s in (splits.calibration, splits.search, splits.report)] == [4, 5, 6]
            assert [s.name for s in (splits.calibration, splits.search, splits.report)] == list(_data.NAMES)
            assert splits.dropped == 0

    def test_in_every_shape_that_a_split_may_have(self, load: Load) -> None:
        x, y = rows(20, 6)
        for report in (
            (x, y),
            [x, y],
            (x.numpy(), y.numpy()),
            (x.tolist(), y.tolist()),
            {"inputs": x, "targets": y},
            Split("anything", x, y),
            (list(x), list(y)),
            (np.broadcast_to(x.numpy(), x.shape)[::-1][::-1], y.numpy()),
            TensorDataset(x, y),
        ):
            split = load(three() | {"report": report}).report
            assert isinstance(split.inputs, torch.Tensor)
            assert isinstance(split.targets, torch.Tensor)
            assert torch.equal(split.inputs, x)
            assert torch.equal(split.targets, y)

    def test_several_inputs_and_named_inputs(self, load: Load) -> None:
        x, y = rows(20, 6)
        found = load(three() | {"report": ((x, x), y), "search": ({"a": rows(10, 5)[0]}, torch.zeros(5))})
        assert isinstance(found.report.inputs, tuple)
        assert isinstance(found.search.inputs, dict)

    def test_numbers_become_what_models_take(self, load: Load) -> None:
        images = np.arange(6, dtype=np.float64).reshape(6, 1) + 20
        split = load(three() | {"report": (images, np.zeros(6, dtype=np.uint8))}).report
        assert isinstance(split.inputs, torch.Tensor)
        assert split.inputs.dtype == torch.float32
        assert split.targets is not None
        assert split.targets.dtype == torch.int64
        tokens = np.arange(12, dtype=np.uint16).reshape(6, 2)
        split = load(
            {"calibration": tokens[:1], "search": tokens[1:3], "report": tokens[3:]}, metric="perplexity"
        ).report
        assert isinstance(split.inputs, torch.Tensor)
        assert split.inputs.dtype == torch.int64

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            ({"report": None}, ["inputs of report is None"]),
            ({"report": 3}, ["inputs of report must be a tensor", "got a int"]),
            ({"report": "images"}, ["inputs of report must be a tensor", "got a str"]),
            ({"report": (torch.zeros(0, 1), torch.zeros(0))}, ["report split is empty"]),
            ({"search": (torch.zeros(3, 1), torch.zeros(2))}, ["search split", "inputs 3", "targets 2"]),
            ({"search": (torch.full((2, 1), float("nan")), torch.zeros(2))}, ["inputs of search hold NaN", "sample 0"]),
            ({"search": (torch.zeros(2, 1), torch.zeros(2), 3)}, ["(inputs, targets) for search", "tuple of 3"]),
            ({"search": {"inputs": torch.zeros(2), "labels": torch.zeros(2)}}, ["'labels' beside inputs"]),
            ({"search": ([[1.0], [1.0, 2.0]], [0, 0])}, ["inputs of search cannot be made a tensor"]),
            ({"search": rows(10, 5)[0]}, ["accuracy needs targets", "search split has none"]),
        ],
    )
    def test_what_is_no_split(self, load: Load, change: dict[str, Any], parts: list[str]) -> None:
        refused(load, three() | change, *parts)

    def test_a_missing_or_unknown_split_is_named(self, load: Load) -> None:
        without = three()
        del without["report"]
        refused(load, without, "has no report")
        refused(load, three() | {"test": rows(30, 2)}, "has also test")
        refused(load, None, "None")

    def test_calibration_needs_no_targets(self, load: Load) -> None:
        assert load(three() | {"calibration": rows(0, 4)[0]}).calibration.targets is None


class TestOverlap:
    @pytest.mark.parametrize(
        ("name", "start", "other"),
        [("search", 24, "report"), ("calibration", 22, "report"), ("calibration", 12, "search")],
    )
    def test_it_is_refused_with_how_much_and_where(self, load: Load, name: str, start: int, other: str) -> None:
        found = three() | {name: rows(start, 2)}
        refused(load, found, f"the splits {name} and {other} overlap: 2 of 2 samples", 'data.overlap = "drop"')

    def test_the_place_of_the_first_is_told(self, load: Load) -> None:
        x = torch.tensor([[1.0], [23.0]])
        refused(load, three() | {"search": (x, torch.zeros(2))}, "number 1 of search and 3 of report")

    def test_copies_can_be_dropped_from_the_less_important_split(self, load: Load) -> None:
        found = {"calibration": rows(8, 6), "search": rows(10, 5), "report": rows(14, 6)}
        splits = load(found, overlap="drop")
        values = [s.inputs.flatten().tolist() for s in (splits.calibration, splits.search, splits.report)]  # type: ignore[union-attr]
        assert values == [[8, 9], [10, 11, 12, 13], [14, 15, 16, 17, 18, 19]]
        assert splits.dropped == 5

    def test_nothing_left_is_refused(self, load: Load) -> None:
        refused(load, three() | {"search": rows(20, 3)}, "nothing is left", overlap="drop")

    def test_the_same_input_with_another_target_overlaps_too(self, load: Load) -> None:
        x, y = rows(20, 2)
        refused(load, three() | {"search": (x, y + 1)}, "overlap")


class TestOneDataSet:
    def test_the_default_sizes(self, load: Load) -> None:
        splits = load(rows(0, 1000))
        assert [len(s) for s in (splits.calibration, splits.search, splits.report)] == [128, 436, 436]

    def test_the_sizes_asked_for(self, load: Load) -> None:
        splits = load(rows(0, 100), calibration=10, search=0.3, report=20)
        assert [len(s) for s in (splits.calibration, splits.search, splits.report)] == [10, 30, 20]

    def test_targets_stay_with_their_inputs(self, load: Load) -> None:
        x = torch.arange(50.0).unsqueeze(1)
        splits = load((x, torch.arange(50)))
        for split in (splits.calibration, splits.search, splits.report):
            assert isinstance(split.inputs, torch.Tensor)
            assert split.targets is not None
            assert split.inputs.flatten().tolist() == split.targets.tolist()

    def test_the_seed_decides_and_nothing_else(self, load: Load) -> None:
        before = torch.random.get_rng_state()
        first, again, other = load(rows(0, 60)), load(rows(0, 60)), load(rows(0, 60), seed=1)
        assert first.report.digest == again.report.digest
        assert first.report.digest != other.report.digest
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_copies_are_dropped(self, load: Load) -> None:
        x, y = rows(0, 20)
        splits = load((x.repeat(3, 1), y.repeat(3)))
        assert splits.dropped == 40
        assert len(splits.calibration) + len(splits.search) + len(splits.report) == 20
        kept = [*splits.calibration.sample_digests(), *splits.search.sample_digests(), *splits.report.sample_digests()]
        assert len(set(kept)) == 20

    def test_too_few_for_what_was_asked(self, load: Load) -> None:
        refused(
            load,
            rows(0, 10),
            "10 distinct samples",
            "calibration 5, search 4 and report 3",
            calibration=5,
            search=4,
            report=3,
        )
        refused(load, rows(0, 2), "2 distinct samples are too few")

    def test_inputs_alone_where_the_metric_needs_no_targets(self, load: Load) -> None:
        assert load(rows(0, 20)[0], metric="cosine").report.targets is None

    @given(st.integers(3, 5000))
    def test_the_default_sizes_use_everything(self, n: int) -> None:
        calibration, search, report = sizes(n, DataSection(factory="a:b"))
        assert min(calibration, search, report) >= 1
        assert calibration + search + report == n
        assert calibration <= 128

    @given(
        st.integers(3, 300),
        *[st.none() | st.integers(1, 200) | st.floats(0.01, 0.99) for _ in range(3)],  # type: ignore[arg-type]
    )
    def test_sizes_never_add_up_to_more_than_there_is(self, n: int, a: Any, b: Any, c: Any) -> None:
        section = DataSection(factory="a:b", calibration=a, search=b, report=c)
        try:
            counts = sizes(n, section)
        except TaskError:
            return
        assert sum(counts) <= n
        assert min(counts) >= 1
        for asked, count in zip((a, b, c), counts, strict=True):
            assert not isinstance(asked, int) or count == asked


def test_a_factory_that_raises_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.py").write_text("def f(n):\n    return [1][n]\n")
    task = Task.from_dict({"data": {"factory": "d.py:f", "args": {"n": 5}}}, tmp_path)
    with pytest.raises(TaskError, match=r"data.factory = 'd.py:f' raised IndexError: .*\(d.py line 2\).*\[data.args\]"):
        load_task_data(task)
