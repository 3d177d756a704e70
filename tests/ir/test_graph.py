"""Values, nodes and graphs keep each other's links, whatever is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe import ir
from probe.ir.sequence import Linked


def chain(length: int) -> tuple[ir.Graph, list[ir.Node]]:
    """x -> Relu -> ... -> y."""
    value = first = ir.Value(name="x")
    nodes = []
    for at in range(length):
        nodes.append(ir.Node("", "Relu", [value], name=f"n{at}", outputs=[ir.Value(name=f"v{at}")]))
        value = nodes[-1].outputs[0]
    return ir.Graph([first], [value], nodes=nodes), nodes


def names(graph: ir.Graph) -> list[str | None]:
    return [node.name for node in graph]


def test_who_makes_and_who_reads() -> None:
    graph, nodes = chain(2)
    x, inner, y = graph.inputs[0], nodes[0].outputs[0], graph.outputs[0]
    assert [x.is_graph_input(), inner.is_graph_input(), y.is_graph_output()] == [True, False, True]
    assert inner.producer() is nodes[0] and inner.consumers() == (nodes[1],) and inner.uses() == ((nodes[1], 0),)
    assert x.graph is graph and inner.graph is graph and x.producer() is None
    twice = ir.Node("", "Add", [inner, inner])
    assert inner.consumers() == (nodes[1], twice) and len(inner.uses()) == 3
    twice.replace_input_with(0, x)
    assert [(use.node.op_type, use.idx) for use in inner.uses()] == [("Relu", 0), ("Add", 1)]
    twice.resize_inputs(1)
    assert twice.inputs == (x,) and len(inner.uses()) == 1
    twice.resize_inputs(3)
    assert twice.inputs == (x, None, None)


def test_another_value_takes_the_place_of_one() -> None:
    graph, nodes = chain(2)
    x, inner, y = graph.inputs[0], nodes[0].outputs[0], graph.outputs[0]
    inner.replace_all_uses_with(x)
    assert nodes[1].inputs == (x,) and not inner.uses()
    with pytest.raises(ValueError, match="output"):
        y.replace_all_uses_with(inner)
    y.replace_all_uses_with(inner, replace_graph_outputs=True)
    assert graph.outputs == [inner] and not y.is_graph_output() and inner.is_graph_output() and y.graph is graph
    graph.remove(nodes[1])
    assert names(graph) == ["n0"] and x.uses() and y.graph is None


def test_what_is_read_is_not_removed() -> None:
    graph, nodes = chain(2)
    for node in nodes:  # one is read, the other's result is returned
        with pytest.raises(ValueError, match="still read"):
            graph.remove(node)
    graph.outputs.clear()
    graph.remove(nodes[1])
    graph.remove(nodes[0])
    assert not len(graph) and nodes[0].graph is None and not graph.inputs[0].uses()
    with pytest.raises(ValueError, match="another graph"):
        graph.remove(nodes[0])


def test_initialisers_know_their_names() -> None:
    graph, _ = chain(1)
    w, other = (ir.Value(name=name, const_value=ir.tensor([1.0], name=name)) for name in ("w", "other"))
    graph.initializers.add(w)
    graph.initializers.add(other)
    w.name = "weight"
    assert (
        list(graph.initializers) == ["other", "weight"] and w.const_value is not None and w.const_value.name == "weight"
    )
    with pytest.raises(ValueError, match="two initialisers"):
        w.name = "other"
    again = ir.Value(name="other")
    graph.initializers.add(again)
    assert not other.is_initializer() and other.graph is None and again.is_initializer()
    del graph.initializers["weight"]
    assert not w.is_initializer() and w.graph is None
    with pytest.raises(ValueError, match="made by a node"):
        graph.initializers.add(graph.outputs[0])
    with pytest.raises(ValueError, match="another graph"):
        chain(1)[0].initializers.add(again)


@given(
    st.lists(
        st.tuples(st.sampled_from(["remove", "end", "before"]), st.integers(0, 7), st.integers(0, 7)), max_size=12
    ),
    st.integers(0, 7),
)
def test_a_ring_is_walked_while_it_changes(changes: list[tuple[str, int, int]], when: int) -> None:
    """Against a list: what is met after a change is what stands behind the last one met; a removed one's successor goes on."""
    items = [object() for _ in range(8)]
    ring: Linked[object] = Linked()
    ring.extend(items)
    model = list(items)
    met = []
    for item in ring:
        met.append(item)
        assert len(met) < 40
        if len(met) == when + 1:
            for what, one, other in changes:
                if what == "remove" and items[one] in model:
                    ring.remove(items[one])
                    model.remove(items[one])
                elif what == "end" and items[one] is not item:
                    ring.extend([items[one]])
                    model = [*(each for each in model if each is not items[one]), items[one]]
                elif what == "before" and one != other and items[other] in model and items[one] is not item:
                    ring.insert_before(items[other], items[one])
                    model = [each for each in model if each is not items[one]]
                    model.insert(model.index(items[other]), items[one])
    assert list(ring) == model and list(reversed(ring)) == model[::-1] and len(ring) == len(model)
    stays = items[when] in model
    assert not stays or met[when + 1 :] == model[model.index(items[when]) + 1 :]


def test_sorting_keeps_the_order_that_is_one() -> None:
    graph, nodes = chain(6)
    graph.sort()
    assert names(graph) == [node.name for node in nodes]
    for node in (nodes[3], nodes[0]):
        graph.append(node)
    assert names(graph) == ["n1", "n2", "n4", "n5", "n3", "n0"]
    graph.sort()
    assert names(graph) == ["n0", "n1", "n2", "n3", "n4", "n5"]
    nodes[0].replace_input_with(0, nodes[5].outputs[0])
    with pytest.raises(ValueError, match="ring"):
        graph.sort()


def test_a_node_stands_behind_what_its_bodies_read() -> None:
    c, x = ir.Value(name="c"), ir.Value(name="x")
    outer = ir.Node("", "Exp", [x], name="outer", outputs=[ir.Value(name="big")])
    inner = ir.Node("", "Neg", [outer.outputs[0]], name="inner", outputs=[ir.Value(name="r")])
    body = ir.Graph([], inner.outputs, nodes=[inner])
    choice = ir.Node("", "If", [c], [ir.Attr("then_branch", ir.AttributeType.GRAPH, body)], name="if")
    graph = ir.Graph([c, x], choice.outputs, nodes=[choice, outer])
    graph.sort()
    assert names(graph) == ["outer", "if"] and list(ir.bodies_of(choice)) == ["then_branch"]
