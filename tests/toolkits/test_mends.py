"""Mends of a toolkit: made where the fault is, and nowhere else."""

import types

import pytest

from paddle_inline.toolkits.mends import Mend, Shadow, apply_mends, fails, shadow


def toolkit(**contents):
    module = types.ModuleType("toolkit")
    module.__dict__.update(contents)
    return module


def mend_of(module, value):
    return Mend(
        "answer", "it is 41 since 3.0", lambda: module.answer == 41, lambda: setattr(module, "answer", value)
    )


def test_a_mend_is_applied_where_its_fault_is_and_once():
    module = toolkit(answer=41)
    assert apply_mends([mend_of(module, 42)]) == ["answer: it is 41 since 3.0"]
    assert module.answer == 42
    assert apply_mends([mend_of(module, 43)]) == []
    assert module.answer == 42


def test_a_toolkit_without_the_fault_stays_as_it_is():
    module = toolkit(answer=40)
    assert apply_mends([mend_of(module, 42)]) == [] and module.answer == 40


def test_a_mend_that_does_not_take_is_an_error():
    with pytest.raises(RuntimeError, match="the mend 'answer' does not take"):
        apply_mends([mend_of(toolkit(answer=41), 41)])


def test_fails_tells_an_error_of_the_named_kinds():
    assert fails(lambda: {}["a"]) and fails(lambda: {}["a"], KeyError)
    assert not fails(lambda: 1)
    with pytest.raises(KeyError):
        fails(lambda: {}["a"], TypeError)


def test_a_shadow_changes_one_module_and_no_other():
    library = toolkit(concat=lambda: "theirs", split=lambda: "split")
    first, second = toolkit(library=library), toolkit(library=library)
    shadow(first, "library", concat=lambda: "ours")
    shadow(first, "library", stack=lambda: "stacked")
    assert (first.library.concat(), first.library.split(), first.library.stack()) == (
        "ours",
        "split",
        "stacked",
    )
    assert second.library.concat() == "theirs" and not hasattr(library, "stack")
    assert isinstance(first.library, Shadow) and not isinstance(first.library.original, Shadow)
    with pytest.raises(AttributeError):
        _ = first.library.missing
