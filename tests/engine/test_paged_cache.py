"""The paged cache gives attention the keys and values of the dense one, bit for bit, whatever happens to its rows; and
whole runs decide, and record, the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.architectures import save_tiny
from support.called import specscope
from support.recorded_runs import IDS, TALKS, TinyRuns
from support.tiny_models import HIDDEN, VOCAB
from support.traced import record
from support.traces import Lines, load

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.commit import RowCustody, commit_step, prefix_sums
from specscope.engine.cache.paged import PagedCache
from specscope.engine.drafters.early_exit.head import ExitHead, ExitHeadConfig, save_exit_head
from specscope.engine.record.redaction import Redaction
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import ModelChoice, SamplingRule, Settings
from specscope.engine.tree.policy import parse_policy
from specscope.schemas import decode_record, encode_record
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.oracle.check import check_trace

LAYERS, HEADS, WIDTH = 3, 2, 4
DRAWN = SamplingRule("sampling", temperature=0.8, draft="sampled")
SAME = [Prompt(name, ids=tuple(range(3, 23))) for name in ("first", "second")]
ALMOST = [*SAME, Prompt("third", ids=(*range(3, 14), 40, *range(15, 25)))]


def states(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Pair:
    """One dense and one paged cache that are told the same. Blocks that are free hold no numbers: who reads one of them
    is found out."""

    def __init__(self, num_rows: int, block_size: int) -> None:
        self.dense = TreeCache(LAYERS, 8, num_rows)
        self.paged = PagedCache(LAYERS, block_size, 8, num_rows)
        self.held: list[list[int]] = [[] for _ in range(num_rows)]  # a number that stands for what lies there

    def feed(self, numbers: list[list[int]]) -> None:
        """Appends, to each active row, positions that are told by numbers; both must show the same."""
        for layer in range(LAYERS):
            keys = self._positions(numbers, layer)
            values = self._positions(numbers, layer + LAYERS)
            wanted = self.dense.update(keys, values, layer)
            got = self.paged.update(keys, values, layer)
            for a, b in zip(wanted, got, strict=True):
                assert a.shape == b.shape
                for row, length in enumerate(self.dense.active_lengths):
                    end = length + self.dense.layer_tails[layer]
                    assert torch.equal(a[row, :, :end], b[row, :, :end])
                assert torch.isfinite(b).all(), "what lies behind a row's end is masked, and must be a number"

    def _positions(self, numbers: list[list[int]], kind: int) -> torch.Tensor:
        return torch.stack(
            [torch.cat([states((HEADS, 1, WIDTH), number * 10 + kind) for number in row], dim=1) for row in numbers]
        )

    def prompt(self, row: int, numbers: list[int], *, keep: int, share: bool) -> None:
        """Takes in a prompt behind the first ``keep`` positions that are held of it already."""
        for cache in (self.dense, self.paged):
            cache.truncate(row, keep)
        with self.dense.only(row), self.paged.only(row):
            self.feed([numbers[keep:]])
            for cache in (self.dense, self.paged):
                cache.commit_length([len(numbers) - keep])
        self.held[row] = list(numbers)
        if share:
            self.paged.share(row, [self._common(numbers, other) for other in self.held])

    @staticmethod
    def _common(a: list[int], b: list[int]) -> int:
        return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    def step(self, tree: list[list[int]], paths: list[list[int]]) -> None:
        """A tree of each row is fed and a path of it committed, with the digests of both."""
        self.feed(tree)
        commits = []
        for cache in (self.dense, self.paged):
            known = [RowCustody(prefix_sums(cache, row), row % LAYERS) for row in range(cache.num_rows)]
            commits.append(commit_step(cache, cache, paths, list(known)))
        for wanted, got in zip(*commits, strict=True):
            assert (wanted.committed_before, wanted.committed_after) == (got.committed_before, got.committed_after)
            assert wanted.content is not None
            assert got.content is not None
            for name in ("sources", "written", "prefix", "prefix_after"):
                assert torch.equal(getattr(wanted.content, name), getattr(got.content, name)), name
        for held, fed, path in zip(self.held, tree, paths, strict=True):
            held += [fed[slot] for slot in path]

    def add(self) -> None:
        self.dense.add_rows(1)
        self.paged.add_rows(1)
        self.held.append([])

    def drop(self, row: int) -> None:
        self.dense.drop_row(row)
        self.paged.drop_row(row)
        last = self.held.pop()
        if row < len(self.held):
            self.held[row] = last

    def check(self) -> None:
        paged, size = self.paged, self.paged.tables.block_size
        assert paged.committed_lengths == self.dense.committed_lengths
        for row, length in enumerate(paged.committed_lengths):
            assert len(paged.tables.tables[row]) == -(-length // size)
            a, b = self.dense.committed(row), paged.committed(row)
            assert (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for block in paged.tables.free:
            if paged.pool is not None and (block + 1) * size <= paged.pool.shape[3]:
                paged.pool[:, :, :, block * size : (block + 1) * size] = torch.nan


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_both_caches_show_the_same_bits_over_trees_rows_truncations_and_drops(data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(1, 3))
    pair = Pair(num_rows, data.draw(st.integers(1, 6)))
    common = list(range(100, 112))  # what prompts have in common
    for row in range(num_rows):
        pair.prompt(row, _prompt(data, common), keep=0, share=True)
        pair.check()
    for number in range(data.draw(st.integers(1, 5))):
        if not pair.held:
            break
        row, what = data.draw(st.integers(0, len(pair.held) - 1)), data.draw(st.integers(0, 6))
        if what == 0:
            pair.drop(row)
        elif what == 1:
            kept = data.draw(st.integers(0, max(0, len(pair.held[row]) - 1)))
            numbers = [*pair.held[row][:kept], 900 + number]
            pair.prompt(row, numbers, keep=kept, share=data.draw(st.booleans()))
        elif what == 2:
            pair.prompt(row, _prompt(data, common), keep=0, share=True)
        elif what == 3:
            pair.add()
            pair.prompt(len(pair.held) - 1, _prompt(data, common), keep=0, share=True)
        else:
            count = data.draw(st.integers(1, 6))
            tree = [[1000 * (number + 1) + 50 * r + slot for slot in range(count)] for r in range(len(pair.held))]
            paths = [[0, *sorted(data.draw(st.sets(st.integers(1, count), max_size=3)) - {count})] for _ in pair.held]
            pair.step(tree, paths)
        pair.check()


def _prompt(data: st.DataObject, common: list[int]) -> list[int]:
    length = data.draw(st.integers(1, len(common)))
    return [*common[:length], *data.draw(st.lists(st.integers(200, 205), max_size=3))]


def test_equal_prompts_share_their_blocks_until_one_of_them_writes() -> None:
    pair = Pair(2, 4)
    for row in range(2):
        pair.prompt(row, list(range(6)), keep=0, share=True)
    assert pair.paged.tables.tables == [[0, 1], [0, 1]]
    pair.step([[50, 51], [60, 61]], [[0, 1], [0]])
    pair.check()
    (first, mine), (second, theirs) = pair.paged.tables.tables
    assert (first, second) == (0, 0)
    assert mine != theirs


def test_rows_that_hold_other_bits_share_nothing_although_their_tokens_are_equal() -> None:
    pair = Pair(2, 4)
    pair.prompt(0, list(range(6)), keep=0, share=True)
    pair.prompt(1, list(range(10, 16)), keep=0, share=False)
    pair.paged.share(1, [6, 6])  # as of equal tokens
    assert not set(pair.paged.tables.tables[0]) & set(pair.paged.tables.tables[1])
    pair.check()


@pytest.mark.parametrize("order", [[0, 3, 2], [1, 2]])
def test_a_path_in_any_order_is_copied_as_it_is(order: list[int]) -> None:
    pair = Pair(1, 4)
    pair.prompt(0, list(range(5)), keep=0, share=False)
    pair.step([[50, 51, 52, 53]], [order])
    pair.check()


def test_layers_that_were_fed_out_of_order_are_arranged() -> None:
    pair = Pair(2, 4)
    for row in range(2):
        pair.prompt(row, list(range(row, 5)), keep=0, share=True)
    pair.feed([[50, 51, 52], [60, 61, 62]])
    for cache in (pair.dense, pair.paged):
        cache.arrange_tail(2, torch.tensor([[2, 0], [1, 2]]))
        assert cache.layer_tails == [2, 2, 3]
    for row, length in enumerate([5, 4]):
        places = [length, length + 1]
        assert torch.equal(pair.dense.at(row, places)[:2], pair.paged.at(row, places)[:2])


def test_what_a_paged_cache_cannot_do_is_refused() -> None:
    cache = PagedCache(LAYERS, 4, 8)
    with pytest.raises(ValueError, match="empty"):
        cache.at(0, [0])
    with pytest.raises(ValueError, match="no buffer"):
        cache.reserve(8)
    with pytest.raises(ValueError, match="not copied"):
        cache.copy()
    keys = torch.zeros(1, HEADS, 2, WIDTH)
    for layer in range(LAYERS):
        cache.update(keys, keys, layer)
    with pytest.raises(ValueError, match="like the first one's"):
        cache.update(keys[:, :1], keys[:, :1], 0)
    with pytest.raises(ValueError, match="the tail's length"):
        cache.commit_length([3])
    for slots in ([0, 2], [-1]):
        with pytest.raises(ValueError, match="the tail"):
            cache.commit_paths(cache, [slots])


@pytest.fixture
def runs(teacher_folder: Path, head_folder: Path, tmp_path: Path) -> TinyRuns:
    return TinyRuns(teacher_folder, head_folder, tmp_path)


def decided(path: Path) -> Lines:
    """The records less what tells of the cache's layout, and of time."""
    lines = load(path)
    for line in lines:
        for name in ("cache", "block_size", "capabilities", "run_id", "created", "duration_ns", "timing", "digest"):
            line.pop(name, None)
        for section, names in (("prefill", ("block_table", "duration_ns")), ("verify", ("block_table",))):
            for name in names:
                (line.get(section) or {}).pop(name, None)
        (line.get("commit") or {}).pop("blocks", None)
    return lines


