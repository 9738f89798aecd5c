"""The scene says what the Trace says: exactly where it promises to, within the stated bound elsewhere."""

import json

import numpy as np
import pytest
import torch

from regard.seeing.trace import Trace, TraceError
from regard.view import read
from regard.view.arrays import LOG8_FLOOR, Shelf, load
from regard.view.difference import difference
from regard.view.links import strongest
from regard.view.scene import LADDER, scene
from tests.view import traces


def test_a_scene_is_small_json() -> None:
    drawn = scene(traces.decoder(12, 4, 6, text=traces.SENTENCE))
    assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn
    assert drawn["exact"] and drawn["dropped"] == []
    assert len(json.dumps(drawn)) < 100_000


@pytest.mark.parametrize(
    "trace",
    [
        traces.decoder(12, 4, 6),
        traces.decoder(1, 1, 1),
        traces.translator(["Ein", "Hund", "</s>"], ["<s>", "A", "dog"]),
        traces.image(3),
    ],
    ids=["decoder", "one token", "cross", "image"],
)
def test_every_number_of_a_short_trace_is_in_the_scene_bit_for_bit(trace: Trace) -> None:
    drawn = scene(trace)
    arrays = drawn["arrays"]
    for layer, kept in zip(trace.layers, drawn["layers"], strict=True):
        for label, results in layer.results.items():
            shape = trace.statistics[label].shape
            if shape == "row":
                found = load(arrays, kept["rows"][label]["values"])
                assert np.array_equal(found, results["rows"][0].numpy()), label
            elif shape == "key":
                found = load(arrays, kept["keys"][label]["values"])
                assert np.array_equal(found, results["keys"][0].numpy().astype(np.float32)), label
            elif shape == "top":
                top = kept["tops"][label]
                assert np.array_equal(load(arrays, top["weights"]), results["weights"][0].numpy())
                assert np.array_equal(load(arrays, top["keys"]), results["keys"][0].numpy())
                assert np.array_equal(load(arrays, top["rest"]), results["rest"][0].numpy())
            elif shape == "map":
                found = load(arrays, kept["maps"][label]["max"])
                assert kept["maps"][label]["exact"]
                assert np.array_equal(found, results["max"][0].numpy())
        for label, numbers in layer.summaries.items():
            assert kept["summaries"][label] == numbers[0].tolist()


def test_a_pooled_map_is_within_its_stated_bound() -> None:
    trace = traces.decoder(200, 1, 4, resolution=64)
    drawn = scene(trace)
    kept = drawn["layers"][0]["maps"]["overview"]
    assert not kept["exact"] and kept["cell"] == [4, 4]
    for which in ("mean", "max"):
        given = trace.layers[0].results["overview"][which][0].numpy()
        found = load(drawn["arrays"], kept[which])
        above = given >= LOG8_FLOOR
        assert np.abs(found[above] / given[above] - 1).max() <= 0.0222, which
        assert (found[~above] <= LOG8_FLOOR).all(), which


def test_log8_keeps_zero_the_top_and_large_values() -> None:
    shelf = Shelf()
    values = torch.tensor([0.0, 1e-6, LOG8_FLOOR, 0.5, 37.0])
    found = load(shelf.blobs, shelf.put(values, "log8"))
    assert found[0] == found[1] == 0
    assert found[4] == pytest.approx(37.0, rel=1e-6)
    assert found[3] == pytest.approx(0.5, rel=0.035)


def test_float16_is_not_used_where_it_would_overflow() -> None:
    shelf = Shelf()
    assert shelf.put(torch.tensor([131_072.0]), "float16")["type"] == "float32"


def test_equal_arrays_are_stored_once() -> None:
    shelf = Shelf()
    first, second = (shelf.put(torch.ones(4, 4), "float32") for _ in range(2))
    assert first == second and len(shelf.blobs) == 1


