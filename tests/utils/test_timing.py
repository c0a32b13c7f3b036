"""The instruments of the benchmarks."""

import subprocess
import sys

from paddle_inline.utils.timing import benchmark_interleaved, peak_memory, spread

CHILD = "from paddle_inline.utils.timing import peak_memory; print(peak_memory())"


def test_peak_memory_counts_what_was_held():
    held = bytearray(300 * 2**20)
    held[:: 2**12] = b"1" * len(held[:: 2**12])
    del held
    assert peak_memory() > 300


def test_peak_memory_is_this_program_s_own():
    held = bytearray(400 * 2**20)
    held[:: 2**12] = b"1" * len(held[:: 2**12])
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 300 < peak_memory()


def test_spread_is_median_and_quartiles():
    assert spread([3, 1, 2, 5, 4]) == {"median": 3, "low": 1.5, "high": 4.5}
    assert spread([7]) == {"median": 7, "low": 7, "high": 7}


def test_functions_take_turns():
    calls = []
    ticks = iter(range(100))
    result = benchmark_interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 1, clock=lambda: next(ticks)
    )
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert result["a"] == {"median": 1, "low": 1, "high": 1}


def test_rests_time_the_second_call_of_a_turn():
    calls = []
    benchmark_interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 1, 0, rest=1e-6)
    assert calls == ["a", "a", "b", "b"]