RUNS: dict[str, dict[str, Any]] = {
    "eager": {"mode": "eager", "batch_size": 2},
    "fused": {"mode": "fused", "batch_size": 2},
    "conversations": {"prompts": TALKS, "batch_size": 2, "tokens": 12},
    "equal prompts": {"prompts": ALMOST, "batch_size": 3, "tokens": 12},
    "equal prompts one after another": {"prompts": ALMOST, "batch_size": 2, "tokens": 12},
    "drawn": {"rule": DRAWN, "policy": parse_policy("static:pair-6", 1, 1, 1), "batch_size": 2},
    "lookup": {"drafter": "ngram", "batch_size": 2, "tokens": 24},
    "a model": {"drafter": "model", "batch_size": 2},
    "bfloat16": {"dtype": "bfloat16", "batch_size": 2},
}


@pytest.mark.parametrize("block_size", [1, 5, 16])
@pytest.mark.parametrize("name", RUNS)
def test_whole_runs_decide_and_digest_the_same(runs: TinyRuns, name: str, block_size: int) -> None:
    dense = runs("dense", **RUNS[name])
    paged = runs("paged", cache="paged", block_size=block_size, **RUNS[name])
    assert decided(paged) == decided(dense)
    manifest = load(paged)[0]
    assert (manifest["cache"], manifest["block_size"], load(dense)[0]["cache"]) == ("paged", block_size, "dense")
    assert not check_trace(paged).num_violations
    shared = any((line.get("commit") or {}).get("blocks", {}).get("shared") for line in load(paged))
    assert shared == name.startswith("equal prompts")


