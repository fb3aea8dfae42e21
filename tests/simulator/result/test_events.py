"""What a measurement's events may hold."""

from simulator.result.events import checked_event


def test_a_prompts_hidden_states_are_no_impossible_hop() -> None:
    """512 tokens of hidden size 8192 in float32 are 16.8 MB, and several chunks may pass a relay at once; 2 TB may not."""
    hop = {"type": "hop", "run": 0, "source": "a", "sink": "b", "sent_ns": 1, "imposed_ns": 0, "late_ns": 0}
    whole = hop | {"size_bytes": 4 * 512 * 8192 * 4}
    assert checked_event(whole) == whole
    assert "size_bytes" in str(checked_event(hop | {"size_bytes": 2 * 10**12}))
