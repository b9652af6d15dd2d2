"""What a monitor writes is what was computed, and it reads nothing from the device between its records."""

import math
import time

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from coursekit.errors import InputError
from coursekit.train import Finding, Monitor

READING = {"item", "tolist", "numpy", "cpu", "__float__", "__int__", "__bool__", "__index__", "__format__"}


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.records, self.said, self.is_closed = [], [], False

    def write(self, record):
        assert not self.is_closed
        self.records.append(dict(record))

    def say(self, step, sentence):
        self.said.append((step, sentence))

    def close(self):
        self.is_closed = True


class CountReads(TorchFunctionMode):
    """Counts the calls that bring a tensor's value to the host."""

    def __init__(self):
        super().__init__()
        self.num_reads = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.num_reads += getattr(function, "__name__", "") in READING
        return function(*args, **(kwargs or {}))


class CountScalarReads(TorchDispatchMode):
    """The same one level below, where `item`, `float` and `bool` are one operation of aten."""

    def __init__(self):
        super().__init__()
        self.num_reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.num_reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def log_steps(monitor, steps, **more):
    for step in steps:
        loss = torch.tensor(2.0 - 0.01 * step)
        monitor.log(step, num_tokens=8, loss=loss, grad_norm=torch.tensor(1.0), lr=0.1, **more)


def test_every_tenth_step_is_written_with_its_own_figures():
    sink = Kept()
    with Monitor([sink], every=10) as monitor:
        log_steps(monitor, range(25))
    assert [record["step"] for record in sink.records] == [9, 19, 24]  # what is left at the end too
    assert sink.records[1]["loss"] == pytest.approx(2.0 - 0.19)
    assert sink.records[1]["grad_norm"] == 1.0
    assert sink.is_closed


@pytest.mark.parametrize("counting", [CountReads, CountScalarReads])
def test_no_tensor_is_read_between_records(counting):
    monitor = Monitor([Kept()], every=10)
    with counting() as reads:
        log_steps(monitor, range(9))
        with monitor.phase("forward"):
            pass
    assert reads.num_reads == 0


@pytest.mark.parametrize("counting", [CountReads, CountScalarReads])
def test_control_a_record_is_read_and_the_count_sees_it(counting):
    monitor = Monitor([Kept()], every=10)
    with counting() as reads:
        log_steps(monitor, range(10))
    assert reads.num_reads == 20
    with counting() as reads:
        assert float(torch.tensor(1.0)) == 1.0
    assert reads.num_reads == 1


def test_tokens_a_second_and_mfu_are_those_of_the_window():
    sink = Kept()
    with Monitor([sink], every=2, flops_per_token=100.0, peak_flops_per_second=1e6) as monitor:
        monitor.log(0, num_tokens=torch.tensor(30))
        monitor.log(1, num_tokens=70)
    (record,) = sink.records
    assert record["tokens_per_second"] * 2 * record["step_seconds"] == pytest.approx(100)
    assert record["mfu"] == pytest.approx(record["tokens_per_second"] * 100 / 1e6)


def test_phases_are_means_of_a_step():
    sink = Kept()
    with Monitor([sink], every=4) as monitor:
        for step, _ in enumerate(monitor.iterate("data", range(4))):
            with monitor.phase("forward"):
                time.sleep(0.01)
            monitor.log(step, loss=1.0)
    (record,) = sink.records
    assert 0.01 <= record["forward_seconds"] <= record["step_seconds"]
    assert 0 <= record["data_seconds"] < record["step_seconds"]


def test_detectors_see_every_step_not_only_those_written():
    sink = Kept()
    with Monitor([sink], every=10) as monitor:
        for step in range(10):
            monitor.log(step, loss=torch.tensor(math.nan if step == 3 else 1.0))
    assert [(finding.step, finding.fault) for finding in monitor.findings] == [(3, "not finite")]
    assert sink.said[0][0] == 3
    assert sink.said[0][1].startswith("step 3: loss is nan. Likely cause: ")


def test_own_detectors_and_sinks_need_no_base_class():
    class AboveOne:
        def update(self, step, values):
            return Finding("high", "high", "planted", "nothing", step) if values["loss"] > 1 else None

    with Monitor([Kept()], every=3, detectors=[AboveOne()]) as monitor:
        for step, loss in enumerate([0.5, 2.0, 0.5, 3.0]):
            monitor.log(step, loss=loss)
    assert [finding.step for finding in monitor.findings] == [1, 3]


def test_a_run_that_raises_writes_what_it_had():
    sink = Kept()
    monitor = Monitor([sink], every=100)
    log_steps(monitor, range(3))
    with pytest.raises(KeyError), monitor:
        raise KeyError
    assert sink.records[0]["step"] == 2
    assert sink.is_closed


def test_logged_tensors_keep_no_graph():
    parameter = torch.ones(3, requires_grad=True)
    sink = Kept()
    with Monitor([sink], every=1) as monitor:
        monitor.log(0, loss=(parameter * 2).sum())
    assert sink.records[0]["loss"] == 6.0


def test_a_value_that_is_no_scalar_is_an_error_that_names_it():
    monitor = Monitor(every=1)
    with pytest.raises(InputError, match=r"loss of step 4 is no figure: expected one element, got \(2,\)"):
        monitor.log(4, loss=torch.ones(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"every": 0}, "a whole every >= 1, got 0"), ({"flops_per_token": 6.0}, "MFU needs both")],
)
def test_settings_that_make_no_sense_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        Monitor(**options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_no_step_waits_and_the_figures_are_right():
    sink = Kept()
    x = torch.ones(256, 256, device="cuda")
    with Monitor([sink], every=2, device="cuda") as monitor:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")  # torch's own check: a call that waits raises
        try:
            for step in range(2):
                with monitor.phase("forward"):
                    x = x @ x / 256
                monitor.log(step, num_tokens=1, loss=x[0, 0], grad_norm=x.norm())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert [(record["step"], record["loss"]) for record in sink.records] == [(1, 1.0)]
    assert sink.records[0]["forward_seconds"] > 0
