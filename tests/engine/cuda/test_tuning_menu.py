"""An engine's menu: what assignments over its tactics need is planned and compiled before one of them is asked for."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.errors import Missing
from probe.engine.device.cuda.tuning.planning import Planning
from probe.engine.tuning.menu import keeping, lifted, prepare_menu
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_templates import FEEDS, engine, on  # noqa: F401 - a fixture
from tests.engine.cuda.test_tuning_names import network
from tests.engine.cuda.test_wgmma import hopper  # noqa: F401 - a fixture

NEW = 9  # a seed that the menu does not draw from


class Hopper(NullBackend):
    """Plans as on an H200, and compiles: nothing, but it counts."""

    arch = "sm_90a"

    def __init__(self):
        super().__init__()
        self.compiler = self
        self.folder, self.there, self.compiled = None, set(), 0

    def missing(self, sources):
        return [one for one in dict.fromkeys(sources) if one not in self.there]

    def key(self, source):
        return source

    def take(self, programs):
        self.there.update(programs)

    def __call__(self, source):
        self.compiled += source not in self.there
        self.there.add(source)

    def launch(self, source, shape, arguments, what):
        self(source)
        super().launch(source, shape, arguments, what)


def test_a_new_assignment_compiles_nothing(engine):  # noqa: F811 - the fixture
    backend = Hopper()
    engine.device = device = on(engine, backend)
    menu = prepare_menu(engine, FEEDS)
    assert menu is not None and 10 < menu.kernels <= backend.compiled and menu.layers > 2 * len(engine.layers)
    before, compiled = len(device._templates), backend.compiled
    for assignment in islice(lifted(engine, engine.assignment, NEW), 12):
        for _ in range(2):
            engine.run(FEEDS, assignment)
    assert backend.compiled == compiled
    assert len(device._templates) == before, "and plans nothing"
    some = list(islice(keeping(engine, engine.assignment, NEW), 6))
    for assignment in some:
        engine.run(FEEDS, assignment)
    assert backend.compiled - compiled < len(some), "most of what kept tensors need is there"
    again = prepare_menu(engine, FEEDS)
    assert again is not None and again.layers <= 30 and not again.kernels


def test_tactics_are_on_the_menu(engine):  # noqa: F811 - the fixture
    backend = Hopper()
    engine.device = on(engine, backend)
    layer = next(one.name for one in engine.layers if one.kind == "conv")
    tuned = engine.assignment.with_tactics({layer: "mma_64x64"})
    prepare_menu(engine, FEEDS, tuned)
    compiled = backend.compiled
    engine.run(FEEDS, tuned)
    engine.run(FEEDS, tuned.keeping(layers=[one.name for one in engine.layers[3:9:2]]))
    assert backend.compiled == compiled


@pytest.mark.parametrize("place", ["host", "hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_what_was_planned_without_memory_computes_the_same(request, engine, place):  # noqa: F811 - the fixture
    backend = request.getfixturevalue(place)
    engine.device = used = on(engine, backend)
    prepare_menu(engine, FEEDS, max_seconds=1.0)
    assert used._templates and not used.queue.launches.get("softmax_held")
    for assignment in [
        *islice(lifted(engine, engine.assignment, NEW), 4),
        *islice(keeping(engine, engine.assignment, NEW), 3),
    ]:
        plans = engine.plans(assignment)
        found = used.run(FEEDS, plans)
        fresh = on(engine, backend)
        fresh.replays.enabled = False
        for name, array in fresh.run(FEEDS, plans).items():
            assert np.array_equal(found[name], array), name


CONSTANTS = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,8] x) => (float[2,8] y, float[4,8] z)
{ h = Sign (w)  t = Einsum <equation = "ij->ij"> (h)
  a = Add (x, t)  c = Concat <axis = 0> (t, t)  k, l = Split <axis = 0, num_outputs = 2> (t)  b = Mul (a, k)
  d = Mul (l, l)  e = Concat <axis = 0> (k, l)  y = Add (b, d)  z = Add (c, e2)  e2 = Concat <axis = 0> (e, e) }"""


@pytest.mark.parametrize("place", ["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_constants_never_lie_where_they_were_only_to_lie(request, tmp_path, place):
    """One that the host computes is read by what depends on the input, which is only planned, and by what does not, which is launched."""
    backend = request.getfixturevalue(place)
    text = CONSTANTS.replace(
        "z = Add (c, e2)  e2 = Concat <axis = 0> (e, e)", "e2 = Concat <axis = 0> (e, e)  z = Add (c, e2)"
    )
    loaded = network(tmp_path, text, w=(2, 8))
    feeds = {"x": np.ones((2, 8), np.float32)}
    made = compile_model(loaded, precision="fp16", fusion="none", passes="none")
    expected = made.run(feeds)
    made.device = device = on(made, backend)
    for _ in range(2):
        device.learn(feeds, made.plans(made.assignment))
    for _ in range(3):
        found = made.run(feeds)
        assert all(np.array_equal(found[name], array) for name, array in expected.items())
    for mixture in islice(lifted(made, made.assignment, NEW), 6):
        device.learn(feeds, made.plans(mixture))
        assert all(np.array_equal(made.run(feeds, mixture)[name], array) for name, array in expected.items())
    assert device.fallen, "the host computed it"


def test_the_cpu_has_no_menu(engine):  # noqa: F811 - the fixture
    assert prepare_menu(engine, FEEDS) is None


def test_what_depends_on_values_ends_a_plan(engine):  # noqa: F811 - the fixture
    """It is planned as far as that goes, and never by a kernel that would not be taken otherwise."""
    backend = Hopper()
    device = on(engine, backend)
    with pytest.raises(Missing):
        Planning(backend).download(np.zeros(1), 256)
    run = device._run_anew

    def looking(layer, reads, plan, queue, **more):
        made = run(layer, reads, plan, queue, **more)
        if layer.kind == "softmax":
            next(iter(made.values())).array(queue.backend)
        return made

    device._run_anew = looking
    new = device.learn(FEEDS, engine.plans(engine.assignment))
    softmax = next(at for at, one in enumerate(engine.layers) if one.kind == "softmax")
    assert 0 < new <= softmax