@pytest.mark.parametrize("more", [{"mode": "eager"}, {"mode": "fused"}, {"kernel": "two-part"}])
def test_sliding_windows_and_two_part_attention_see_the_same(tmp_path: Path, more: dict[str, Any]) -> None:
    teacher = save_tiny(tmp_path, "mistral", num_hidden_layers=4, sliding_window=5)
    choice = ModelChoice(teacher=str(teacher), drafter="ngram:1-8", dtype="float32", device="cpu", **more)
    prompts = [Prompt("long", ids=(5, 9, 17, 9, 5, 33, 12) * 4), Prompt("short", ids=(3, 3, 8))]
    traces = [tmp_path / f"{cache}.jsonl" for cache in ("dense", "paged")]
    for trace in traces:
        record(choice, prompts, trace, batch_size=2, cache=trace.stem)
    assert decided(traces[1]) == decided(traces[0])
    assert not check_trace(traces[1]).num_violations


@pytest.mark.parametrize("tree", ["dynamic", "chain"])
def test_layers_that_a_drafter_has_run_are_committed_the_same(runs: TinyRuns, tmp_path: Path, tree: str) -> None:
    torch.manual_seed(4)
    sizes = {"hidden_size": HIDDEN, "vocab_size": VOCAB, "intermediate_size": 24}
    save_exit_head(ExitHead(ExitHeadConfig(exit_layer=3, rms_norm_eps=1e-6, **sizes)), tmp_path / "exit")
    way: dict[str, Any] = {"batch_size": 2, "policy": parse_policy(tree, 4, 3, 9)}
    dense = runs("dense", f"early-exit:{tmp_path / 'exit'}", **way)
    paged = runs("paged", f"early-exit:{tmp_path / 'exit'}", cache="paged", block_size=4, **way)
    assert decided(paged) == decided(dense)