@pytest.mark.parametrize("limit", [700_000, 400_000, 120_000, 40_000])
def test_a_scene_keeps_to_its_limit_and_says_what_it_dropped(limit: int) -> None:
    drawn = scene(traces.decoder(300, 4, 6), limit=limit)
    assert sum(map(len, drawn["arrays"])) <= limit
    assert drawn["dropped"]


def test_links_of_bands_are_the_strongest_with_their_exact_row() -> None:
    trace = traces.decoder(300, 2, 6)
    drawn = scene(trace, limit=60_000)
    top = drawn["layers"][0]["tops"]["top"]
    assert top["band"] > 1 and top["rest"] is None
    weights, keys, rows = (load(drawn["arrays"], top[name]) for name in ("weights", "keys", "rows"))
    given = trace.layers[0].results["top"]["weights"][0]
    for head in range(6):
        for band in range(weights.shape[1]):
            of_band = given[head, band * top["band"] : (band + 1) * top["band"]]
            assert weights[head, band, 0] == of_band.max()
    dense = trace.layers[0].results["top"]
    at = dense["keys"][0, 0, rows[0, 0, 0]].tolist().index(keys[0, 0, 0])
    assert dense["weights"][0, 0, rows[0, 0, 0], at] == weights[0, 0, 0]


def test_the_ladder_ends_small_enough_for_a_thousand_heads() -> None:
    last = LADDER[-1]
    assert last.side is not None
    heads = 1024
    assert heads * (2 * last.side**2 + 24 * last.side + 10 * 2 * last.side) * 4 / 3 < 4_000_000


def test_dropped_links_are_counted_as_elsewhere() -> None:
    trace = traces.decoder(300, 4, 6)
    drawn = scene(trace, limit=600_000)
    top = drawn["layers"][0]["tops"]["top"]
    given = trace.layers[0].results["top"]
    kept = top["weights"]["shape"][-1]
    assert kept < 8 and top["band"] == 1
    rest = load(drawn["arrays"], top["rest"])
    expected = given["rest"][0] + given["weights"][0, ..., kept:].sum(-1)
    assert np.abs(rest - expected.numpy()).max() < 1e-7
    assert any("elsewhere" in said for said in drawn["dropped"])


def test_padding_special_and_positions_are_of_the_asked_sequence() -> None:
    trace = traces.decoder(12, 2, 2, batch=2, padding=3)
    second = scene(trace, batch=1)["axes"]["decoder"]
    assert second["padding"] == [0, 1, 2] and second["special"] == []
    assert scene(trace, batch=0)["axes"]["decoder"]["padding"] == []
    shown = scene(trace, batch=1)
    assert load(shown["arrays"], second["positions"]).tolist() == [0, 0, 0, *range(9)]
    with pytest.raises(TraceError, match="batch place 2 is not there; the trace holds 2 sequences"):
        scene(trace, batch=2)


def test_an_unknown_statistic_lists_the_known_ones() -> None:
    with pytest.raises(TraceError, match="'beauty' was not watched; watched: entropy, span"):
        scene(traces.decoder(4, 1, 1), statistic="beauty")


def test_the_pick_says_which_head_and_why() -> None:
    picked = scene(traces.decoder(12, 4, 6))["pick"]
    trace = traces.decoder(12, 4, 6)
    numbers = trace.layers[picked["layer"]].summaries[picked["statistic"]][0]
    assert picked["statistic"] == "induction"
    assert numbers[picked["head"]] == max(float(x.summaries["induction"].max()) for x in trace.layers)
    assert picked["why"] == f"the highest induction score, {float(numbers[picked['head']]):.2f}"


def test_cross_attention_is_picked_first_in_a_translator() -> None:
    drawn = scene(traces.translator(["Ein", "Hund", "</s>"], ["<s>", "A", "dog"]))
    assert drawn["layers"][drawn["pick"]["layer"]]["kind"] == "cross"


# ---- links ----------------------------------------------------------------------------------------------------------


