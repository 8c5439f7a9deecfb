"""What is said of nodes that go and come, and where Ray's own pages about them end up."""

from __future__ import annotations

import logging

import pytest

from sweeps.on_ray import cluster, node_changes
from sweeps.on_ray.node_changes import NodeChanges


class Cluster:
    def __init__(self) -> None:
        self.slots, self.said = 3, list[str]()
        self.changes = NodeChanges(lambda: self.slots, self.said.append)


def test_a_node_that_goes_is_said_once_with_the_slots_that_are_left() -> None:
    one = Cluster()
    one.changes.look({"a": "10.0.0.1", "b": "10.0.0.2"})
    assert not one.said, "those that the sweep begins with are no news"
    one.changes.look({"a": "10.0.0.1"})
    assert not one.said, "its slots are not counted yet"
    one.slots = 1
    one.changes.look({"a": "10.0.0.1"})
    one.changes.look({"a": "10.0.0.1"})
    assert one.said == ["a node has gone: 10.0.0.2, 1 slot now"]


def test_where_the_slots_stay_as_many_it_is_said_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_changes, "_COUNTED_S", -1.0)
    one = Cluster()
    one.changes.look({"a": "10.0.0.1"})
    one.changes.look({"a": "10.0.0.1", "b": "10.0.0.2"})
    assert one.said == ["a node has come: 10.0.0.2, 3 slots now"]


def test_what_rays_servers_report_goes_to_the_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that Ray's listening thread calls: a new version of Ray may have another."""
    from ray._private import worker

    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)
    cluster._send_errors_to_the_log()

    class Subscriber:
        def subscribe(self) -> None: ...
        def poll(self) -> tuple[None, dict]:
            if over.is_set():
                raise OSError("over")
            over.set()
            return None, {"job_id": None, "error_message": "The node with node id: 1 has been marked dead"}

    import threading
    from types import SimpleNamespace

    over, end = threading.Event(), threading.Event()
    job = SimpleNamespace(binary=lambda: b"1")
    one = SimpleNamespace(gcs_error_subscriber=Subscriber(), current_job_id=job)
    monkeypatch.setattr(worker, "_internal_kv_initialized", lambda: False)
    with caplog.at_level(logging.WARNING, "ray"):
        worker.listen_error_messages(one, end)
    assert "marked dead" in caplog.text and "marked dead" not in "".join(capsys.readouterr())
