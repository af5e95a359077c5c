"""Bytes that a program moves, counted by hand."""

from logo_jax.parallel.programs import moved_bytes, num_instructions

PROGRAM = """
%body (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %double = f32[4]{0} add(%x, %x)
}

%condition (x.1: f32[4]) -> pred[] {
  %x.1 = f32[4]{0} parameter(0)
  ROOT %always = pred[] constant(true)
}

%small (x.2: f32[4]) -> f32[4] {
  %x.2 = f32[4]{0} parameter(0)
  ROOT %minus = f32[4]{0} negate(%x.2)
}

%large (x.3: f32[4]) -> f32[4] {
  %x.3 = f32[4]{0} parameter(0)
  %wide = f32[100]{0} broadcast(%x.3), dimensions={}
  ROOT %narrow = f32[4]{0} slice(%wide), slice={[0:4]}
}

ENTRY %main (a: f32[4], p: pred[]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %p = pred[] parameter(1)
OPERATIONS
}
"""


def moved(*operations):
    return moved_bytes(PROGRAM.replace("OPERATIONS", "\n".join(operations)))


def test_a_loop_counts_as_often_as_it_runs():
    loop = "  %l = f32[4]{0} while(%a), condition=%condition, body=%body"
    known = ', backend_config={"known_trip_count":{"n":"7"}}'
    assert moved(loop) == 3 * 16
    assert moved(loop + known) == 7 * 3 * 16


def test_a_call_counts_as_what_it_calls():
    assert moved("  %c = f32[4]{0} call(%a), to_apply=%small") == 2 * 16


def test_a_conditional_counts_as_the_branch_that_moves_most():
    largest = 16 + 400 + 400 + 16
    line = "  %c = f32[4]{0} conditional(%p, %a, %a), "
    named = "true_computation=%small, false_computation=%large"
    assert moved(line + named) == largest
    assert moved(line + "branch_computations={%large, %small}") == largest


def test_of_an_asynchronous_operation_only_the_start_counts():
    start = "  %s = (f32[4]{0}, f32[8]{0}) all-gather-start(%a), dimensions={0}"
    done = "  ROOT %d = f32[8]{0} all-gather-done(%s)"
    assert moved(start, done) == moved(start) == 16 + 32 + 16


def test_instructions_are_counted_in_all_computations():
    assert num_instructions(PROGRAM.replace("OPERATIONS", "")) == 2 + 2 + 2 + 3 + 2