def test_links_are_the_strongest_of_the_dense_weights() -> None:
    trace = traces.decoder(12, 2, 3)
    links = strongest(trace, 500, per_head=144, skip_self=False, skip_first=0)
    assert [link.weight for link in links] == sorted((link.weight for link in links), reverse=True)
    dense = [trace.layers[layer].results["overview"]["max"][0, head].max() for layer in (0, 1) for head in range(3)]
    assert links[0].weight == max(dense)
    for link in links:
        assert trace.weights(trace.layers[link.layer], link.head)[link.row, link.key] == link.weight


def test_links_leave_out_self_and_sinks_and_keep_to_their_share() -> None:
    trace = traces.decoder(12, 4, 6)
    links = strongest(trace, 100, per_head=2, skip_self=True, skip_first=1)
    assert all(link.row != link.key and link.key >= 1 for link in links)
    counted = [(link.layer, link.head) for link in links]
    assert max(map(counted.count, counted)) <= 2


def test_links_of_a_head_do_not_read_the_same() -> None:
    trace = traces.decoder(12, 1, 2, text=["a", "b"] * 6)
    links = strongest(trace, 100, per_head=10, skip_first=0)
    words = [(x.head, "ab"[x.row % 2], "ab"[x.key % 2]) for x in links]
    assert len(set(words)) == len(words)


# ---- differences ----------------------------------------------------------------------------------------------------


def test_a_difference_is_the_difference() -> None:
    a, b = traces.decoder(12, 2, 3, seed=0), traces.decoder(12, 2, 3, seed=1)
    found = difference(a, b, names=("before", "after"))
    assert found["aligned"] and found["why"] is None and found["names"] == ["before", "after", "before − after"]
    minus = found["scenes"][2]
    kept = load(minus["arrays"], minus["layers"][1]["maps"]["overview"]["max"])
    maps = [x.layers[1].results["overview"]["max"][0] for x in (a, b)]
    assert np.array_equal(kept, (maps[0] - maps[1]).numpy())
    rows = load(minus["arrays"], minus["layers"][0]["rows"]["entropy"]["values"])
    entropies = [x.layers[0].results["entropy"]["rows"][0] for x in (a, b)]
    assert np.array_equal(rows, (entropies[0] - entropies[1]).numpy())
    assert minus["signed"] and not any(layer["tops"] for layer in minus["layers"])


def test_a_trace_minus_itself_is_zero() -> None:
    trace = traces.decoder(40, 2, 2, resolution=16)
    minus = difference(trace, trace)["scenes"][2]
    for which in ("mean", "max"):
        assert not load(minus["arrays"], minus["layers"][0]["maps"]["overview"][which]).any()


def test_traces_of_other_lengths_are_shown_side_by_side_with_the_reason() -> None:
    found = difference(traces.decoder(12, 2, 3), traces.decoder(14, 2, 3))
    assert not found["aligned"] and len(found["scenes"]) == 2
    assert "12 on axis 'decoder', against 14 on axis 'decoder'" in found["why"]
    other = difference(traces.decoder(12, 2, 3), traces.decoder(12, 3, 3))
    assert "layers or heads" in other["why"]


# ---- reading --------------------------------------------------------------------------------------------------------


def test_pooling_for_a_small_screen_keeps_the_maximum_and_the_mean() -> None:
    drawn = scene(traces.decoder(50, 1, 1))
    found = read.map_of(drawn, 0, 0)
    assert found is not None
    for largest in (True, False):
        small = read.pooled_to(found, 10, 10, largest)
        assert small.values.shape == (10, 10) and small.cell == (5, 5) and not small.exact
        block, allowed = found.values[5:10, 0:5], found.count[5:10, 0:5]
        expected = block.max() if largest else block.sum() / allowed.sum()
        assert small.values[1, 0] == pytest.approx(expected)


def test_a_head_that_was_not_watched_is_refused() -> None:
    drawn = scene(traces.decoder(4, 1, 2))
    with pytest.raises(TraceError, match="head 7 of layer 'decoder 0' was not watched; watched: 0, 1"):
        read.map_of(drawn, 0, 7)
    with pytest.raises(TraceError, match="there is no layer at place 5; the scene has 1"):
        read.chosen(drawn, 5, 0)