def test_the_tokens_of_shared_blocks_are_not_told_by_a_redacted_trace(runs: TinyRuns) -> None:
    plain, redaction = load(runs("plain", prompts=SAME, batch_size=2, cache="paged")), Redaction("a long key", VOCAB)

    def told(lines: Lines) -> set[str]:
        blocks = [line["commit"]["blocks"] for line in lines if line["kind"] == "step"]
        return {digest for of in blocks for entry in of.get("shared", []) for digest in entry["token_digests"]}

    records = [decode_record(json.dumps(line).encode()) for line in plain]
    hidden = [json.loads(encode_record(redaction.record(record))) for record in records]
    assert told(plain)
    assert len(told(hidden)) == len(told(plain)), "equal where they were equal"
    assert not told(hidden) & told(plain)


def test_another_layout_is_not_another_result(runs: TinyRuns) -> None:
    verdict = diff_traces(runs("dense", batch_size=2), runs("paged", cache="paged", batch_size=2))
    assert (verdict.exit_code, verdict.roots, verdict.unjudged) == (0, [], [])
    assert verdict.axis == ["cache: dense -> paged"]
    smaller = diff_traces(runs("paged", cache="paged"), runs("smaller", cache="paged", block_size=4))
    assert (smaller.exit_code, smaller.axis) == (0, ["block_size: 16 -> 4"])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cache": "sparse"}, "wanted one of dense, paged"),
    ({"block_size": 8}, "a dense cache has no blocks"),
    ({"cache": "paged", "block_size": 0}, "wanted 1 to 1024 positions"),
    ({"cache": "paged", "cache_strategy": "replicate"}, "got --cache paged with cache strategy replicate"),
    ({"cache": "paged", "graph": "on"}, "got --graph with --cache paged"),
]


@pytest.mark.parametrize(("named", "says"), REFUSED)
def test_what_does_not_go_together_is_refused_in_words(named: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Settings.of(**named)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--budget", "auto"), "measured with a dense cache"),
        (("--engine", "ppsd", "--stages", "2"), "got --cache paged with --engine ppsd"),
        (("--cache-strategy", "full-reorder"), "copies the accepted path alone"),
    ],
)
def test_the_command_refuses_them_too(more: tuple[str, ...], says: str) -> None:
    refused = specscope("run", "--prompt", "x", "--cache", "paged", *more)
    assert refused.code == 2
    assert says in " ".join(refused.err.split())


def test_rows_of_unlike_length_keep_their_own_prompts(runs: TinyRuns) -> None:
    """Three rows over five prompts, so that rows are dropped and taken again while others run on."""
    prompts = [*IDS, *(Prompt(f"more-{n}", ids=tuple(range(5, 8 + 7 * n))) for n in range(3))]
    dense = runs("dense", prompts=prompts, batch_size=3, tokens=9)
    paged = runs("paged", prompts=prompts, batch_size=3, tokens=9, cache="paged", block_size=4)
    assert decided(paged) == decided(dense)
