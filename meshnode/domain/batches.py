"""How the items of a map are cut into units, once they and who could do them are known."""

from collections.abc import Sequence

from meshnode.domain.bindings import is_gathered, list_length
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate, batch_sizes
from meshnode.domain.step_kinds import End, Expand
from protocol.graph import SubTask
from protocol.limits import BATCHES_MAX, PARTS_MAX


def cut(state: JobState, task: SubTask, candidates: Sequence[Candidate]) -> Expand | End | None:
    """Return the step that cuts a map into units; None while nobody is there to do them.

    The job ends where the map can't be cut.
    """
    count = _count(state, task)
    if isinstance(count, End):
        return count
    slots = sum(candidate.concurrency for candidate in candidates)
    items_max = min([c.items_max for c in candidates] or [count or 1])
    items_max = min(items_max, task.batch_items_max or items_max, PARTS_MAX)
    if count and not candidates:
        return None
    sizes_max = PARTS_MAX if is_gathered(state, task) else BATCHES_MAX
    slots = min(slots, sizes_max // 2)
    sizes_max = min(sizes_max, BATCHES_MAX - len(state.units))
    fewest = -(-count // max(1, sizes_max))  # smaller batches would be too many
    items_max = min(items_max, max(_fair_items(candidates, items_max), fewest))
    sizes = batch_sizes(count, slots=slots, items_max=max(1, items_max))
    if len(sizes) > sizes_max:
        return End(
            "graph.invalid",
            f"sub-task {task.id!r} makes {len(sizes)} batches of {count} items,"
            f" {sizes_max} are allowed: raise batch_items_max",
        )
    return Expand(task.id, tuple(sizes))


def _fair_items(candidates: Sequence[Candidate], items_max: int) -> int:
    """Return how many items one award should have, so that a stranger may have several out."""
    return min(
        (max(1, c.batch_mc // c.price_mc) for c in candidates if c.batch_mc and c.price_mc),
        default=items_max,
    )


def _count(state: JobState, task: SubTask) -> int | End:
    """Return the items that ``task`` maps over, or the end of the job."""
    lengths = {name: list_length(state, task, name) for name in task.each}
    first = lengths[task.each[0]]
    if first is not None and len(set(lengths.values())) == 1:
        return first
    told = ", ".join(
        f"{name} has {'no list' if n is None else n}" for name, n in sorted(lengths.items())
    )
    return End("input.invalid", f"sub-task {task.id!r} maps over unequal lists: {told}")
